// One pool of threads for every caller in the process.
#pragma once

#include <cstdint>
#include <functional>

#include "lcmulti_native.h"

namespace lcmulti {

// Threads the pool may use: OMP_NUM_THREADS, or the processors this process may run on.
int64_t pool_threads();

// Calls task(0) .. task(count - 1), each once, on up to `threads` threads of which the caller is
// one. Tasks own what they write, so that results do not depend on who runs them. A caller that
// finds the pool at work for another runs its tasks itself: no waiting, no oversubscription.
// Where `lender` is given, the threads are its own. False if a task ran out of memory.
bool parallel_for(int64_t count, int64_t threads, lcmulti_parallel lender, const std::function<void(int64_t)> &task);

}  // namespace lcmulti
