// One pool of threads for every caller in the process.
#pragma once

#include <cstdint>
#include <functional>

#include "lcmulti_native.h"

namespace lcmulti {

// Threads the pool may use: OMP_NUM_THREADS, or the processors this process may run on.
int64_t pool_threads();

// Calls task(0) .. task(count - 1), each once, on up to `threads` threads, including the caller's. Tasks own what
// they write, so results do not depend on which thread runs them. If the pool works for another caller, the
// caller runs its tasks itself, without waiting and without oversubscription. If `lender` is given, its threads
// are used. Returns false if a task ran out of memory.
bool parallel_for(int64_t count, int64_t threads, lcmulti_parallel lender, const std::function<void(int64_t)> &task);

}  // namespace lcmulti
