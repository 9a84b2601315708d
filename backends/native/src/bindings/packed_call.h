// A call as an attribute of frameworks. It may come from a file, so it must be checked against the arrays.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "lcmulti_native.h"

namespace lcmulti {

constexpr int kCallLength = 1 + static_cast<int>(sizeof(lcmulti_geometry) / sizeof(int64_t));

struct Shape {
  static constexpr int64_t kMostElements = int64_t{1} << 46;

  int rank = 0;
  int64_t sizes[2 * LCMULTI_MAX_AXES + 2];

  void add(int64_t size) { sizes[rank++] = size; }
  bool is(int64_t other_rank, const int64_t *other) const {
    return other_rank == rank && std::equal(sizes, sizes + rank, other);
  }
  // Negative if there are too many.
  int64_t elements() const {
    int64_t count = 1;
    for (int i = 0; i < rank; ++i) {
      if (sizes[i] < 0 || (sizes[i] > 0 && count > kMostElements / sizes[i])) return -1;
      count *= sizes[i];
    }
    return count;
  }
};

// The shapes of the two arrays that a map reads and of the one that it writes.
struct Shapes {
  Shape a, b, result;
};

struct PackedCall {
  int64_t map;  // then every field of the geometry
  lcmulti_geometry geometry;

  // Whether the call is valid. Other members must not be used otherwise.
  bool sound() const {
    return map >= LCMULTI_FORWARD && map <= LCMULTI_KERNEL_GRAD &&
           lcmulti_workspace(&geometry, static_cast<int>(map)) >= 0;
  }

  Shapes shapes() const {
    const lcmulti_geometry &g = geometry;
    Shape x, kernel, y;
    x.add(g.batch), y.add(g.batch);
    for (int64_t a = 0; a < g.axes; ++a) {
      x.add(g.input[a]), y.add(g.output[a]);
      kernel.add(g.shared[a] ? 1 : g.output[a]);
    }
    for (int64_t a = 0; a < g.axes; ++a) kernel.add(g.kernel[a]);
    x.add(g.channels), y.add(g.filters);
    kernel.add(g.channels / g.groups), kernel.add(g.filters);
    if (map == LCMULTI_FORWARD) return {x, kernel, y};
    return map == LCMULTI_INPUT_GRAD ? Shapes{y, kernel, x} : Shapes{x, y, kernel};
  }

  // The frameworks' arrays are contiguous, independent of the attribute.
  void make_contiguous() {
    lcmulti_geometry &g = geometry;
    const auto lay_out = [&g](const int64_t *size, int64_t channels, int64_t *step) {
      step[0] = channels, step[1] = 1;
      for (int64_t a = g.axes - 1; a >= 0; --a) {
        step[2 + a] = step[0];
        step[0] *= size[a];
      }
    };
    lay_out(g.input, g.channels, g.x_step);
    lay_out(g.output, g.filters, g.dy_step);
  }
};
static_assert(sizeof(PackedCall) == kCallLength * sizeof(int64_t));

}  // namespace lcmulti
