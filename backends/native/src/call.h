// A call as frameworks carry it in an attribute: the map, then every field of the geometry.
#pragma once

#include <cstdint>
#include <cstring>

#include "lcmulti_native.h"

namespace lcmulti {

constexpr int kCallLength = 1 + static_cast<int>(sizeof(lcmulti_geometry) / sizeof(int64_t));

struct PackedCall {
  int64_t map;
  lcmulti_geometry geometry;
};
static_assert(sizeof(PackedCall) == kCallLength * sizeof(int64_t));

}  // namespace lcmulti
