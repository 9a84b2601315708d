// Iterates over the windows of a box of outputs.
#pragma once

#include <vector>

#include "plan.h"
#include "tiles.h"

namespace lcmulti::LCMULTI_ISA {

// Offset in the kernel of the weights of a position.
inline int64_t weights_at(const Geometry &g, const Index &position) {
  int64_t at = 0;
  for (int a = 0; a < g.axes; ++a) at += position[a] * g.weights_step[a];
  return at;
}

// The contiguous runs of a window in a box of inputs of `size`; input offsets are in positions * channels.
inline std::vector<Run> runs(const Geometry &g, const Index &size) {
  std::vector<Run> result;
  const int last = g.last();
  for (Odometer tap(g.kernel, g.rows_are_runs() ? last : last + 1); !tap.done; tap.next()) {
    int64_t input = 0, row = 0;
    for (int a = 0; a <= last; ++a) {
      input = input * size[a] + tap.at[a] * g.dilation[a];
      row = row * g.kernel[a] + tap.at[a];
    }
    const int64_t length = g.channels_per_group * (g.rows_are_runs() ? g.kernel[last] : 1);
    result.push_back({input * g.channels, row * g.channels_per_group, length});
  }
  return result;
}

// Calls body(weights, start) for each output position of a box, in order, with the offsets of its weights in the
// kernel and of its window in the `seen` inputs, in positions * channels.
template <class Body>
LCMULTI_INLINE void for_positions(const Geometry &g, const Box &box, const Index &seen, Body &&body) {
  const int last = g.last();
  for (Odometer outer(box.n.data(), last); !outer.done; outer.next()) {
    int64_t weights = box.lo[last] * g.weights_step[last], start = 0;
    for (int a = 0; a < last; ++a) {
      weights += (box.lo[a] + outer.at[a]) * g.weights_step[a];
      start = (start + outer.at[a] * g.stride[a]) * seen[a + 1];
    }
    start *= g.channels;
    for (int64_t i = 0; i < box.n[last]; ++i) {
      body(weights, start);
      weights += g.weights_step[last];
      start += g.stride[last] * g.channels;
    }
  }
}

}  // namespace lcmulti::LCMULTI_ISA
