// Calls that the maps of maps.h are slow for; see abutting.cc, depthwise.cc and sliding.cc.
#pragma once

#include "plan.h"

#if defined(LCMULTI_BFLOAT16_ALONE)
#define LCMULTI_IN_PLACE avx512  // these do not multiply pairs
#else
#define LCMULTI_IN_PLACE LCMULTI_ISA
#endif

namespace lcmulti::LCMULTI_IN_PLACE {

// Whether this is such a call; its maps, which return false if memory ran out; and bytes of scratch for one thread.
bool abuts(const Geometry &geometry);
bool abutting(const Geometry &geometry, int map, const void *a, const void *b, void *result);
int64_t abutting_workspace(const Geometry &geometry);

bool is_depthwise(const Geometry &geometry, int map);
bool depthwise(const Geometry &geometry, int map, const void *a, const void *b, void *result);
int64_t depthwise_workspace(const Geometry &geometry, int map);

bool slides(const Geometry &geometry, int map);
bool sliding(const Geometry &geometry, int map, const void *a, const void *b, void *result);
int64_t sliding_workspace(const Geometry &geometry, int map);

}  // namespace lcmulti::LCMULTI_IN_PLACE
