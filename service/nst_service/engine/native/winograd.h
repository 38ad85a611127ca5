// Winograd's F(4x4, 3x3) for one instruction set: vectors of LANES floats, ROWS rows of products at once.
//
// Included once for each instruction set, inside a namespace of its own and between the pragmas that let the compiler
// use it. Lavin & Gray 2016, "Fast algorithms for convolutional neural networks", sections 4.1 and 4.3.

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int Mask __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t Bits __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

constexpr int COLUMNS = 2 * LANES; // Of products that the registers hold.

static inline Vector load(const float *from) { return *reinterpret_cast<const Vector *>(from); }
static inline void store(float *to, Vector value) { *reinterpret_cast<Vector *>(to) = value; }
static inline Vector where(Mask mask, Vector value) { return (Vector)((Mask)value & mask); }
static inline Vector where_positive(Vector value, Vector of) { return where(of > 0, value); }
static inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }
static inline Mask load_bits(const uint16_t *from) {
    return __builtin_convertvector(*reinterpret_cast<const Bits *>(from), Mask);
}
static inline void store_bits(uint16_t *to, Mask value) {
    *reinterpret_cast<Bits *>(to) = __builtin_convertvector(value, Bits);
}

// The one-dimensional transforms; each is applied to the columns of a tile, then to its rows.

struct KernelTransform { // G: 3 -> 6
    static constexpr int from = 3, to = 6;
    static inline void apply(const Vector *g, Vector *u) {
        const Vector even = g[0] + g[2], wide = g[0] + 4 * g[2];
        u[0] = g[0] * 0.25f;
        u[1] = (even + g[1]) * (-1 / 6.0f);
        u[2] = (even - g[1]) * (-1 / 6.0f);
        u[3] = (wide + 2 * g[1]) * (1 / 24.0f);
        u[4] = (wide - 2 * g[1]) * (1 / 24.0f);
        u[5] = g[2];
    }
};

struct InputTransform { // transposed B: 6 -> 6
    static constexpr int from = 6, to = 6;
    static inline void apply(const Vector *d, Vector *v) {
        const Vector a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
        v[0] = 4 * d[0] - 5 * d[2] + d[4];
        v[1] = a + b;
        v[2] = a - b;
        v[3] = c + e;
        v[4] = c - e;
        v[5] = 4 * d[1] - 5 * d[3] + d[5];
    }
};

struct OutputTransform { // transposed A: 6 -> 4
    static constexpr int from = 6, to = 4;
    static inline void apply(const Vector *m, Vector *y) {
        const Vector a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], e = m[3] - m[4];
        y[0] = m[0] + a + c;
        y[1] = b + 2 * e;
        y[2] = a + 4 * c;
        y[3] = b + 8 * e + m[5];
    }
};

struct OutputGradientTransform { // A: 4 -> 6
    static constexpr int from = 4, to = 6;
    static inline void apply(const Vector *y, Vector *m) {
        const Vector a = y[0] + y[2], b = y[1] + y[3], c = y[0] + 4 * y[2], e = 2 * y[1] + 8 * y[3];
        m[0] = y[0];
        m[1] = a + b;
        m[2] = a - b;
        m[3] = c + e;
        m[4] = c - e;
        m[5] = y[3];
    }
};

struct InputGradientTransform { // B: 6 -> 6
    static constexpr int from = 6, to = 6;
    static inline void apply(const Vector *v, Vector *d) {
        const Vector a = v[1] + v[2], b = v[2] - v[1], c = v[3] + v[4], e = 2 * (v[4] - v[3]);
        d[0] = 4 * v[0];
        d[1] = 4 * (b + v[5]) + e;
        d[2] = -5 * v[0] - 4 * a - c;
        d[3] = -b - e - 5 * v[5];
        d[4] = v[0] + a + c;
        d[5] = v[5];
    }
};

