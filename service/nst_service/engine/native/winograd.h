// Winograd's F(4x4, 3x3) for one instruction set: vectors of LANES floats, ROWS rows of products at once.
//
// Included once for each instruction set, inside a namespace of its own and between the pragmas that let the compiler
// use it. Lavin & Gray 2016, "Fast algorithms for convolutional neural networks", sections 4.1 and 4.3.

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int Mask __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint8_t Bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

static inline Vector load(const float *from) { return *reinterpret_cast<const Vector *>(from); }
static inline void store(float *to, Vector value) { *reinterpret_cast<Vector *>(to) = value; }
static inline Vector where(Mask mask, Vector value) { return (Vector)((Mask)value & mask); }
static inline Vector where_positive(Vector value, Vector of) { return where(of > 0, value); }
static inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }
static inline Mask load_bytes(const uint8_t *from) {
    return __builtin_convertvector(*reinterpret_cast<const Bytes *>(from), Mask);
}
static inline void store_bytes(uint8_t *to, Mask value) {
    *reinterpret_cast<Bytes *>(to) = __builtin_convertvector(value, Bytes);
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

// Transforms the weights of a panel, [9][depth][PANEL] -> [36][depth][PANEL].
static void transform_weights(const float *kernel, int depth, float *weights) {
    const ptrdiff_t size = ptrdiff_t(depth) * PANEL, plane = plane_of(depth, PANEL);
    for (ptrdiff_t at = 0; at < size; at += LANES)
        transform<KernelTransform>([&](int i, int j) { return load(kernel + (3 * i + j) * size + at); },
                                   [&](int i, int j, Vector u) { store(weights + (6 * i + j) * plane + at, u); });
}

// Products of ROWS rows of `left` with `depth` rows of `right`, 2 * LANES columns of it.
static inline void multiply_block(const float *left, ptrdiff_t left_stride, const float *right, int depth, bool add,
                                  float *product) {
    Vector sums[ROWS][2];
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row)
        for (int half = 0; half < 2; ++half)
            sums[row][half] = add ? load(product + row * PANEL + half * LANES) : Vector{};
    for (int k = 0; k < depth; ++k, right += PANEL) {
        const Vector first = load(right), second = load(right + LANES);
#pragma GCC unroll 16
        for (int row = 0; row < ROWS; ++row) {
            const Vector scalar = left[row * left_stride + k] - Vector{};
            sums[row][0] += scalar * first;
            sums[row][1] += scalar * second;
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row)
        for (int half = 0; half < 2; ++half) store(product + row * PANEL + half * LANES, sums[row][half]);
}

// left (rows, depth) times right (depth, PANEL); rows is a multiple of ROWS. Rows of the left are `pitch` apart.
static void multiply(const float *left, ptrdiff_t pitch, const float *right, int rows, int depth, float *product) {
    for (int k = 0; k < depth; k += DEPTH_AT_ONCE) // What is read again and again stays in the first cache.
        for (int column = 0; column < PANEL; column += 2 * LANES)
            for (int row = 0; row < rows; row += ROWS)
                multiply_block(left + row * pitch + k, pitch, right + ptrdiff_t(k) * PANEL + column,
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
    bool relu;

    ToOutputs(const Layer &layer, const Result &result, int tile, int channel) : relu(result.then == Then::relu) {
        layer.outputs_of(tile, [&](int at, ptrdiff_t pixel) {
            to[at] = pixel < 0 ? nullptr : result.y + pixel * layer.outputs + channel;
        });
    }

    void put(int k, const Vector *values) const {
        for (int at = 0; at < 16; ++at)
            if (to[at]) store(to[at] + k, relu ? where_positive(values[at], values[at]) : values[at]);
    }
};

// The same where they are rectified and pooled at once. Four bits for each window note what is part of its result.
template <Then then> struct ToPooled {
    Layer::Window windows[4];
    float *to[4];
    uint8_t *kept[4];
    float factor[4];

    ToPooled(const Layer &layer, const Result &result, int tile, int channel) {
        layer.windows_of(tile, [&](int number, const Layer::Window &window, ptrdiff_t pixel) {
            const ptrdiff_t place = pixel * layer.outputs + channel;
            windows[number] = window;
            to[number] = pixel < 0 ? nullptr : result.y + place;
            kept[number] = pixel < 0 ? nullptr : result.kept + place;
            factor[number] = result.scale / window.count();
        });
    }

    void put(int k, const Vector *values) const {
        for (int number = 0; number < 4; ++number) {
            if (!to[number]) continue;
            Vector inside[4];
            for (int at = 0; at < 4; ++at) {
                const Vector value = values[Layer::Window::output(number, at)];
                inside[at] = windows[number].holds(at) ? where_positive(value, value) : Vector{};
            }
            Mask bits{};
            if (then == Then::max_pool) {
                const Vector largest = larger(larger(inside[0], inside[1]), larger(inside[2], inside[3]));
                Mask open = largest > 0; // The first of those that are the largest is the result.
                for (int at = 0; at < 4; ++at) {
                    const Mask chosen = open & (inside[at] == largest);
                    bits |= chosen & (1 << at);
                    open &= ~chosen;
                }
                store(to[number] + k, largest);
            } else {
                for (int at = 0; at < 4; ++at) bits |= (inside[at] > 0) & (1 << at);
                store(to[number] + k, ((inside[0] + inside[1]) + (inside[2] + inside[3])) * factor[number]);
            }
            store_bytes(kept[number] + k, bits);
        }
    }
};

// The way forward: 6x6 inputs of each tile in, 4x4 outputs of it out.
template <class Target> struct Forward {
    const Layer &layer;
    const float *x;
    const float *bias;
    const Result &result;
    static constexpr bool overlaps = false;

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

// Where the gradients by the outputs of a tile come from, once they have passed the ReLU that gave the outputs.
struct FromOutputs {
    const float *from[16], *passing[16]; // Those of the ReLU, or null.

    FromOutputs(const Layer &layer, const Slope &slope, int tile) {
        layer.outputs_of(tile, [&](int at, ptrdiff_t pixel) {
            const ptrdiff_t place = pixel * layer.outputs;
            from[at] = pixel < 0 ? layer.zeros : slope.gradient + place;
            passing[at] = slope.then != Then::relu ? nullptr : pixel < 0 ? layer.zeros : slope.y + place;
        });
    }

    void get(int k, Vector *values) const {
        for (int at = 0; at < 16; ++at) {
            const Vector value = load(from[at] + k);
            values[at] = passing[at] ? where_positive(value, load(passing[at] + k)) : value;
        }
    }
};

// The same where they were rectified and pooled at once.
struct FromPooled {
    const float *from[4];
    const uint8_t *kept[4];
    float factor[4];

    FromPooled(const Layer &layer, const Slope &slope, int tile) {
        layer.windows_of(tile, [&](int number, const Layer::Window &window, ptrdiff_t pixel) {
            const ptrdiff_t place = pixel * layer.outputs;
            from[number] = pixel < 0 ? layer.zeros : slope.gradient + place;
            kept[number] = pixel < 0 ? reinterpret_cast<const uint8_t *>(layer.zeros) : slope.kept + place;
            factor[number] = slope.then == Then::max_pool ? 1 : slope.scale / window.count();
        });
    }

    void get(int k, Vector *values) const {
        for (int number = 0; number < 4; ++number) {
            const Vector value = load(from[number] + k) * factor[number];
            const Mask bits = load_bytes(kept[number] + k);
            for (int at = 0; at < 4; ++at)
                values[Layer::Window::output(number, at)] = where((bits & (1 << at)) != 0, value);
        }
    }
};

// The way back, the transpose of the way forward: 4x4 gradients in, what they add to the gradients of 6x6 inputs out.
template <class Source> struct Backward {
    const Layer &layer;
    const Slope &slope;
    float *by_input;
    static constexpr bool overlaps = true;

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
template <class Way>
static void by_panels(const Way &way, const float *kernel, int depth, int panels, int threads) {
    const int tiles = way.layer.tiles(), at_once = std::min(tiles, SPECTRUM_TILES);
    const ptrdiff_t panel_size = 36 * plane_of(depth, PANEL);
    // What is allocated inside of the parallel region could not fail safely.
    Buffer planes(Spectrum::size(at_once, depth));
    Buffer all_weights(threads * panel_size), all_products(threads * products_size());
#pragma omp parallel num_threads(threads)
    {
        float *weights = all_weights.get() + omp_get_thread_num() * panel_size;
        float *products = all_products.get() + omp_get_thread_num() * products_size();
        for (int first = 0; first < tiles; first += at_once) {
            const int count = std::min(at_once, tiles - first);
            const Spectrum spectrum(planes.get(), count, depth);
#pragma omp for schedule(static)
            for (int tile = 0; tile < count; ++tile) way.gather(first + tile, spectrum.row(tile), spectrum.stride);
#pragma omp single
            spectrum.clear_from(count);
#pragma omp for schedule(dynamic)
            for (int panel = 0; panel < panels; ++panel) {
                transform_weights(kernel + ptrdiff_t(panel) * 9 * depth * PANEL, depth, weights);
                for (int begin = 0; begin < count; begin += TILES_AT_ONCE)
                    finish(way, spectrum, first, begin, std::min(count, begin + TILES_AT_ONCE), weights, panel,
                           products);
            }
        }
    }
}

// Few channels: transform all weights, then let each thread take tiles, as many as its cache holds.
template <class Way>
static void by_tiles(const Way &way, const float *kernel, int depth, int panels, int threads) {
    const Layer &layer = way.layer;
    const ptrdiff_t panel_size = 36 * plane_of(depth, PANEL);
    const int rows_at_once = std::max(1, TILES_AT_ONCE / layer.columns);
    const int groups = (layer.rows + rows_at_once - 1) / rows_at_once;
    // Where neighbours write to the same pixels, they must not run at the same time.
    const int turns = Way::overlaps ? 2 : 1;
    const ptrdiff_t planes_size = Spectrum::size(TILES_AT_ONCE, depth);
    Buffer weights(panels * panel_size), all_planes(threads * planes_size), all_products(threads * products_size());
#pragma omp parallel num_threads(threads)
    {
        float *planes = all_planes.get() + omp_get_thread_num() * planes_size;
        float *products = all_products.get() + omp_get_thread_num() * products_size();
#pragma omp for schedule(static)
        for (int panel = 0; panel < panels; ++panel)
            transform_weights(kernel + ptrdiff_t(panel) * 9 * depth * PANEL, depth, weights.get() + panel * panel_size);
        for (int turn = 0; turn < turns; ++turn) {
#pragma omp for schedule(dynamic)
            for (int group = turn; group < groups; group += turns) {
                const int last = std::min(layer.rows, (group + 1) * rows_at_once) * layer.columns;
                for (int first = group * rows_at_once * layer.columns; first < last; first += TILES_AT_ONCE) {
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

template <class Way> static void run(const Way &way, const float *kernel, int depth, int width, int threads) {
    if (way.layer.tiles() < width || width >= MANY_CHANNELS)
        by_panels(way, kernel, depth, width / PANEL, threads);
    else
        by_tiles(way, kernel, depth, width / PANEL, threads);
}

static void forward(const Layer &layer, const float *x, const float *kernel, const float *bias, const Result &result,
                    int threads) {
    const auto go = [&](const auto &way) { run(way, kernel, layer.inputs, layer.outputs, threads); };
    if (result.then == Then::max_pool)
        go(Forward<ToPooled<Then::max_pool>>{layer, x, bias, result});
    else if (result.then == Then::average_pool)
        go(Forward<ToPooled<Then::average_pool>>{layer, x, bias, result});
    else
        go(Forward<ToOutputs>{layer, x, bias, result});
}

static void backward(const Layer &layer, const Slope &slope, const float *kernel, float *by_input, int threads) {
    std::memset(by_input, 0, sizeof(float) * layer.height * layer.width * layer.inputs);
    const auto go = [&](const auto &way) { run(way, kernel, layer.outputs, layer.inputs, threads); };
    if (is_pooled(slope.then))
        go(Backward<FromPooled>{layer, slope, by_input});
    else
        go(Backward<FromOutputs>{layer, slope, by_input});
}
