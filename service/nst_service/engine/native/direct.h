// Convolutions of few inputs, as the three of a picture: Winograd's transforms would cost more than they save. All nine
// taps are one product.
//
// Included once for each instruction set, after winograd.h.

// Calls visit(tap, taps, pixel) for the inputs that an output sees, with the number and the count of taps that stand
// side by side, and the index of the first one's input, or -1 for zeros.
template <class Visit> static inline void taps_of(const Layer &layer, int row, int column, Visit visit) {
    const bool is_inside = column > 0 && column + 1 < layer.width;
    for (int i = 0; i < 3; ++i) {
        if (is_inside)
            visit(3 * i, 3, layer.input_at(row + i - 1, column - 1));
        else
            for (int j = 0; j < 3; ++j) visit(3 * i + j, 1, layer.input_at(row + i - 1, column + j - 1));
    }
}

// Returns panels of weights, [depth][PANEL] each, as `multiply` reads them.
static std::vector<float> arranged(const float *panels, int count, int depth) {
    std::vector<float> weights(ptrdiff_t(count) * depth * PANEL);
    float *to = weights.data();
    for (int panel = 0; panel < count; ++panel, to += ptrdiff_t(depth) * PANEL)
        for (int row = 0; row < depth; ++row)
            for (int column = 0; column < PANEL; ++column) to[place_of(depth, row, column)] = *panels++;
    return weights;
}

// Weights: [panels][9 * inputs][PANEL].
static void direct_forward(const Layer &layer, const float *x, const Kernel &weights, const float *bias,
                           const Result &result, int threads) {
    const int depth = 9 * layer.inputs;
    const std::vector<float> kernel = arranged(weights.values, layer.outputs / PANEL, depth);
    Buffer all_patches(threads * TILES_AT_ONCE * depth), all_products(threads * TILES_AT_ONCE * PANEL);
#pragma omp parallel num_threads(threads)
    {
        float *patches = all_patches.get() + ptrdiff_t(omp_get_thread_num()) * TILES_AT_ONCE * depth;
        float *products = all_products.get() + omp_get_thread_num() * TILES_AT_ONCE * PANEL;
        std::fill(patches, patches + TILES_AT_ONCE * depth, 0.0f);
#pragma omp for schedule(static)
        for (int row = layer.first_row; row < layer.end_row; ++row)
            for (int first = 0; first < layer.width; first += TILES_AT_ONCE) {
                const int count = std::min(TILES_AT_ONCE, layer.width - first);
                for (int at = 0; at < count; ++at)
                    taps_of(layer, row, first + at, [&](int tap, int taps, ptrdiff_t pixel) {
                        const float *from = pixel < 0 ? layer.zeros : x + pixel * layer.inputs;
                        std::copy(from, from + taps * layer.inputs, patches + at * depth + tap * layer.inputs);
                    });
                float *y = result.y + (ptrdiff_t(row) * layer.width + first) * layer.outputs;
                for (int channel = 0; channel < layer.outputs; channel += PANEL) {
                    multiply(patches, depth, kernel.data() + ptrdiff_t(channel) * depth, Spectrum::rows(count), depth,
                             products);
                    for (int at = 0; at < count; ++at)
                        for (int k = 0; k < PANEL; k += LANES) {
                            const Vector value = load(products + at * PANEL + k) + load(bias + channel + k);
                            store(y + at * layer.outputs + channel + k,
                                  result.then == Then::relu ? where_positive(value, value) : value);
                        }
                }
            }
    }
}

// Weights: [outputs][PANEL], where the first 9 * inputs of a panel are used.
static void direct_backward(const Layer &layer, const Slope &slope, const Kernel &weights, float *by_input,
                            int threads) {
    constexpr int rows_at_once = 4;
    const int depth = layer.outputs;
    const std::vector<float> kernel = arranged(weights.values, 1, depth);
    const int groups = (layer.end_row - layer.first_row + rows_at_once - 1) / rows_at_once;
    Buffer all_gradients(threads * TILES_AT_ONCE * depth), all_products(threads * TILES_AT_ONCE * PANEL);
#pragma omp parallel num_threads(threads)
    {
        float *gradients = all_gradients.get() + ptrdiff_t(omp_get_thread_num()) * TILES_AT_ONCE * depth;
        float *products = all_products.get() + omp_get_thread_num() * TILES_AT_ONCE * PANEL;
        std::fill(gradients, gradients + TILES_AT_ONCE * depth, 0.0f);
        for (int turn = 0; turn < 2; ++turn) { // Neighbours write to the same pixels.
#pragma omp for schedule(dynamic)
            for (int group = turn; group < groups; group += 2) {
                const int begin = layer.first_row + group * rows_at_once;
                for (int row = begin; row < std::min(layer.end_row, begin + rows_at_once); ++row)
                    for (int first = 0; first < layer.width; first += TILES_AT_ONCE) {
                        const int count = std::min(TILES_AT_ONCE, layer.width - first);
                        const ptrdiff_t place = (ptrdiff_t(row) * layer.width + first) * depth;
                        for (int at = 0; at < count * depth; at += LANES) {
                            const Vector value = load(slope.gradient + place + at);
                            store(gradients + at,
                                  slope.then == Then::relu ? where_positive(value, load(slope.y + place + at)) : value);
                        }
                        multiply(gradients, depth, kernel.data(), Spectrum::rows(count), depth, products);
                        for (int at = 0; at < count; ++at)
                            taps_of(layer, row, first + at, [&](int tap, int taps, ptrdiff_t pixel) {
                                if (pixel < 0) return;
                                const float *from = products + at * PANEL + tap * layer.inputs;
                                float *to = by_input + pixel * layer.inputs;
                                for (int c = 0; c < taps * layer.inputs; ++c) to[c] += from[c];
                            });
                    }
            }
        }
    }
}
