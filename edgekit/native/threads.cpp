#include "threads.h"

#include <algorithm>
#include <chrono>

namespace edgekit {
namespace {

using Clock = std::chrono::steady_clock;

// At a barrier the others are microseconds away, unless the system runs something else in their place, which it can only
// end by getting this processor. After a frame the next one may come at once, or in a while.
constexpr auto kBarrierSpin = std::chrono::microseconds(10);
constexpr auto kFrameSpin = std::chrono::microseconds(100);

// A round is bad when its caller waited for most of it. One may be chance; after two in a row it works alone for a while,
// and twice as long each time that the team turns out as bad again.
constexpr int kBadRounds = 2, kLeastAlone = 8, kMostAlone = 1024;

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

// Returns how long it took beyond what is usual.
template <class Done>
Clock::duration wait_until(Done done) {
    if (done() || spin(kBarrierSpin, done)) return {};
    const auto start = Clock::now();
    while (!done()) std::this_thread::yield();
    return Clock::now() - start;
}

}  // namespace

Team::Team(int threads) : size_(threads), active_(threads), patience_(kLeastAlone), arrivals_(threads) {
    try {
        for (int thread = 1; thread < size_; thread++) threads_.emplace_back(&Team::serve, this, thread);
    } catch (...) {
        size_ = active_ = static_cast<int>(threads_.size()) + 1;  // go on with what the system allows
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
    active_ = rounds_alone_ > 0 ? 1 : size_;
    if (active_ == 1) {
        rounds_alone_ = std::max(0, rounds_alone_ - 1);
        return work(context, 0);
    }
    const auto start = Clock::now();
    late_ = {};
    work_ = work;
    context_ = context;
    working_.store(size_ - 1, std::memory_order_relaxed);
    {
        std::lock_guard<std::mutex> lock(mutex_);
        round_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    work(context, 0);
    late_ += wait_until([&] { return working_.load(std::memory_order_acquire) == 0; });
    if (late_ * 2 < Clock::now() - start) {
        if (bad_rounds_ == 0) patience_ = kLeastAlone;
        bad_rounds_ = 0;
    } else if (++bad_rounds_ == kBadRounds) {
        bad_rounds_ = 0;
        rounds_alone_ = patience_;
        patience_ = std::min(2 * patience_, kMostAlone);
    }
}

void Team::barrier(int thread) {
    if (active_ == 1) return;
    // Counts wrap, so they are compared by their difference.
    const unsigned mine = arrivals_[thread].count.load(std::memory_order_relaxed) + 1;
    arrivals_[thread].count.store(mine, std::memory_order_release);
    Clock::duration late{};
    for (int other = 0; other < size_; other++)
        late += wait_until(
            [&] { return static_cast<int>(arrivals_[other].count.load(std::memory_order_acquire) - mine) >= 0; });
    if (thread == 0) late_ += late;
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
