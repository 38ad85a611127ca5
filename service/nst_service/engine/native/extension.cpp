// The Python module `_extension`: 3x3 convolutions with frozen weights on CPUs, forward with bias, ReLU and pooling,
// and backward to the input; max pooling; and the memory of features.
//
// The module depends on nothing but Python's stable interface and OpenMP. Its functions take keyword arguments,
// tensors among them as DLPack capsules, and release the interpreter while they compute.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "arena.h"
#include "arguments.h"
#include "convolution.h"
#include "layer.h"
#include "pooling.h"
#include "stable_abi.h"
#include "tensor.h"

namespace nst {
namespace {

// Counts the changes of the functions below. A build of another number is not used (see __init__.py).
constexpr int INTERFACE = 1;

class InterpreterReleased {
  public:
    InterpreterReleased() : state_(PyEval_SaveThread()) {}
    ~InterpreterReleased() { PyEval_RestoreThread(state_); }
    InterpreterReleased(const InterpreterReleased &) = delete;
    InterpreterReleased &operator=(const InterpreterReleased &) = delete;

  private:
    PyThreadState *state_;
};

// Computes without the interpreter and returns None.
template <class Compute> PyObject *computed(Compute compute) {
    {
        const InterpreterReleased released;
        compute();
    }
    return Py_NewRef(Py_None);
}

// What the forward and the backward pass of a convolution have in common.
class Convolution {
  public:
    // Takes the features before and after the convolution, or the gradients with respect to them.
    Convolution(Arguments &arguments, const Features<float> &input, const Features<float> &output)
        : inputs_(input.channels()), outputs_(output.channels()), height_(arguments["height"].integer(1)),
          first_row_(arguments["first_row"].integer(0, height_)),
          end_row_(arguments["end_row"].integer(first_row_, height_)), width_(input.width()),
          is_direct_(inputs_ <= FEW_INPUTS), mirrored_(arguments["mirrored"].boolean()),
          epilogue_(Epilogue(arguments["epilogue"].integer(0, int(is_direct_ ? Epilogue::relu : LAST_EPILOGUE)))),
          scale_(arguments["scale"].number()), threads_(arguments["threads"].integer(1)),
          zeros_(std::max(inputs_, outputs_)) {
        input.require(is_direct_ || inputs_ % PANEL == 0, "of few channels, or a multiple of PANEL");
        output.require(outputs_ % PANEL == 0, "of a multiple of PANEL channels");
        if (!is_direct_) {
            arguments["first_row"].require(first_row_ % 4 == 0, "a multiple of four");
            arguments["end_row"].require(end_row_ % 4 == 0 || end_row_ == height_, "a multiple of four, or the height");
        }
        input.require_rows(std::max(0, first_row_ - 1), std::min(height_, end_row_ + 1));
        if (pools(epilogue_)) {
            output.require_size(outputs_, (width_ + 1) / 2);
            output.require_rows(first_row_ / 2, (end_row_ + 1) / 2);
        } else {
            output.require_size(outputs_, width_);
            output.require_rows(first_row_, end_row_);
        }
    }

    bool is_direct() const { return is_direct_; }
    Epilogue epilogue() const { return epilogue_; }
    float scale() const { return scale_; }
    int threads() const { return threads_; }

    Layer layer() const {
        const int tile_columns = (width_ + 3) / 4;
        return {height_, width_, inputs_, outputs_, mirrored_, first_row_, end_row_, tile_columns, zeros_.data()};
    }

    const float *bias(const Argument &bias) const { return array<float>(bias, outputs_); }

    Weights winograd_weights(const Argument &kernel, const Argument &table) const {
        const ptrdiff_t count = ptrdiff_t(9) * inputs_ * outputs_;
        if (table.is_none()) return {array<float>(kernel, count), nullptr, nullptr};
        const float *values = array<float>(table, 256);
        return {nullptr, array<uint8_t>(kernel, count), values};
    }

    Weights direct_weights(const Argument &kernel, const Argument &table, ptrdiff_t count) const {
        table.require(table.is_none(), "None for few inputs");
        return {array<float>(kernel, count), nullptr, nullptr};
    }

    // Returns the bits of the outputs (1, outputs, tile rows, tile columns), or null where the epilogue has none.
    uint16_t *kept_bits(const Argument &kept) const {
        if (epilogue_ == Epilogue::none) return nullptr;
        const auto bits = Features<uint16_t>::some_rows(kept);
        bits.require_size(outputs_, (width_ + 3) / 4);
        bits.require_rows(first_row_ / 4, (end_row_ + 3) / 4);
        return bits.origin();
    }

