// Chooses the kernel for a call: for sliding windows, adjacent windows, depthwise layers, or the maps.
#pragma once

#include <algorithm>

#include "in_place.h"
#include "kernels.h"
#include "maps.h"

namespace lcmulti::LCMULTI_ISA {

template <int MAP>
int64_t workspace_of(const Geometry &g) {
  using namespace LCMULTI_IN_PLACE;
  if (slides(g, MAP)) return sliding_workspace(g, MAP);
  if (abuts(g)) return abutting_workspace(g);
  if (is_depthwise(g, MAP)) return depthwise_workspace(g, MAP);
  return with_types(g, [&](auto d, auto wide) {
    using Each = Call<decltype(d), decltype(wide), MAP>;
    if constexpr (kHasTiles) {
      if (!Each::fills_tiles(g)) return avx512bf16::kernels.workspace(g, MAP);
    }
    const int64_t own = Each(g).workspace();
    return kHasPairs ? std::max(own, avx512::kernels.workspace(g, MAP)) : own;
  });
}

template <int MAP>
int compute(const Geometry &g, const void *a, const void *b, void *result) {
  using namespace LCMULTI_IN_PLACE;
  const auto status = [](bool done) { return done ? LCMULTI_OK : LCMULTI_NO_MEMORY; };
  if (slides(g, MAP)) return status(sliding(g, MAP, a, b, result));
  if (abuts(g)) return status(abutting(g, MAP, a, b, result));
  if (is_depthwise(g, MAP)) return status(depthwise(g, MAP, a, b, result));
  return with_types(g, [&](auto d, auto wide) -> int {
    using Each = Call<decltype(d), decltype(wide), MAP>;
    if constexpr (kHasTiles) {
      if (!Each::fills_tiles(g)) return avx512bf16::kernels.compute[MAP](g, a, b, result);
    }
    Each call(g);
    if (call.workspace() > kMostBytes) return LCMULTI_TOO_LARGE;
    const int done = status(call.run(a, b, result));
    if constexpr (kHasPairs) {
      if (done == LCMULTI_OK && !call.is_exact()) return avx512::kernels.compute[MAP](g, a, b, result);
    }
    return done;
  });
}

}  // namespace lcmulti::LCMULTI_ISA
