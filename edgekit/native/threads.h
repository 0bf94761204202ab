// A team of threads that runs one function together, and a barrier between its steps.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace edgekit {

// Threads wait a little while spinning, because the next step comes within microseconds, and then give up the processor.
class Team {
  public:
    explicit Team(int threads);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int size() const { return size_; }

    // Call `work(context, thread)` on every thread, the caller's as number 0, and wait for all.
    void run(void (*work)(void*, int), void* context);

    // Wait until every thread of a running team is here. Free for a team of one.
    void barrier();

  private:
    void serve(int thread);

    int size_;
    void (*work_)(void*, int) = nullptr;
    void* context_ = nullptr;
    std::atomic<bool> ended_{false};
    std::atomic<unsigned> round_{0};  // counts calls of run()
    std::atomic<int> working_{0};  // threads but the caller's that have not finished this round
    std::atomic<int> arrived_{0};
    std::atomic<unsigned> passed_{0};  // counts barriers
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> threads_;
};

}  // namespace edgekit
