#include "pool.h"

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#endif

#include "plan.h"

namespace lcmulti {
namespace {

struct Job {
  const std::function<void(int64_t)> *task;
  int64_t count;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  // Every thread uses the caller's modes for rounding and subnormal numbers, which frameworks change.
  std::fenv_t environment;

  Job(const std::function<void(int64_t)> *tasks, int64_t how_many) : task(tasks), count(how_many) {
    std::fegetenv(&environment);
  }

  // For a thread that restores its own modes afterwards.
  void visit() {
    std::fenv_t own;
    std::fegetenv(&own);
    std::fesetenv(&environment);
    work();
    std::fesetenv(&own);
  }

  void work() {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      try {
        (*task)(i);
      } catch (const std::bad_alloc &) {
        failed = true;
      }
    }
  }
};

class Pool {
 public:
  explicit Pool(bool forked = false) : forked_(forked) {}

  void run(Job &job, int64_t threads, lcmulti_parallel lender) {
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (!turn) return job.work();  // the pool works for another caller
    if (lender != nullptr && !forked_) {
      // All threads, for any number of tasks: OpenMP would end an unused thread and create it again for the next call.
      return lender([](void *data) { static_cast<Job *>(data)->visit(); }, &job, static_cast<unsigned>(threads), 0);
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      threads = std::min(threads, job.count);
      while (workers_ < threads - 1 && start()) {
      }
      job_ = &job;
      wanted_ = std::min(threads - 1, workers_);
      ++round_;
    }
    wake_.notify_all();
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    job_ = nullptr;  // threads that have not started by now are not needed
    idle_.wait(lock, [&] { return busy_ == 0; });
  }

 private:
  bool start() {
    try {
      // Threads are never joined: the pool lives as long as the process.
      std::thread([this] { serve(); }).detach();
    } catch (const std::system_error &) {
      return false;  // go on with the threads that exist
    }
    ++workers_;
    return true;
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (uint64_t seen = 0;;) {
      wake_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      if (job_ == nullptr || wanted_ == 0) continue;
      Job *job = job_;
      --wanted_;
      ++busy_;
      lock.unlock();
      std::fesetenv(&job->environment);
      job->work();
      lock.lock();
      if (--busy_ == 0) idle_.notify_one();
    }
  }

  const bool forked_;  // a child process lacks the lender's threads, and the lender may not know
  std::mutex turn_, mutex_;
  std::condition_variable wake_, idle_;
  Job *job_ = nullptr;
  int64_t workers_ = 0, wanted_ = 0, busy_ = 0;
  uint64_t round_ = 0;
};

std::atomic<Pool *> pool{nullptr};

#if !defined(_WIN32)
// Threads do not survive a fork, and another thread may hold a lock. So the child makes a new pool and does not
// touch that of the parent. Registered when the library is loaded, because lenders' threads may be older than
// the pool.
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, [] { pool.store(new Pool(true)); });
#endif

Pool &the_pool() {
  if (pool.load() == nullptr) {
    Pool *none = nullptr, *const made = new Pool;
    if (!pool.compare_exchange_strong(none, made)) delete made;
  }
  return *pool.load();
}

int64_t count_processors() {
  if (const char *text = std::getenv("OMP_NUM_THREADS")) {
    const long asked = std::strtol(text, nullptr, 10);  // of a list, the number for the first level
    if (asked > 0) return std::min<int64_t>(asked, kMostThreads);
  }
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(CPU_COUNT(&set), 1);
#endif
  return std::max<int64_t>(std::thread::hardware_concurrency(), 1);
}

}  // namespace

int64_t pool_threads() {
  static const int64_t count = count_processors();
  return count;
}

bool parallel_for(int64_t count, int64_t threads, lcmulti_parallel lender, const std::function<void(int64_t)> &task) {
  Job job(&task, count);
  if (threads <= 1 || count <= 1) {
    job.work();
  } else {
    the_pool().run(job, threads, lender);
  }
  return !job.failed;
}

}  // namespace lcmulti