// Transforms a square of vectors: `get(i, j)` reads it and `put(i, j, vector)` takes the result.
template <class Transform, class Get, class Put> static inline void transform(Get get, Put put) {
    constexpr int from = Transform::from, to = Transform::to;
    Vector half[to][from];
    for (int j = 0; j < from; ++j) {
        Vector column[from], changed[to];
        for (int i = 0; i < from; ++i) column[i] = get(i, j);
        Transform::apply(column, changed);
        for (int i = 0; i < to; ++i) half[i][j] = changed[i];
    }
    for (int i = 0; i < to; ++i) {
        Vector changed[to];
        Transform::apply(half[i], changed);
        for (int j = 0; j < to; ++j) put(i, j, changed[j]);
    }
}

// Distance of the 36 planes of transformed values: not a power of two, or they fall on the same lines of the cache.
static inline ptrdiff_t plane_of(int rows, int depth) { return ptrdiff_t(rows) * depth + 16; }

// Reads a square of PANEL rows and columns of weights, which may be transposed.
static void read_square(const Kernel &kernel, ptrdiff_t first, bool transposed, float *to) {
    const auto read = [&](auto at) {
        for (int row = 0; row < PANEL; ++row)
            for (int column = 0; column < PANEL; ++column)
                to[transposed ? column * PANEL + row : row * PANEL + column] = at(row * PANEL + column);
    };
    if (kernel.table)
        read([&, places = kernel.places + first](int index) { return kernel.table[places[index]]; });
    else
        read([values = kernel.values + first](int index) { return values[index]; });
}

// Where a weight of a panel, (depth, PANEL), stands for `multiply`: [PANEL / COLUMNS][depth][COLUMNS].
static inline ptrdiff_t place_of(int depth, int row, int column) {
    return (ptrdiff_t(column / COLUMNS) * depth + row) * COLUMNS + column % COLUMNS;
}

// Transforms the weights of a panel, [depth][PANEL] for each tap, into 36 planes for `multiply`. `first(tap, row)`
// tells where the square that begins with a row stands.
template <class First>
static void transform_panel(const Kernel &kernel, int depth, bool transposed, First first, float *weights) {
    constexpr int square = PANEL * PANEL;
    float taps[9 * square];
    for (int row = 0; row < depth; row += PANEL) {
        for (int tap = 0; tap < 9; ++tap) read_square(kernel, first(tap, row), transposed, taps + tap * square);
        for (int at = 0; at < square; at += LANES) {
            float *to = weights + place_of(depth, row + at / PANEL, at % PANEL);
            transform<KernelTransform>(
                [&](int i, int j) { return load(taps + (3 * i + j) * square + at); },
                [&](int i, int j, Vector u) { store(to + (6 * i + j) * plane_of(depth, PANEL), u); });
        }
    }
}

// Products of ROWS rows of `left` with `depth` rows of `right`, COLUMNS of each. The rows of `left` that come next are
// on their way to the cache meanwhile.
static inline void multiply_block(const float *left, ptrdiff_t left_stride, const float *right, int depth, bool add,
                                  float *product) {
    Vector sums[ROWS][2];
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row)
        for (int half = 0; half < 2; ++half)
            sums[row][half] = add ? load(product + row * PANEL + half * LANES) : Vector{};
    for (int line = 0; line < depth; line += LINE) {
#pragma GCC unroll 16
        for (int row = ROWS; row < 2 * ROWS; ++row) __builtin_prefetch(left + row * left_stride + line);
        for (int k = line, end = std::min(line + LINE, depth); k < end; ++k, right += COLUMNS) {
            const Vector first = load(right), second = load(right + LANES);
#pragma GCC unroll 16
            for (int row = 0; row < ROWS; ++row) {
                const Vector scalar = left[row * left_stride + k] - Vector{};
                sums[row][0] += scalar * first;
                sums[row][1] += scalar * second;
            }
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row)
        for (int half = 0; half < 2; ++half) store(product + row * PANEL + half * LANES, sums[row][half]);
}

