// Windows that abut in memory and meet few filters: see abutting.cc.
#pragma once

#include "plan.h"

namespace lcmulti::LCMULTI_ISA {

// Whether this is such a call. Then its maps, false if memory ran out, and bytes of scratch a thread.
bool abuts(const Geometry &geometry);
bool abutting(const Geometry &geometry, int map, const void *a, const void *b, void *result);
int64_t abutting_workspace(const Geometry &geometry);

}  // namespace lcmulti::LCMULTI_ISA
