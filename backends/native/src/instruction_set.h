// Chooses the instruction set whose kernels run.
#pragma once

#include "kernels.h"

namespace lcmulti {

// The kernels of the best instruction set that this processor has for a dtype, or of the one that
// LCMULTI_NATIVE_ISA names. The answer does not change within a process.
const Kernels &kernels_for(int64_t dtype);

}  // namespace lcmulti