// left (rows, depth) times right (depth, PANEL), which stands as `place_of` says; rows is a multiple of ROWS. Rows of
// the left are `pitch` apart.
static void multiply(const float *left, ptrdiff_t pitch, const float *right, int rows, int depth, float *product) {
    for (int k = 0; k < depth; k += DEPTH_AT_ONCE) // What is read again and again stays in the first cache.
        for (int column = 0; column < PANEL; column += COLUMNS)
            for (int row = 0; row < rows; row += ROWS)
                multiply_block(left + row * pitch + k, pitch, right + place_of(depth, k, column),
                               std::min(DEPTH_AT_ONCE, depth - k), k > 0, product + ptrdiff_t(row) * PANEL + column);
}

// Tiles that were transformed, [36][rows][pitch], of which `depth` values are used.
struct Spectrum {
    float *data;
    int depth;
    ptrdiff_t pitch, stride; // Between rows and between planes.

    Spectrum(float *data, int tiles, int depth)
        : data(data), depth(depth), pitch(pitch_of(depth)), stride(plane_of(rows(tiles), pitch)) {}
    static int rows(int tiles) { return (tiles + ROWS - 1) / ROWS * ROWS; }
    static int pitch_of(int depth) { return depth + 16; } // As with planes.
    static ptrdiff_t size(int tiles, int depth) { return 36 * plane_of(rows(tiles), pitch_of(depth)); }
    float *row(int tile) const { return data + tile * pitch; }
    void clear_from(int tiles) const { // The last rows that `multiply` reads belong to no tile.
        for (int plane = 0; plane < 36; ++plane)
            std::fill(row(tiles) + plane * stride, row(rows(tiles)) + plane * stride, 0.0f);
    }
};

// Where the outputs of a tile go.
struct ToOutputs {
    float *to[16];

    ToOutputs(const Layer &layer, const Result &result, int tile, int channel) {
        layer.outputs_of(tile, [&](int at, ptrdiff_t pixel) {
            to[at] = pixel < 0 ? nullptr : result.y + pixel * layer.outputs + channel;
        });
    }

    void put(int k, const Vector *values) const {
        for (int at = 0; at < 16; ++at)
            if (to[at]) store(to[at] + k, values[at]);
    }
};

// The same where they are rectified. A bit for each output notes whether it passed.
struct ToRectified {
    ToOutputs outputs;
    uint16_t *kept;

    ToRectified(const Layer &layer, const Result &result, int tile, int channel)
        : outputs(layer, result, tile, channel), kept(result.kept + ptrdiff_t(tile) * layer.outputs + channel) {}

    void put(int k, const Vector *values) const {
        Vector rectified[16];
        Mask bits{};
        for (int at = 0; at < 16; ++at) {
            rectified[at] = where_positive(values[at], values[at]);
            bits |= (values[at] > 0) & (1 << at);
        }
        store_bits(kept + k, bits);
        outputs.put(k, rectified);
    }
};

// The same where they are rectified and pooled at once. The bits note which are part of the result of a window.
template <Then then> struct ToPooled {
    Layer::Window windows[4];
    float *to[4];
    float factor[4];
    uint16_t *kept;

    ToPooled(const Layer &layer, const Result &result, int tile, int channel)
        : kept(result.kept + ptrdiff_t(tile) * layer.outputs + channel) {
        layer.windows_of(tile, [&](int number, const Layer::Window &window, ptrdiff_t pixel) {
            windows[number] = window;
            to[number] = pixel < 0 ? nullptr : result.y + pixel * layer.outputs + channel;
            factor[number] = result.scale / window.count();
        });
    }

    void put(int k, const Vector *values) const {
        Mask bits{};
        for (int number = 0; number < 4; ++number) {
            if (!to[number]) continue;
            Vector inside[4];
            for (int at = 0; at < 4; ++at) {
                const Vector value = values[Layer::Window::output(number, at)];
                inside[at] = windows[number].holds(at) ? where_positive(value, value) : Vector{};
            }
            if (then == Then::max_pool) {
                const Vector largest = larger(larger(inside[0], inside[1]), larger(inside[2], inside[3]));
                Mask open = largest > 0; // The first of those that are the largest is the result.
                for (int at = 0; at < 4; ++at) {
                    const Mask chosen = open & (inside[at] == largest);
                    bits |= chosen & (1 << Layer::Window::output(number, at));
                    open &= ~chosen;
                }
                store(to[number] + k, largest);
            } else {
                for (int at = 0; at < 4; ++at) bits |= (inside[at] > 0) & (1 << Layer::Window::output(number, at));
                store(to[number] + k, ((inside[0] + inside[1]) + (inside[2] + inside[3])) * factor[number]);
            }
        }
        store_bits(kept + k, bits);
    }
};

