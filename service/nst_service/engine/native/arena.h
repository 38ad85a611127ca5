// Memory for features, weights and workspaces, apart from that of everything else.
//
// Most of them are large and short-lived. In a common heap, small allocations that live on fragment the space they
// leave, until the next large one does not fit. The arena uses the system's large pages and keeps freed ones for reuse.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>

namespace nst {

constexpr size_t LARGE = size_t(1) << 20; // Bytes from which an allocation belongs here.

class Arena {
  public:
    // Reserves as much address space as the machine has memory. A page takes memory once it is written to.
    Arena() : size_(size_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE) / GRANULARITY * GRANULARITY) {
        void *start = mmap(nullptr, size_ + HUGE_PAGE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (start == MAP_FAILED) return;
        start_ = reinterpret_cast<char *>((uintptr_t(start) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
#ifdef MADV_HUGEPAGE
        madvise(start_, size_, MADV_HUGEPAGE);
#endif
        free_[0] = size_;
    }

    // Returns null where no free block is large enough. Permanent blocks are taken from the end, so that they do not
    // fragment the space of the others.
    void *take(size_t bytes, bool permanent = false) {
        if (bytes > size_) return nullptr;
        const size_t wanted = std::max<size_t>(1, (bytes + GRANULARITY - 1) / GRANULARITY) * GRANULARITY;
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto fits = [&](const auto &block) { return block.second >= wanted; };
        auto found = std::find_if(free_.begin(), free_.end(), fits);
        if (found == free_.end()) return nullptr;
        if (permanent) found = std::prev(std::find_if(free_.rbegin(), free_.rend(), fits).base());
        const auto [offset, size] = *found;
        const size_t at = permanent ? offset + size - wanted : offset;
        free_.erase(found);
        if (at > offset) free_[offset] = size - wanted;
        if (at + wanted < offset + size) free_[at + wanted] = size - wanted;
        taken_[at] = wanted;
        return start_ + at;
    }

    // Frees a block that `take` returned, and merges it with its free neighbours.
    void free(void *block) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto taken = taken_.find(static_cast<char *>(block) - start_);
        auto [at, size] = *taken;
        taken_.erase(taken);
        auto next = free_.lower_bound(at);
        if (next != free_.end() && next->first == at + size) {
            size += next->second;
            next = free_.erase(next);
        }
        if (next != free_.begin() && std::prev(next)->first + std::prev(next)->second == at)
            std::prev(next)->second += size;
        else
            free_[at] = size;
    }

    // Returns the memory of free blocks to the system.
    void trim() {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (const auto &[at, size] : free_) madvise(start_ + at, size, MADV_DONTNEED);
    }

  private:
    static constexpr size_t GRANULARITY = size_t(1) << 16, HUGE_PAGE = size_t(1) << 21;
    const size_t size_;
    char *start_ = nullptr;
    std::map<size_t, size_t> free_, taken_; // Sizes of blocks by their offsets.
    std::mutex mutex_;
};

// Returns the arena of the process.
inline Arena &arena() {
    static Arena arena;
    return arena;
}

} // namespace nst
