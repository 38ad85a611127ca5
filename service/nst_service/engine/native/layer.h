// What a convolution computes: its shape, its weights and what becomes of its outputs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace nst {

constexpr int PANEL = 32;             // Output channels that are computed together; channels are multiples of it.
constexpr int FEW_INPUTS = PANEL / 9; // All taps of so few inputs fit into one panel: they are convolved directly.

// A 3x3 convolution of features in channels-last memory order. Winograd's algorithm divides the outputs into tiles of
// 4x4, row by row, and computes each from the 6x6 inputs around it.
struct Layer {
    int height, width, inputs, outputs;
    bool mirrored;          // Padding: true mirrors the inputs at the edge of the picture, false adds zeros.
    int first_row, end_row; // Rows of outputs to compute; multiples of four, or the height, for Winograd's algorithm.
    int tile_columns;
    const float *zeros; // As many as the larger number of channels.

    int first_tile_row() const { return first_row / 4; }
    int end_tile_row() const { return (end_row + 3) / 4; }
    int tile_count() const { return (end_tile_row() - first_tile_row()) * tile_columns; }

    // Calls visit(0..15, pixel) with the index of each output's pixel, or -1 for one outside of the picture.
    template <class Visit> void for_each_output(int tile, Visit visit) const {
        const int top = 4 * (tile / tile_columns), left = 4 * (tile % tile_columns);
        for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j) {
                const bool inside = top + i < height && left + j < width;
                visit(4 * i + j, inside ? ptrdiff_t(top + i) * width + left + j : -1);
            }
    }

    // A pooling window of 2x2 outputs, some of which may be outside of the picture.
    struct Window {
        int rows, columns; // Inside of the picture.

        int count() const { return rows * columns; }
        bool holds(int at) const { return at / 2 < rows && at % 2 < columns; }
        // Returns which output of a tile is the one at place `at` of the tile's window `number`.
        static constexpr int output(int number, int at) {
            return 4 * (2 * (number / 2) + at / 2) + 2 * (number % 2) + at % 2;
        }
    };

    // Calls visit(0..3, window, pixel) with each window of a tile and the index of the pooled pixel, or -1 for a window
    // outside of the picture.
    template <class Visit> void for_each_window(int tile, Visit visit) const {
        const int top = 4 * (tile / tile_columns), left = 4 * (tile % tile_columns);
        for (int number = 0; number < 4; ++number) {
            const int row = top + 2 * (number / 2), column = left + 2 * (number % 2);
            const bool inside = row < height && column < width;
            visit(number, Window{std::min(2, height - row), std::min(2, width - column)},
                  inside ? ptrdiff_t(row / 2) * ((width + 1) / 2) + column / 2 : -1);
        }
    }

    // Calls visit(0..35, pixel) with the index of each input's pixel, or -1 for a zero of the padding.
    template <class Visit> void for_each_input(int tile, Visit visit) const {
        const int top = 4 * (tile / tile_columns) - 1, left = 4 * (tile % tile_columns) - 1;
        for (int i = 0; i < 6; ++i)
            for (int j = 0; j < 6; ++j) visit(6 * i + j, input_pixel(top + i, left + j));
    }

    // Returns the index of the pixel whose input counts at this place, or -1 for a zero of the padding.
    ptrdiff_t input_pixel(int row, int column) const {
        row = padded(row, height), column = padded(column, width);
        return row < 0 || column < 0 ? -1 : ptrdiff_t(row) * width + column;
    }

  private:
    int padded(int index, int size) const {
        if (index >= 0 && index < size) return index;
        if (!mirrored || index > size) return -1;
        if (size == 1) return 0; // Nothing to mirror.
        return index < 0 ? 1 : size - 2;
    }
};

// Frozen weights [outputs / PANEL][9][inputs][PANEL], as float32 or as 8-bit indices into a table of 256 float32.
struct Weights {
    const float *values;
    const uint8_t *indices;
    const float *table; // Null for float32.
};

// What happens to the outputs before they reach the memory. Both poolings rectify first, and halve the height and
// width, rounding up. `Epilogue` of network/native.py has the same numbers.
enum class Epilogue { none, relu, max_pool, average_pool };
constexpr Epilogue LAST_EPILOGUE = Epilogue::average_pool;

inline bool pools(Epilogue epilogue) { return epilogue == Epilogue::max_pool || epilogue == Epilogue::average_pool; }

struct Output {
    Epilogue epilogue;
    float *y;
    uint16_t *kept; // A bit for each of the 16 outputs of a tile and channel: whether it passed. Unused by `none`.
    float scale;    // Of averages.
};

// The gradient with respect to an output, and what the backward pass needs to know of that output.
struct OutputGradient {
    Epilogue epilogue;
    const float *gradient;
    const uint16_t *kept;
    const float *y; // The output itself, which takes the place of `kept` for few inputs.
    float scale;
};

} // namespace nst
