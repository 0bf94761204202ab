// A team of threads that runs one function together, and a barrier between its steps.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace edgekit {

// Threads wait a little while spinning, because the next step comes within microseconds, and then give up the processor.
// On a machine that is busy with other things a team may wait longer than it works: then the caller's thread works alone
// for a number of calls, before the others get another chance.
class Team {
  public:
    explicit Team(int threads);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    // Threads that there are, and those that take part in this call of run().
    int capacity() const { return size_; }
    int size() const { return active_; }

    // Call `work(context, thread)` on every thread, the caller's as number 0, and wait for all.
    void run(void (*work)(void*, int), void* context);

    // Wait until every thread of a running team is here; `thread` says which one calls. Free for a team of one.
    void barrier(int thread);

  private:
    void serve(int thread);

    int size_, active_;
    int bad_rounds_ = 0, rounds_alone_ = 0, patience_;    // the last: rounds alone after the next bad ones
    std::chrono::steady_clock::duration late_{};          // that the caller's thread has waited in this round
    void (*work_)(void*, int) = nullptr;
    void* context_ = nullptr;
    std::atomic<bool> ended_{false};
    std::atomic<unsigned> round_{0};  // counts calls of run()
    std::atomic<int> working_{0};  // threads but the caller's that have not finished this round
    // Barriers that each thread has come to. Alone on its cache line: only its thread writes it, so a barrier costs one
    // trip of a line between two processors.
    struct alignas(64) Arrivals {
        std::atomic<unsigned> count{0};
    };
    std::vector<Arrivals> arrivals_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> threads_;
};

}  // namespace edgekit
