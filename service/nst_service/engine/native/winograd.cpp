// 3x3 convolutions with frozen weights on CPUs, forward with bias, ReLU and pooling, and back to the input; and max
// pooling alone.
//
// A Python module without dependencies: it takes addresses of float32 arrays in channels-last memory order, and lets
// go of the interpreter while it computes. `nst_service.engine.network.native` and `nst_service.engine.arena` are its only callers.
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <omp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <vector>

namespace {

constexpr int PANEL = 32;         // Output channels that are worked on at once; channels are multiples of it.
constexpr int FEW_INPUTS = PANEL / 9; // All taps of so many are one panel: they are convolved directly.
constexpr int LINE = 16;          // Floats in a line of the cache.
constexpr int DEPTH_AT_ONCE = 256; // Input channels whose products are summed at once.
constexpr int TILES_AT_ONCE = 48;  // A multiple of every ROWS.
constexpr int SPECTRUM_TILES = 144; // Of layers with many channels, transformed at once; a multiple of TILES_AT_ONCE.
constexpr int MANY_CHANNELS = 256;

#include "arena.h"

Arena &arena() {
    static Arena arena;
    return arena;
}

// Memory of float32 that nothing has been written to.
class Buffer {
  public:
    explicit Buffer(ptrdiff_t count) {
        const size_t bytes = sizeof(float) * count;
        place_ = bytes < LARGE ? nullptr : arena().take(bytes);
        data_ = static_cast<float *>(place_ ? place_ : ::operator new(bytes, alignment));
    }
    ~Buffer() {
        if (place_)
            arena().give(place_);
        else
            ::operator delete(data_, alignment);
    }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    float *get() const { return data_; }

  private:
    static constexpr std::align_val_t alignment{64};
    void *place_; // In the arena, or null.
    float *data_;
};

// What lies where: tiles of 4x4 outputs, row by row, each with the 6x6 inputs around it.
struct Layer {
    int height, width, inputs, outputs;
    bool mirrored;          // What lies beyond the edge: the inputs mirrored at it, or zeros.
    int first_row, end_row; // Rows of outputs that are worked on, by a Winograd way in multiples of four.
    int columns;            // Of tiles.
    const float *zeros;

    int first_tiles() const { return first_row / 4; }   // The first row of tiles that is worked on,
    int end_tiles() const { return (end_row + 3) / 4; } // and that after the last.
    int tiles() const { return (end_tiles() - first_tiles()) * columns; }

    // Calls visit(0..15, pixel) with the index of each output's pixel, or -1 for one beyond the picture.
    template <class Visit> void outputs_of(int tile, Visit visit) const {
        const int top = 4 * (tile / columns), left = 4 * (tile % columns);
        for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j) {
                const bool inside = top + i < height && left + j < width;
                visit(4 * i + j, inside ? ptrdiff_t(top + i) * width + left + j : -1);
            }
    }

    // A window of 2x2 outputs, which may reach beyond the picture.
    struct Window {
        int rows, columns; // Inside.

        int count() const { return rows * columns; }
        bool holds(int at) const { return at / 2 < rows && at % 2 < columns; }
        // The output of a tile that stands at a place in its window of that number.
        static constexpr int output(int number, int at) {
            return 4 * (2 * (number / 2) + at / 2) + 2 * (number % 2) + at % 2;
        }
    };

    // Calls visit(0..3, window, pixel) with each window of a tile and the index of the pooled pixel it gives, or -1.
    template <class Visit> void windows_of(int tile, Visit visit) const {
        const int top = 4 * (tile / columns), left = 4 * (tile % columns);
        for (int number = 0; number < 4; ++number) {
            const int row = top + 2 * (number / 2), column = left + 2 * (number % 2);
            const bool inside = row < height && column < width;
            visit(number, Window{std::min(2, height - row), std::min(2, width - column)},
                  inside ? ptrdiff_t(row / 2) * ((width + 1) / 2) + column / 2 : -1);
        }
    }

    // Calls visit(0..35, pixel) with the index of each input's pixel, or -1 for one that is zero.
    template <class Visit> void inputs_of(int tile, Visit visit) const {
        const int top = 4 * (tile / columns) - 1, left = 4 * (tile % columns) - 1;
        for (int i = 0; i < 6; ++i)
            for (int j = 0; j < 6; ++j) visit(6 * i + j, input_at(top + i, left + j));
    }

    // Returns the index of the input that stands at a place, or -1 for zero.
    ptrdiff_t input_at(int row, int column) const {
        row = within(row, height), column = within(column, width);
        return row < 0 || column < 0 ? -1 : ptrdiff_t(row) * width + column;
    }