    // Returns the rectified outputs, or null where the epilogue has none.
    const float *kept_outputs(const Argument &kept) const {
        if (epilogue_ == Epilogue::none) return nullptr;
        const auto outputs = Features<float>::some_rows(kept);
        outputs.require_size(outputs_, width_);
        outputs.require_rows(first_row_, end_row_);
        return outputs.origin();
    }

  private:
    int inputs_, outputs_, height_, first_row_, end_row_, width_;
    bool is_direct_, mirrored_;
    Epilogue epilogue_;
    float scale_;
    int threads_;
    std::vector<float> zeros_;
};

PyObject *forward(PyObject *, PyObject *const *values, Py_ssize_t positional, PyObject *names) {
    return guarded([&] {
        Arguments arguments("forward", values, positional, names);
        const auto x = Features<float>::some_rows(arguments["x"]), y = Features<float>::some_rows(arguments["y"]);
        const Argument kernel = arguments["kernel"], table = arguments["table"], kept = arguments["kept"];
        const Convolution convolution(arguments, x, y);
        const float *bias = convolution.bias(arguments["bias"]);
        arguments.expect_no_more();
        Output output{convolution.epilogue(), y.origin(), nullptr, convolution.scale()};
        if (convolution.is_direct()) {
            const ptrdiff_t count = ptrdiff_t(9) * x.channels() * y.channels();
            const Weights weights = convolution.direct_weights(kernel, table, count);
            return computed([&] {
                instruction_set().direct_forward(convolution.layer(), x.origin(), weights, bias, output,
                                                 convolution.threads());
            });
        }
        output.kept = convolution.kept_bits(kept);
        const Weights weights = convolution.winograd_weights(kernel, table);
        return computed([&] {
            instruction_set().winograd_forward(convolution.layer(), x.origin(), weights, bias, output,
                                               convolution.threads());
        });
    });
}

PyObject *backward(PyObject *, PyObject *const *values, Py_ssize_t positional, PyObject *names) {
    return guarded([&] {
        Arguments arguments("backward", values, positional, names);
        const auto gradient = Features<float>::some_rows(arguments["gradient"]);
        const auto grad_input = Features<float>::some_rows(arguments["grad_input"]);
        const Argument kernel = arguments["kernel"], table = arguments["table"], kept = arguments["kept"];
        const Convolution convolution(arguments, grad_input, gradient);
        arguments.expect_no_more();
        OutputGradient output{convolution.epilogue(), gradient.origin(), nullptr, nullptr, convolution.scale()};
        if (convolution.is_direct()) {
            output.y = convolution.kept_outputs(kept);
            const Weights weights =
                convolution.direct_weights(kernel, table, ptrdiff_t(gradient.channels()) * PANEL);
            return computed([&] {
                instruction_set().direct_backward(convolution.layer(), output, weights, grad_input.origin(),
                                                  convolution.threads());
            });
        }
        output.kept = convolution.kept_bits(kept);
        const Weights weights = convolution.winograd_weights(kernel, table);
        return computed([&] {
            instruction_set().winograd_backward(convolution.layer(), output, weights, grad_input.origin(),
                                                convolution.threads());
        });
    });
}

// Throws a ValueError unless pooling x gives features of the size of y.
void require_pooled(const Features<float> &x, const Features<float> &y) {
    y.require_size(x.channels(), (x.width() + 1) / 2);
    y.require(y.rows() == (x.rows() + 1) / 2, "of half as many rows as x, rounded up");
}

PyObject *max_pool(PyObject *, PyObject *const *values, Py_ssize_t positional, PyObject *names) {
    return guarded([&] {
        Arguments arguments("max_pool", values, positional, names);
        const auto x = Features<float>::whole(arguments["x"]), y = Features<float>::whole(arguments["y"]);
        const int threads = arguments["threads"].integer(1);
        arguments.expect_no_more();
        require_pooled(x, y);
        return computed([&] { nst::max_pool(x.origin(), y.origin(), x.rows(), x.width(), x.channels(), threads); });
    });
}

PyObject *max_pool_backward(PyObject *, PyObject *const *values, Py_ssize_t positional, PyObject *names) {
    return guarded([&] {
        Arguments arguments("max_pool_backward", values, positional, names);
        const auto x = Features<float>::whole(arguments["x"]);
        const auto gradient = Features<float>::whole(arguments["gradient"]);
        const auto grad_input = Features<float>::whole(arguments["grad_input"]);
        const int threads = arguments["threads"].integer(1);
        arguments.expect_no_more();
        require_pooled(x, gradient);
        grad_input.require_size(x.channels(), x.width());
        grad_input.require(grad_input.rows() == x.rows(), "of as many rows as x");
        return computed([&] {
            nst::max_pool_backward(x.origin(), gradient.origin(), grad_input.origin(), x.rows(), x.width(),
                                   x.channels(), threads);
        });
    });
}

// A block of the arena, which Python sees as a writable buffer.
struct Block {
    PyObject_HEAD
    void *start;
    Py_ssize_t size;
};

int block_buffer(PyObject *self, Py_buffer *view, int flags) {
    const Block *block = reinterpret_cast<Block *>(self);
    return PyBuffer_FillInfo(view, self, block->start, block->size, 0, flags);
}

void block_free(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (void *start = reinterpret_cast<Block *>(self)->start) arena().free(start);
    reinterpret_cast<freefunc>(PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

PyType_Slot block_slots[] = {{Py_tp_dealloc, reinterpret_cast<void *>(block_free)},
                             {Py_bf_getbuffer, reinterpret_cast<void *>(block_buffer)},
                             {0, nullptr}};

PyType_Spec block_spec = {"nst_service.engine.native._extension.Block", sizeof(Block), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, block_slots};

PyObject *take(PyObject *module, PyObject *const *values, Py_ssize_t positional, PyObject *names) {
    return guarded([&]() -> PyObject * {
        Arguments arguments("take", values, positional, names);
        const size_t size = arguments["size"].bytes();
        const bool permanent = arguments["permanent"].boolean();
        arguments.expect_no_more();
        PyObject *type = PyObject_GetAttrString(module, "Block");
        PyObject *block = type ? PyType_GenericAlloc(reinterpret_cast<PyTypeObject *>(type), 0) : nullptr;
        Py_XDECREF(type);
        if (!block) return nullptr;
        void *start = arena().take(size, permanent);
        if (!start) {
            Py_DECREF(block);
            return Py_NewRef(Py_None);
        }
        reinterpret_cast<Block *>(block)->start = start;
        reinterpret_cast<Block *>(block)->size = size;
        return block;
    });
}

PyObject *trim(PyObject *, PyObject *) {
    arena().trim();
    return Py_NewRef(Py_None);
}

using KeywordFunction = PyObject *(*)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

PyMethodDef keyword_method(const char *name, KeywordFunction function, const char *documentation) {
    return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)), METH_FASTCALL | METH_KEYWORDS,
            documentation};
}

// _extension.pyi says more of each.
PyMethodDef methods[] = {
    keyword_method("forward", forward, "Compute rows of the outputs of a convolution."),
    keyword_method("backward", backward, "Add to the gradient with respect to the input of a convolution."),
    keyword_method("max_pool", max_pool, "Pool features by the maxima of 2x2 windows."),
    keyword_method("max_pool_backward", max_pool_backward, "Compute the gradient with respect to what was pooled."),
    keyword_method("take", take, "Return a block of the arena, or None where it has no room."),
    {"trim", trim, METH_NOARGS, "Return the memory of free blocks to the system."},
    {nullptr, nullptr, 0, nullptr},
};

int execute(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &block_spec, nullptr);
    if (!type || PyModule_AddObjectRef(module, "Block", type) < 0) return -1;
    Py_DECREF(type);
    if (PyModule_AddIntConstant(module, "INTERFACE", INTERFACE) < 0) return -1;
    if (PyModule_AddIntConstant(module, "FEW_INPUTS", FEW_INPUTS) < 0) return -1;
    if (PyModule_AddIntConstant(module, "LARGE", LARGE) < 0) return -1;
    if (PyModule_AddIntConstant(module, "PANEL", PANEL) < 0) return -1;
    return PyModule_AddStringConstant(module, "INSTRUCTION_SET", instruction_set().name);
}

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void *>(execute)}, {0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_extension", nullptr, 0, methods, slots, nullptr, nullptr, nullptr};

} // namespace
} // namespace nst

PyMODINIT_FUNC PyInit__extension() { return PyModuleDef_Init(&nst::definition); }