// The way forward: 6x6 inputs of each tile in, 4x4 outputs of it out.
template <class Target> struct Forward {
    const Layer &layer;
    const float *x;
    const Kernel &kernel;
    const float *bias;
    const Result &result;
    static constexpr bool overlaps = false;

    int depth() const { return layer.inputs; }
    int width() const { return layer.outputs; }

    void weights_of(int panel, float *weights) const {
        const ptrdiff_t size = ptrdiff_t(layer.inputs) * PANEL;
        const auto first = [&](int tap, int input) { return (9 * panel + tap) * size + input * PANEL; };
        transform_panel(kernel, layer.inputs, false, first, weights);
    }

    void gather(int tile, float *to, ptrdiff_t stride) const {
        const float *from[36];
        layer.inputs_of(tile, [&](int at, ptrdiff_t pixel) {
            from[at] = pixel < 0 ? layer.zeros : x + pixel * layer.inputs;
        });
        for (int c = 0; c < layer.inputs; c += LANES)
            transform<InputTransform>([&](int i, int j) { return load(from[6 * i + j] + c); },
                                      [&](int i, int j, Vector v) { store(to + (6 * i + j) * stride + c, v); });
    }

    void scatter(int tile, int channel, const float *from, ptrdiff_t stride) const {
        const Target target(layer, result, tile, channel);
        for (int k = 0; k < PANEL; k += LANES) {
            const Vector offset = load(bias + channel + k);
            Vector values[16];
            transform<OutputTransform>([&](int i, int j) { return load(from + (6 * i + j) * stride + k); },
                                       [&](int i, int j, Vector value) { values[4 * i + j] = value + offset; });
            target.put(k, values);
        }
    }
};

// Where the gradients by the outputs of a tile come from.
struct FromOutputs {
    const float *from[16];

    FromOutputs(const Layer &layer, const Slope &slope, int tile) {
        layer.outputs_of(tile, [&](int at, ptrdiff_t pixel) {
            from[at] = pixel < 0 ? layer.zeros : slope.gradient + pixel * layer.outputs;
        });
    }

    void get(int k, Vector *values) const {
        for (int at = 0; at < 16; ++at) values[at] = load(from[at] + k);
    }
};

// The same where they were rectified.
struct FromRectified {
    FromOutputs outputs;
    const uint16_t *kept;

    FromRectified(const Layer &layer, const Slope &slope, int tile)
        : outputs(layer, slope, tile), kept(slope.kept + ptrdiff_t(tile) * layer.outputs) {}

    void get(int k, Vector *values) const {
        const Mask bits = load_bits(kept + k);
        outputs.get(k, values);
        for (int at = 0; at < 16; ++at) values[at] = where((bits & (1 << at)) != 0, values[at]);
    }
};

// The same where they were rectified and pooled at once.
struct FromPooled {
    const float *from[4];
    float factor[4];
    const uint16_t *kept;

    FromPooled(const Layer &layer, const Slope &slope, int tile) : kept(slope.kept + ptrdiff_t(tile) * layer.outputs) {
        layer.windows_of(tile, [&](int number, const Layer::Window &window, ptrdiff_t pixel) {
            from[number] = pixel < 0 ? layer.zeros : slope.gradient + pixel * layer.outputs;
            factor[number] = slope.then == Then::max_pool ? 1 : slope.scale / window.count();
        });
    }

