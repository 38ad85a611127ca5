// 3x3 convolutions with frozen weights on CPUs, forward with bias and ReLU, and back to the input; and max pooling.
//
// A Python module without dependencies: it takes addresses of float32 arrays in channels-last memory order, and lets
// go of the interpreter while it computes. `nst_service.engine.winograd` is its only caller.
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

namespace {

constexpr int PANEL = 32;         // Output channels that are worked on at once; channels are multiples of it.
constexpr int DEPTH_AT_ONCE = 256; // Input channels whose products are summed at once.
constexpr int TILES_AT_ONCE = 48;  // A multiple of every ROWS.

// Memory of float32 that nothing has been written to.
class Buffer {
  public:
    explicit Buffer(ptrdiff_t count) : data_(static_cast<float *>(::operator new(4 * count, alignment))) {}
    ~Buffer() { ::operator delete(data_, alignment); }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    float *get() const { return data_; }

  private:
    static constexpr std::align_val_t alignment{64};
    float *data_;
};

// What lies where: tiles of 4x4 outputs, row by row, each with the 6x6 inputs around it.
struct Layer {
    int height, width, inputs, outputs;
    bool mirrored; // What lies beyond the edge: the inputs mirrored at it, or zeros.
    int rows, columns;
    const float *zeros;

    int tiles() const { return rows * columns; }

    // Calls visit(0..15, pixel) with the index of each output's pixel, or -1 for one beyond the picture.
    template <class Visit> void outputs_of(int tile, Visit visit) const {
        const int top = 4 * (tile / columns), left = 4 * (tile % columns);
        for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j) {
                const bool inside = top + i < height && left + j < width;
                visit(4 * i + j, inside ? ptrdiff_t(top + i) * width + left + j : -1);
            }
    }

    // Calls visit(0..35, pixel) with the index of each input's pixel, or -1 for one that is zero.
    template <class Visit> void inputs_of(int tile, Visit visit) const {
        const int top = 4 * (tile / columns) - 1, left = 4 * (tile % columns) - 1;
        for (int i = 0; i < 6; ++i)
            for (int j = 0; j < 6; ++j) {
                const int row = within(top + i, height), column = within(left + j, width);
                visit(6 * i + j, row < 0 || column < 0 ? -1 : ptrdiff_t(row) * width + column);
            }
    }

  private:
    int within(int index, int size) const {
        if (index >= 0 && index < size) return index;
        if (!mirrored || index > size) return -1;
        if (size == 1) return 0; // Nothing to mirror.
        return index < 0 ? 1 : size - 2;
    }
};

namespace portable {
#define LANES 4
#define ROWS 6
#include "winograd.h"
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
#undef LANES
#undef ROWS
} // namespace avx512
#pragma GCC pop_options
#endif

struct Kernels {
    decltype(&portable::forward) forward;
    decltype(&portable::backward) backward;
};

Kernels choose() {
#ifdef HAS_AVX
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return {avx512::forward, avx512::backward};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return {avx2::forward, avx2::backward};
#endif
    return {portable::forward, portable::backward};
}

const float *address(unsigned long long value) { return reinterpret_cast<const float *>(uintptr_t(value)); }

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

Layer layer_of(int height, int width, int inputs, int outputs, int mirrored, const std::vector<float> &zeros) {
    return {height, width, inputs, outputs, mirrored != 0, (height + 3) / 4, (width + 3) / 4, zeros.data()};
}

PyObject *py_forward(PyObject *, PyObject *arguments) {
    unsigned long long x, kernel, bias, y;
    int height, width, inputs, outputs, mirrored, relu, threads;
    if (!PyArg_ParseTuple(arguments, "KKKKiiiippi", &x, &kernel, &bias, &y, &height, &width, &inputs, &outputs,
                          &mirrored, &relu, &threads))
        return nullptr;
    return without_interpreter([&] {
        const std::vector<float> zeros(std::max(inputs, outputs));
        choose().forward(layer_of(height, width, inputs, outputs, mirrored, zeros), address(x), address(kernel),
                         address(bias), relu != 0, const_cast<float *>(address(y)), threads);
    });
}

PyObject *py_backward(PyObject *, PyObject *arguments) {
    unsigned long long gradient, y, kernel, by_input;
    int height, width, inputs, outputs, mirrored, threads;
    if (!PyArg_ParseTuple(arguments, "KKKKiiiipi", &gradient, &y, &kernel, &by_input, &height, &width, &inputs,
                          &outputs, &mirrored, &threads))
        return nullptr;
    return without_interpreter([&] {
        const std::vector<float> zeros(std::max(inputs, outputs));
        choose().backward(layer_of(height, width, inputs, outputs, mirrored, zeros), address(gradient), address(y),
                          address(kernel), const_cast<float *>(address(by_input)), threads);
    });
}

#include "pooling.h"

PyObject *py_pool(PyObject *, PyObject *arguments) {
    unsigned long long x, y;
    int height, width, channels, threads;
    if (!PyArg_ParseTuple(arguments, "KKiiii", &x, &y, &height, &width, &channels, &threads)) return nullptr;
    return without_interpreter(
        [&] { pool(address(x), const_cast<float *>(address(y)), height, width, channels, threads); });
}

PyObject *py_unpool(PyObject *, PyObject *arguments) {
    unsigned long long x, gradient, by_input;
    int height, width, channels, threads;
    if (!PyArg_ParseTuple(arguments, "KKKiiii", &x, &gradient, &by_input, &height, &width, &channels, &threads))
        return nullptr;
    return without_interpreter([&] {
        unpool(address(x), address(gradient), const_cast<float *>(address(by_input)), height, width, channels, threads);
    });
}

PyMethodDef methods[] = {
    {"forward", py_forward, METH_VARARGS,
     "forward(x, kernel, bias, y, height, width, inputs, outputs, mirrored, relu, threads)"},
    {"backward", py_backward, METH_VARARGS,
     "backward(gradient, y or 0, kernel, by_input, height, width, inputs, outputs, mirrored, threads)"},
    {"pool", py_pool, METH_VARARGS, "pool(x, y, height, width, channels, threads)"},
    {"unpool", py_unpool, METH_VARARGS, "unpool(x, gradient, by_input, height, width, channels, threads)"},
    {nullptr, nullptr, 0, nullptr},
};

int execute(PyObject *module) { return PyModule_AddIntConstant(module, "PANEL", PANEL); }

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void *>(execute)}, {0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_winograd", nullptr, 0, methods, slots, nullptr, nullptr, nullptr};

} // namespace

PyMODINIT_FUNC PyInit__winograd() { return PyModuleDef_Init(&definition); }
