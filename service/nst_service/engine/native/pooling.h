// 2x2 max pooling that rounds up: the last row and column of an odd picture have windows of one row or column.
//
// The way back finds the largest again instead of keeping where it was: an index for each would take twice the memory of
// the result.

// What lies where in a window.
struct Window {
    ptrdiff_t from, down, right; // `down` and `right` are 0 where the window ends.

    Window(int row, int column, int height, int width, int channels)
        : from((ptrdiff_t(2 * row) * width + 2 * column) * channels),
          down(2 * row + 1 < height ? ptrdiff_t(width) * channels : 0),
          right(2 * column + 1 < width ? channels : 0) {}
};

void pool(const float *x, float *y, int height, int width, int channels, int threads) {
    const int rows = (height + 1) / 2, columns = (width + 1) / 2;
#pragma omp parallel for num_threads(threads)
    for (int row = 0; row < rows; ++row)
        for (int column = 0; column < columns; ++column) {
            const Window window(row, column, height, width, channels);
            const float *a = x + window.from, *b = a + window.right, *d = a + window.down, *e = d + window.right;
            float *to = y + (ptrdiff_t(row) * columns + column) * channels;
#pragma omp simd
            for (int c = 0; c < channels; ++c) to[c] = std::max(std::max(a[c], b[c]), std::max(d[c], e[c]));
        }
}

// Gives each gradient to the first of those that were the largest, as torch does, and zero to all others.
void unpool(const float *x, const float *gradient, float *by_input, int height, int width, int channels, int threads) {
    const int rows = (height + 1) / 2, columns = (width + 1) / 2;
#pragma omp parallel for num_threads(threads)
    for (int row = 0; row < rows; ++row)
        for (int column = 0; column < columns; ++column) {
            const Window window(row, column, height, width, channels);
            const float *a = x + window.from, *b = a + window.right, *d = a + window.down, *e = d + window.right;
            const float *g = gradient + (ptrdiff_t(row) * columns + column) * channels;
            float *to = by_input + window.from;
            const auto route = [=](int c) {
                const float largest = std::max(std::max(a[c], b[c]), std::max(d[c], e[c]));
                const bool is_a = a[c] == largest, is_b = !is_a && b[c] == largest;
                const bool is_d = !is_a && !is_b && d[c] == largest;
                // What lies beyond the edge is the same as something before it, which is written later.
                to[c + window.down + window.right] = is_a || is_b || is_d ? 0 : g[c];
                to[c + window.down] = is_d ? g[c] : 0;
                to[c + window.right] = is_b ? g[c] : 0;
                to[c] = is_a ? g[c] : 0;
            };
            if (window.down && window.right) {
#pragma omp simd
                for (int c = 0; c < channels; ++c) route(c);
            } else {
                for (int c = 0; c < channels; ++c) route(c);
            }
        }
}