    void get(int k, Vector *values) const {
        const Mask bits = load_bits(kept + k);
        for (int number = 0; number < 4; ++number) {
            const Vector share = load(from[number] + k) * factor[number];
            for (int at = 0; at < 4; ++at) {
                const int output = Layer::Window::output(number, at);
                values[output] = where((bits & (1 << output)) != 0, share);
            }
        }
    }
};

// The way back, the transpose of the way forward: 4x4 gradients in, what they add to the gradients of 6x6 inputs out.
template <class Source> struct Backward {
    const Layer &layer;
    const Slope &slope;
    const Kernel &kernel;
    float *by_input;
    static constexpr bool overlaps = true;

    int depth() const { return layer.outputs; }
    int width() const { return layer.inputs; }

    void weights_of(int panel, float *weights) const {
        const ptrdiff_t size = ptrdiff_t(layer.inputs) * PANEL;
        const auto first = [&](int tap, int output) {
            return (9 * (output / PANEL) + tap) * size + ptrdiff_t(panel) * PANEL * PANEL;
        };
        transform_panel(kernel, layer.outputs, true, first, weights);
    }

    void gather(int tile, float *to, ptrdiff_t stride) const {
        const Source source(layer, slope, tile);
        for (int k = 0; k < layer.outputs; k += LANES) {
            Vector values[16];
            source.get(k, values);
            transform<OutputGradientTransform>(
                [&](int i, int j) { return values[4 * i + j]; },
                [&](int i, int j, Vector v) { store(to + (6 * i + j) * stride + k, v); });
        }
    }

    void scatter(int tile, int channel, const float *from, ptrdiff_t stride) const {
        float *to[36];
        layer.inputs_of(tile, [&](int at, ptrdiff_t pixel) {
            to[at] = pixel < 0 ? nullptr : by_input + pixel * layer.inputs + channel;
        });
        for (int c = 0; c < PANEL; c += LANES)
            transform<InputGradientTransform>([&](int i, int j) { return load(from + (6 * i + j) * stride + c); },
                                              [&](int i, int j, Vector value) {
                                                  float *target = to[6 * i + j];
                                                  if (target) store(target + c, load(target + c) + value);
                                              });
    }
};

// Multiplies the tiles of a spectrum by a panel of weights and scatters the products; tiles count from `first`.
template <class Way>
static void finish(const Way &way, const Spectrum &spectrum, int first, int begin, int end, const float *weights,
                   int panel, float *products) {
    const int rows = Spectrum::rows(end - begin), depth = spectrum.depth;
    const ptrdiff_t stride = plane_of(rows, PANEL);
    for (int plane = 0; plane < 36; ++plane)
        multiply(spectrum.row(begin) + plane * spectrum.stride, spectrum.pitch,
                 weights + plane * plane_of(depth, PANEL), rows, depth, products + plane * stride);
    for (int tile = begin; tile < end; ++tile)
        way.scatter(first + tile, panel * PANEL, products + ptrdiff_t(tile - begin) * PANEL, stride);
}

static ptrdiff_t products_size() { return 36 * plane_of(TILES_AT_ONCE, PANEL); }

// Many channels: transform tiles, as many as the last cache holds, then let each thread take panels of the weights.
template <class Way> static void by_panels(const Way &way, int threads) {
    const int tiles = way.layer.tiles(), at_once = std::min(tiles, SPECTRUM_TILES);
    const int depth = way.depth(), panels = way.width() / PANEL;
    const ptrdiff_t panel_size = 36 * plane_of(depth, PANEL);
    // What is allocated inside of the parallel region could not fail safely.
    Buffer planes(Spectrum::size(at_once, depth));
    Buffer all_weights(threads * panel_size), all_products(threads * products_size());
#pragma omp parallel num_threads(threads)
    {
        float *weights = all_weights.get() + omp_get_thread_num() * panel_size;
        float *products = all_products.get() + omp_get_thread_num() * products_size();
        for (int done = 0; done < tiles; done += at_once) {
            const int count = std::min(at_once, tiles - done);
            const int first = way.layer.first_tiles() * way.layer.columns + done;
            const Spectrum spectrum(planes.get(), count, depth);
#pragma omp for schedule(static)
            for (int tile = 0; tile < count; ++tile) way.gather(first + tile, spectrum.row(tile), spectrum.stride);
#pragma omp single
            spectrum.clear_from(count);
#pragma omp for schedule(dynamic)
            for (int panel = 0; panel < panels; ++panel) {
                way.weights_of(panel, weights);
                for (int begin = 0; begin < count; begin += TILES_AT_ONCE)
                    finish(way, spectrum, first, begin, std::min(count, begin + TILES_AT_ONCE), weights, panel,
                           products);
            }
        }
    }
}