  private:
    int within(int index, int size) const {
        if (index >= 0 && index < size) return index;
        if (!mirrored || index > size) return -1;
        if (size == 1) return 0; // Nothing to mirror.
        return index < 0 ? 1 : size - 2;
    }
};

// Weights, [panels][9][inputs][PANEL] and frozen: themselves, or their places in a table of 256 values.
struct Kernel {
    const float *values;
    const uint8_t *places;
    const float *table; // Or null.
};

// What becomes of the outputs.
enum class Then { nothing, relu, max_pool, average_pool }; // Both poolings rectify first; they halve, rounding up.

struct Result {
    Then then;
    float *y;
    uint16_t *kept; // Unless nothing becomes of them: bits for each tile and channel, which of the 16 outputs passed.
    float scale;    // Of an average.
};

// The gradient by a result, and what of the result it takes to get back through it.
struct Slope {
    Then then;
    const float *gradient;
    const uint16_t *kept;
    const float *y; // What `kept` is for few inputs.
    float scale;
};

namespace portable {
#define LANES 4
#define ROWS 6
#include "winograd.h"
#include "direct.h"
#undef LANES
#undef ROWS
} // namespace portable

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define HAS_AVX 1
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#define LANES 8
#define ROWS 6
#include "winograd.h"
#include "direct.h"
#undef LANES
#undef ROWS
} // namespace avx2
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,fma,prefer-vector-width=512")
namespace avx512 {
#define LANES 16
#define ROWS 12
#include "winograd.h"
#include "direct.h"
#undef LANES
#undef ROWS
} // namespace avx512
#pragma GCC pop_options
#endif

struct Kernels {
    decltype(&portable::forward) forward, direct_forward;
    decltype(&portable::backward) backward, direct_backward;
};

Kernels choose() {
#ifdef HAS_AVX
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return {avx512::forward, avx512::direct_forward, avx512::backward, avx512::direct_backward};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return {avx2::forward, avx2::direct_forward, avx2::backward, avx2::direct_backward};
#endif
    return {portable::forward, portable::direct_forward, portable::backward, portable::direct_backward};
}

template <class Value> Value *address(unsigned long long value) { return reinterpret_cast<Value *>(uintptr_t(value)); }

