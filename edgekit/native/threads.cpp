#include "threads.h"

#include <chrono>

namespace edgekit {
namespace {

using Clock = std::chrono::steady_clock;

// At a barrier the others are microseconds away, unless the system runs something else in their place, which it can only
// end by getting this processor. After a frame the next one may come at once, or in a while.
constexpr auto kBarrierSpin = std::chrono::microseconds(10);
constexpr auto kFrameSpin = std::chrono::microseconds(100);

inline void pause_processor() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Whether it is `done` within a while. A pause takes 1 to 140 cycles, by the processor, so time is measured by a clock.
template <class Done>
bool spin(Clock::duration limit, Done done) {
    const auto start = Clock::now();
    do {
        for (int i = 0; i < 16; i++) {
            if (done()) return true;
            pause_processor();
        }
    } while (Clock::now() - start < limit);
    return false;
}

template <class Done>
void wait_until(Done done) {
    if (!done() && !spin(kBarrierSpin, done))
        while (!done()) std::this_thread::yield();
}

}  // namespace

Team::Team(int threads) : size_(threads), arrivals_(threads) {
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
    wait_until([&] { return working_.load(std::memory_order_acquire) == 0; });
}

void Team::barrier(int thread) {
    if (size_ == 1) return;
    // Counts wrap, so they are compared by their difference.
    const unsigned mine = arrivals_[thread].count.load(std::memory_order_relaxed) + 1;
    arrivals_[thread].count.store(mine, std::memory_order_release);
    for (int other = 0; other < size_; other++)
        wait_until(
            [&] { return static_cast<int>(arrivals_[other].count.load(std::memory_order_acquire) - mine) >= 0; });
}

void Team::serve(int thread) {
    unsigned seen = 0;
    while (true) {
        unsigned round = seen;
        spin(kFrameSpin, [&] { return (round = round_.load(std::memory_order_acquire)) != seen; });
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
