// The memory that a convolution works in.
#pragma once

#include <cstddef>
#include <new>

#include "arena.h"

namespace nst {

// Uninitialised float32, from the arena where it is large and has room.
class Workspace {
  public:
    explicit Workspace(ptrdiff_t count) {
        const size_t bytes = sizeof(float) * count;
        block_ = bytes < LARGE ? nullptr : arena().take(bytes);
        data_ = static_cast<float *>(block_ ? block_ : ::operator new(bytes, ALIGNMENT));
    }
    ~Workspace() {
        if (block_)
            arena().free(block_);
        else
            ::operator delete(data_, ALIGNMENT);
    }
    Workspace(const Workspace &) = delete;
    Workspace &operator=(const Workspace &) = delete;
    float *get() const { return data_; }

  private:
    static constexpr std::align_val_t ALIGNMENT{64};
    void *block_; // Of the arena, or null.
    float *data_;
};

} // namespace nst
