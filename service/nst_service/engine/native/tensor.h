// Tensors that Python passes as DLPack capsules. They are checked, and borrowed while the call lasts.
#pragma once

#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstdint>

#include "arguments.h"
#include "stable_abi.h"

namespace nst {

// The memory layout of a capsule "dltensor": https://dmlc.github.io/dlpack/latest/c_api.html
namespace dlpack {

constexpr int32_t CPU = 1;
constexpr uint8_t INT = 0, UINT = 1, FLOAT = 2;

struct Device {
    int32_t type, id;
};

struct DataType {
    uint8_t code, bits;
    uint16_t lanes;
};

// Begins the DLManagedTensor of a capsule, whose other members belong to the producer.
struct Tensor {
    void *data;
    Device device;
    int32_t dimensions;
    DataType dtype;
    const int64_t *shape;
    const int64_t *strides; // In elements.
    uint64_t byte_offset;
};

} // namespace dlpack

template <class Value> struct ValueType;
template <> struct ValueType<float> {
    static constexpr uint8_t code = dlpack::FLOAT, bits = 32;
    static constexpr const char *requirement = "a float32 tensor";
};
template <> struct ValueType<uint8_t> {
    static constexpr uint8_t code = dlpack::UINT, bits = 8;
    static constexpr const char *requirement = "a uint8 tensor";
};
template <> struct ValueType<uint16_t> { // torch computes with int16 only.
    static constexpr uint8_t code = dlpack::INT, bits = 16;
    static constexpr const char *requirement = "an int16 tensor";
};

// Returns the tensor of a capsule that is the argument, or a part of it.
template <class Value> const dlpack::Tensor &tensor_of(const Argument &argument, PyObject *capsule) {
    if (!PyCapsule_IsValid(capsule, "dltensor")) throw argument.error(PyExc_TypeError, "a DLPack capsule");
    const auto &tensor = *static_cast<const dlpack::Tensor *>(PyCapsule_GetPointer(capsule, "dltensor"));
    const dlpack::DataType &dtype = tensor.dtype;
    if (dtype.code != ValueType<Value>::code || dtype.bits != ValueType<Value>::bits || dtype.lanes != 1)
        throw argument.error(PyExc_TypeError, ValueType<Value>::requirement);
    argument.require(tensor.device.type == dlpack::CPU, "on the CPU");
    argument.require(tensor.strides != nullptr, "a tensor with strides");
    return tensor;
}

template <class Value> Value *data_of(const dlpack::Tensor &tensor) {
    return reinterpret_cast<Value *>(static_cast<char *>(tensor.data) + tensor.byte_offset);
}

// Returns the values of a contiguous tensor of any shape.
template <class Value> const Value *array(const Argument &argument, ptrdiff_t count) {
    const dlpack::Tensor &tensor = tensor_of<Value>(argument, argument.value());
    int64_t values = 1;
    for (int dimension = tensor.dimensions - 1; dimension >= 0; --dimension) {
        const int64_t size = tensor.shape[dimension];
        argument.require(size == 1 || tensor.strides[dimension] == values, "contiguous");
        values *= size;
    }
    argument.require(values == count, "as large as the channels of the convolution demand");
    return data_of<Value>(tensor);
}

// Features (1, channels, H, width) in channels-last memory order, of which the rows from `first` to before `end` are in
// memory.
template <class Value> class Features {
  public:
    // Reads a capsule that holds all rows.
    static Features whole(const Argument &argument) { return {argument, argument.value(), 0}; }

    // Reads a tuple (capsule, first) of some rows and the index of the first one.
    static Features some_rows(const Argument &argument) {
        PyObject *pair = argument.value();
        if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2)
            throw argument.error(PyExc_TypeError, "a tuple of a DLPack capsule and the index of its first row");
        return {argument, PyTuple_GetItem(pair, 0), int(argument.integer_of(PyTuple_GetItem(pair, 1), 0, INT_MAX))};
    }

    int channels() const { return channels_; }
    int width() const { return width_; }
    int rows() const { return end_ - first_; }

    // Returns where row 0 is, or would be.
    Value *origin() const {
        return reinterpret_cast<Value *>(uintptr_t(data_) - sizeof(Value) * first_ * width_ * channels_);
    }

    // Throws a ValueError unless the argument meets a requirement.
    void require(bool met, const char *requirement) const { argument_.require(met, requirement); }
    void require_size(int channels, int width) const {
        require(channels_ == channels && width_ == width, "of the channels and the width of the convolution");
    }
    void require_rows(int first, int end) const {
        require(first_ <= first && end <= end_, "of all rows that the convolution needs");
    }

  private:
    Features(const Argument &argument, PyObject *capsule, int first) : argument_(argument), first_(first) {
        const dlpack::Tensor &tensor = tensor_of<Value>(argument, capsule);
        require(tensor.dimensions == 4 && tensor.shape[0] == 1, "of the shape (1, C, H, W)");
        const int64_t *shape = tensor.shape, *strides = tensor.strides;
        for (int dimension = 1; dimension < 4; ++dimension)
            require(shape[dimension] >= 1 && shape[dimension] <= INT_MAX - first, "of a size from 1 to 2**31 - 1");
        channels_ = int(shape[1]), end_ = first + int(shape[2]), width_ = int(shape[3]);
        // The stride of a dimension of one element means nothing.
        require((channels_ == 1 || strides[1] == 1) && (width_ == 1 || strides[3] == shape[1]) &&
                    (shape[2] == 1 || strides[2] == shape[1] * shape[3]),
                "in channels-last memory order");
        data_ = data_of<Value>(tensor);
    }

    Argument argument_;
    int first_, end_, channels_, width_;
    Value *data_;
};

} // namespace nst