// Few channels: transform all weights, then let each thread take tiles, as many as its cache holds.
template <class Way> static void by_tiles(const Way &way, int threads) {
    const Layer &layer = way.layer;
    const int depth = way.depth(), panels = way.width() / PANEL;
    const ptrdiff_t panel_size = 36 * plane_of(depth, PANEL);
    const int rows_at_once = std::max(1, TILES_AT_ONCE / layer.columns);
    const int rows = layer.end_tiles() - layer.first_tiles(), groups = (rows + rows_at_once - 1) / rows_at_once;
    // Where neighbours write to the same pixels, they must not run at the same time.
    const int turns = Way::overlaps ? 2 : 1;
    const ptrdiff_t planes_size = Spectrum::size(TILES_AT_ONCE, depth);
    Buffer weights(panels * panel_size), all_planes(threads * planes_size), all_products(threads * products_size());
#pragma omp parallel num_threads(threads)
    {
        float *planes = all_planes.get() + omp_get_thread_num() * planes_size;
        float *products = all_products.get() + omp_get_thread_num() * products_size();
#pragma omp for schedule(static)
        for (int panel = 0; panel < panels; ++panel) way.weights_of(panel, weights.get() + panel * panel_size);
        for (int turn = 0; turn < turns; ++turn) {
#pragma omp for schedule(dynamic)
            for (int group = turn; group < groups; group += turns) {
                const int begin = layer.first_tiles() + group * rows_at_once;
                const int last = std::min(layer.end_tiles(), begin + rows_at_once) * layer.columns;
                for (int first = begin * layer.columns; first < last; first += TILES_AT_ONCE) {
                    const int count = std::min(TILES_AT_ONCE, last - first);
                    const Spectrum spectrum(planes, count, depth);
                    for (int tile = 0; tile < count; ++tile)
                        way.gather(first + tile, spectrum.row(tile), spectrum.stride);
                    spectrum.clear_from(count);
                    for (int panel = 0; panel < panels; ++panel)
                        finish(way, spectrum, first, 0, count, weights.get() + panel * panel_size, panel, products);
                }
            }
        }
    }
}

template <class Way> static void run(const Way &way, int threads) {
    if (way.layer.tiles() < way.width() || way.width() >= MANY_CHANNELS)
        by_panels(way, threads);
    else
        by_tiles(way, threads);
}

static void forward(const Layer &layer, const float *x, const Kernel &kernel, const float *bias, const Result &result,
                    int threads) {
    switch (result.then) {
    case Then::nothing: return run(Forward<ToOutputs>{layer, x, kernel, bias, result}, threads);
    case Then::relu: return run(Forward<ToRectified>{layer, x, kernel, bias, result}, threads);
    case Then::max_pool: return run(Forward<ToPooled<Then::max_pool>>{layer, x, kernel, bias, result}, threads);
    case Then::average_pool: return run(Forward<ToPooled<Then::average_pool>>{layer, x, kernel, bias, result}, threads);
    }
}

static void backward(const Layer &layer, const Slope &slope, const Kernel &kernel, float *by_input, int threads) {
    switch (slope.then) {
    case Then::nothing: return run(Backward<FromOutputs>{layer, slope, kernel, by_input}, threads);
    case Then::relu: return run(Backward<FromRectified>{layer, slope, kernel, by_input}, threads);
    default: return run(Backward<FromPooled>{layer, slope, kernel, by_input}, threads);
    }
}
