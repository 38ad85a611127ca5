// 2x2 max pooling that rounds up: the last row and column of an odd picture have windows of one row or column.
//
// The backward pass finds each maximum again instead of keeping its index: the indices would take twice the memory of
// the result.
#pragma once

#include <algorithm>
#include <cstddef>

namespace nst {

// The offsets of the four values of a window.
struct PoolingWindow {
    ptrdiff_t start, down, right; // `down` and `right` are 0 at the edge of the picture.

    PoolingWindow(int row, int column, int height, int width, int channels)
        : start((ptrdiff_t(2 * row) * width + 2 * column) * channels),
          down(2 * row + 1 < height ? ptrdiff_t(width) * channels : 0),
          right(2 * column + 1 < width ? channels : 0) {}
};

// Pools features [height][width][channels].
inline void max_pool(const float *x, float *y, int height, int width, int channels, int threads) {
    const int rows = (height + 1) / 2, columns = (width + 1) / 2;
#pragma omp parallel for num_threads(threads)
    for (int row = 0; row < rows; ++row)
        for (int column = 0; column < columns; ++column) {
            const PoolingWindow window(row, column, height, width, channels);
            const float *a = x + window.start, *b = a + window.right, *d = a + window.down, *e = d + window.right;
            float *to = y + (ptrdiff_t(row) * columns + column) * channels;
#pragma omp simd
            for (int c = 0; c < channels; ++c) to[c] = std::max(std::max(a[c], b[c]), std::max(d[c], e[c]));
        }
}

// Computes the gradient with respect to x. Like torch, it gives each gradient to the first maximum of its window.
inline void max_pool_backward(const float *x, const float *gradient, float *grad_input, int height, int width,
                              int channels, int threads) {
    const int rows = (height + 1) / 2, columns = (width + 1) / 2;
#pragma omp parallel for num_threads(threads)
    for (int row = 0; row < rows; ++row)
        for (int column = 0; column < columns; ++column) {
            const PoolingWindow window(row, column, height, width, channels);
            const float *a = x + window.start, *b = a + window.right, *d = a + window.down, *e = d + window.right;
            const float *g = gradient + (ptrdiff_t(row) * columns + column) * channels;
            float *to = grad_input + window.start;
            const auto route = [=](int c) {
                const float largest = std::max(std::max(a[c], b[c]), std::max(d[c], e[c]));
                const bool is_a = a[c] == largest, is_b = !is_a && b[c] == largest;
                const bool is_d = !is_a && !is_b && d[c] == largest;
                // A value outside of the picture has the address of one inside, which is written after it.
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

} // namespace nst