// Calls a way over a layer without holding the interpreter, and turns a lack of memory into MemoryError.
template <class Call> PyObject *without_interpreter(Call call) {
    bool enough = true;
    PyThreadState *state = PyEval_SaveThread();
    try {
        call();
    } catch (const std::bad_alloc &) {
        enough = false;
    }
    PyEval_RestoreThread(state);
    if (!enough) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

// What both ways are told of a layer, in the order in which they are.
struct Shape {
    int height, width, first_row, end_row, inputs, outputs, mirrored;

    Layer layer(const std::vector<float> &zeros) const {
        return {height, width, inputs, outputs, mirrored != 0, first_row, end_row, (width + 3) / 4, zeros.data()};
    }
};

PyObject *py_forward(PyObject *, PyObject *arguments) {
    unsigned long long x, kernel, table, bias, y, kept;
    Shape shape;
    int then, threads;
    float scale;
    if (!PyArg_ParseTuple(arguments, "KKKKKKiiiiiipifi", &x, &kernel, &table, &bias, &y, &kept, &shape.height,
                          &shape.width, &shape.first_row, &shape.end_row, &shape.inputs, &shape.outputs,
                          &shape.mirrored, &then, &scale, &threads))
        return nullptr;
    return without_interpreter([&] {
        const std::vector<float> zeros(std::max(shape.inputs, shape.outputs));
        const Result result{Then(then), address<float>(y), address<uint16_t>(kept), scale};
        const auto forward = shape.inputs <= FEW_INPUTS ? choose().direct_forward : choose().forward;
        const Kernel weights{address<float>(kernel), address<uint8_t>(kernel), address<float>(table)};
        forward(shape.layer(zeros), address<float>(x), weights, address<float>(bias), result, threads);
    });
}

PyObject *py_backward(PyObject *, PyObject *arguments) {
    unsigned long long gradient, kept, kernel, table, by_input;
    Shape shape;
    int then, threads;
    float scale;
    if (!PyArg_ParseTuple(arguments, "KKKKKiiiiiipifi", &gradient, &kept, &kernel, &table, &by_input, &shape.height,
                          &shape.width, &shape.first_row, &shape.end_row, &shape.inputs, &shape.outputs,
                          &shape.mirrored, &then, &scale, &threads))
        return nullptr;
    return without_interpreter([&] {
        const std::vector<float> zeros(std::max(shape.inputs, shape.outputs));
        const Slope slope{Then(then), address<float>(gradient), address<uint16_t>(kept), address<float>(kept), scale};
        const auto backward = shape.inputs <= FEW_INPUTS ? choose().direct_backward : choose().backward;
        const Kernel weights{address<float>(kernel), address<uint8_t>(kernel), address<float>(table)};
        backward(shape.layer(zeros), slope, weights, address<float>(by_input), threads);
    });
}

#include "pooling.h"

PyObject *py_pool(PyObject *, PyObject *arguments) {
    unsigned long long x, y;
    int height, width, channels, threads;
    if (!PyArg_ParseTuple(arguments, "KKiiii", &x, &y, &height, &width, &channels, &threads)) return nullptr;
    return without_interpreter(
        [&] { pool(address<float>(x), address<float>(y), height, width, channels, threads); });
}

PyObject *py_unpool(PyObject *, PyObject *arguments) {
    unsigned long long x, gradient, by_input;
    int height, width, channels, threads;
    if (!PyArg_ParseTuple(arguments, "KKKiiii", &x, &gradient, &by_input, &height, &width, &channels, &threads))
        return nullptr;
    return without_interpreter([&] {
        unpool(address<float>(x), address<float>(gradient), address<float>(by_input), height, width, channels, threads);
    });
}

struct Block {
    PyObject_HEAD
    void *place;
    Py_ssize_t size;
};

int block_buffer(PyObject *self, Py_buffer *view, int flags) {
    const Block *block = reinterpret_cast<Block *>(self);
    return PyBuffer_FillInfo(view, self, block->place, block->size, 0, flags);
}

void block_free(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (void *place = reinterpret_cast<Block *>(self)->place) arena().give(place);
    reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

PyType_Slot block_slots[] = {{Py_tp_dealloc, reinterpret_cast<void *>(block_free)},
                             {Py_bf_getbuffer, reinterpret_cast<void *>(block_buffer)},
                             {0, nullptr}};

PyType_Spec block_spec = {"nst_service.engine._winograd.Block", sizeof(Block), 0, Py_TPFLAGS_DEFAULT, block_slots};

PyObject *py_take(PyObject *module, PyObject *arguments) {
    Py_ssize_t size;
    int stays = 0;
    if (!PyArg_ParseTuple(arguments, "n|p", &size, &stays)) return nullptr;
    void *place = arena().take(size, stays != 0);
    if (!place) Py_RETURN_NONE;
    PyObject *type = PyObject_GetAttrString(module, "Block");
    PyObject *block = type ? PyType_GenericAlloc(reinterpret_cast<PyTypeObject *>(type), 0) : nullptr;
    Py_XDECREF(type);
    if (!block) {
        arena().give(place);
        return nullptr;
    }
    reinterpret_cast<Block *>(block)->place = place;
    reinterpret_cast<Block *>(block)->size = size;
    return block;
}

PyObject *py_trim(PyObject *, PyObject *) {
    arena().trim();
    Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"forward", py_forward, METH_VARARGS,
     "forward(x, kernel, table or 0, bias, y, kept or 0, height, width, first_row, end_row, inputs, outputs, mirrored, "
     "then, scale, threads): computes rows of the outputs"},
    {"backward", py_backward, METH_VARARGS,
     "backward(gradient, kept or 0, kernel, table or 0, by_input, height, width, first_row, end_row, inputs, outputs, "
     "mirrored, then, scale, threads): adds to the gradient by the input what comes from rows of the outputs"},
    {"pool", py_pool, METH_VARARGS, "pool(x, y, height, width, channels, threads)"},
    {"unpool", py_unpool, METH_VARARGS, "unpool(x, gradient, by_input, height, width, channels, threads)"},
    {"take", py_take, METH_VARARGS, "take(size, stays=False): writable memory, or None where none is left"},
    {"trim", py_trim, METH_NOARGS, "Give the memory of blocks that were freed back to the system."},
    {nullptr, nullptr, 0, nullptr},
};

int execute(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &block_spec, nullptr);
    if (!type || PyModule_AddObjectRef(module, "Block", type) < 0) return -1;
    Py_DECREF(type);
    if (PyModule_AddIntConstant(module, "FEW_INPUTS", FEW_INPUTS) < 0) return -1;
    if (PyModule_AddIntConstant(module, "LARGE", LARGE) < 0) return -1;
    return PyModule_AddIntConstant(module, "PANEL", PANEL);
}

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void *>(execute)}, {0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_winograd", nullptr, 0, methods, slots, nullptr, nullptr, nullptr};

} // namespace

PyMODINIT_FUNC PyInit__winograd() { return PyModuleDef_Init(&definition); }
