// Memory of its own for activations, weights and workspaces.
//
// Most are large and live for a moment. Beside everything small that lives on, what they leave free would soon be in
// pieces, and the next one would find no place. Pages are as large as the system has them, and stay for the next one.

constexpr size_t LARGE = size_t(1) << 20; // Bytes from which a thing has its place here.

class Arena {
  public:
    // Address space as large as the memory: a page of it becomes memory when it is written to.
    Arena() : size_(size_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE) / BLOCK * BLOCK) {
        void *start = mmap(nullptr, size_ + HUGE_PAGE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (start == MAP_FAILED) return;
        start_ = reinterpret_cast<char *>((uintptr_t(start) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
#ifdef MADV_HUGEPAGE
        madvise(start_, size_, MADV_HUGEPAGE);
#endif
        free_[0] = size_;
    }

    // Returns null where no place is left. What stays for good has its place at the end, or it would stand between what
    // comes and goes.
    void *take(size_t bytes, bool stays = false) {
        const size_t wanted = std::max<size_t>(1, (bytes + BLOCK - 1) / BLOCK) * BLOCK;
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto fits = [&](const auto &piece) { return piece.second >= wanted; };
        auto found = std::find_if(free_.begin(), free_.end(), fits);
        if (found == free_.end()) return nullptr;
        if (stays) found = std::prev(std::find_if(free_.rbegin(), free_.rend(), fits).base());
        const auto [place, size] = *found;
        const size_t at = stays ? place + size - wanted : place;
        free_.erase(found);
        if (at > place) free_[place] = size - wanted;
        if (at + wanted < place + size) free_[at + wanted] = size - wanted;
        taken_[at] = wanted;
        return start_ + at;
    }

    void give(void *place) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto taken = taken_.find(static_cast<char *>(place) - start_);
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

    // Gives what is free back to the system.
    void trim() {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (const auto &[at, size] : free_) madvise(start_ + at, size, MADV_DONTNEED);
    }

  private:
    static constexpr size_t BLOCK = size_t(1) << 16, HUGE_PAGE = size_t(1) << 21;
    const size_t size_;
    char *start_ = nullptr;
    std::map<size_t, size_t> free_, taken_; // Sizes by their place.
    std::mutex mutex_;
};
