#include "threads.h"

namespace edgekit {
namespace {

constexpr int kSpins = 4000;  // some tens of microseconds

inline void pause_processor() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

template <class Done>
void spin_until(Done done) {
    for (int spins = 0; !done(); spins++) spins < kSpins ? pause_processor() : std::this_thread::yield();
}

}  // namespace

Team::Team(int threads) : size_(threads) {
    try {
        for (int thread = 1; thread < size_; thread++) threads_.emplace_back(&Team::serve, this, thread);
    } catch (...) {
        size_ = static_cast<int>(threads_.size()) + 1;  // go on with what the system allows
    }
}

Team::~Team() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        ended_.store(true, std::memory_order_relaxed);
        round_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
}

void Team::run(void (*work)(void*, int), void* context) {
    if (size_ > 1) {
        work_ = work;
        context_ = context;
        working_.store(size_ - 1, std::memory_order_relaxed);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            round_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
    }
    work(context, 0);
    spin_until([&] { return working_.load(std::memory_order_acquire) == 0; });
}

void Team::barrier() {
    if (size_ == 1) return;
    const unsigned passed = passed_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
        arrived_.store(0, std::memory_order_relaxed);
        passed_.store(passed + 1, std::memory_order_release);
    } else {
        spin_until([&] { return passed_.load(std::memory_order_acquire) != passed; });
    }
}

void Team::serve(int thread) {
    unsigned seen = 0;
    while (true) {
        unsigned round = seen;
        for (int spins = 0; spins < kSpins && round == seen; spins++) {
            pause_processor();
            round = round_.load(std::memory_order_acquire);
        }
        if (round == seen) {
            std::unique_lock<std::mutex> lock(mutex_);
            wake_.wait(lock, [&] { return round_.load(std::memory_order_relaxed) != seen; });
            round = round_.load(std::memory_order_relaxed);
        }
        if (ended_.load(std::memory_order_relaxed)) return;
        seen = round;
        work_(context_, thread);
        working_.fetch_sub(1, std::memory_order_release);
    }
}

}  // namespace edgekit
