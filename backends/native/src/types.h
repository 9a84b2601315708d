// The types of a call: that of its arrays and that of its sums.
#pragma once

#include "plan.h"
#include "simd/vector.h"

namespace lcmulti::LCMULTI_ISA {

// Results that are far larger than the caches will not be found in them.
constexpr int64_t kStreamedBytes = 16 << 20;

// Calls use(D{}, A{}) with the type D of the arrays and the type A of their sums.
template <class Use>
auto with_types([[maybe_unused]] const Geometry &g, Use &&use) {
#if !defined(LCMULTI_BFLOAT16_ALONE)
  switch (g.dtype) {
    case LCMULTI_FLOAT64: return use(double{}, double{});
    case LCMULTI_FLOAT16: return use(float16{}, float{});
    case LCMULTI_FLOAT32: return use(float{}, float{});
  }
#endif
  return use(bfloat16{}, float{});
}

}  // namespace lcmulti::LCMULTI_ISA
