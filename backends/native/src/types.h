// The types of a call: of its arrays and of its sums.
#pragma once

#include "plan.h"
#include "simd/halves.h"

namespace lcmulti::LCMULTI_ISA {

// Results this large are written past the caches, which could not hold them.
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
