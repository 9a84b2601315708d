// How one call is cut into tasks: boxes of positions, of which what windows share stays in a core's cache.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "lcmulti_native.h"

namespace lcmulti {

constexpr int kAxes = LCMULTI_MAX_AXES;
using Index = std::array<int64_t, kAxes>;

// Bytes of transposed data that a task comes back to. Three quarters of the smallest second-level cache in
// use (Zen 3: 512 KiB; Zen 4 and Neoverse: 1 MiB); the kernel streams through the rest.
constexpr int64_t kBoxBytes = 384 << 10;
// Together with what it is done with after one window, which may come from the third level.
constexpr int64_t kPassingBytes = 4 * kBoxBytes;
// The same with the weights of a box, where they are gone through once for each chunk of samples.
constexpr int64_t kChunkedBytes = 4 << 20;
// Products that take less than it takes to wake a thread, and those a task should have where it may.
constexpr double kSmall = 5e5, kTaskProducts = 1e6;
constexpr int64_t kMostThreads = 1024;
// Samples too few to be a vector's lanes.
constexpr int64_t kFewSamples = 4;
// Of scratch that one thread may need however small the box; beyond it the call is declined.
constexpr int64_t kMostBytes = 16 << 20;

// Samples a task takes at once. Lanes are samples, so `padded` is a multiple of the vector length.
struct Chunk {
  int64_t first, count;
  int padded;
};

struct Box {
  Index lo, n;
};

struct Geometry : lcmulti_geometry {
  int64_t item, wide;         // bytes of an element in memory, and of one in sums
  int64_t terms;              // elements of a kernel at one position over filters: taps * channels
  int64_t channels_per_group, filters_per_group;
  Index extent;               // of a window
  Index weights_step;         // elements of the kernel from one position to the next; 0 if shared
  int64_t weights;            // elements of the whole kernel
  lcmulti_parallel lender;    // of threads, or null for the pool's own

  int last() const { return static_cast<int>(axes) - 1; }
  bool any_shared() const;
  // Elements of what a map writes.
  int64_t written(int map) const;
  // Whether the taps of a window along the last axis, with their channels, are neighbours.
  bool rows_are_runs() const { return groups == 1 && (dilation[last()] == 1 || kernel[last()] == 1); }
};

int64_t product(const int64_t *values, int64_t count);

// LCMULTI_OK and a Geometry, or what is wrong.
int check(const lcmulti_geometry &given, Geometry &geometry);

// The grid of boxes a map's tasks are: of output positions, or of input positions for input_grad.
struct Grid {
  Index size, box, counts;
  int64_t tasks;
  int axes;

  Box at(int64_t task) const;
};

// `lanes`: the most samples at once; `panel`: bytes of an element of what a box reads beside weights.
Grid make_grid(const Geometry &geometry, int map, int64_t lanes, int64_t panel);

// The input a box of outputs sees; reaches into the padding.
Box seen_by(const Geometry &geometry, const Box &outputs);
// The outputs that see a box of inputs; n may be 0.
Box seers_of(const Geometry &geometry, const Box &inputs);

// The most outputs along an axis that see some of `length` inputs, wherever these lie.
inline int64_t most_seers(const Geometry &geometry, int axis, int64_t length) {
  return std::min((length + geometry.extent[axis] - 2) / geometry.stride[axis] + 1, geometry.output[axis]);
}

// Bytes of scratch for a box: transposed input and output, and weights widened or summed.
int64_t scratch_bytes(const Geometry &geometry, int map, const Index &box, int64_t lanes, int64_t panel);
// Whether the gradient of a position's weights is summed in one go, so that the next has its room.
inline bool sums_at_once(const Geometry &geometry, int64_t lanes) {
  return !geometry.any_shared() && 0 < geometry.batch && geometry.batch <= lanes && 4 * geometry.batch >= 3 * lanes;
}

// Steps through all indices 0 <= i < n of `axes` axes, the last fastest.
struct Odometer {
  Index at{};
  const int64_t *n;
  int axes;
  bool done;

  Odometer(const int64_t *sizes, int count) : n(sizes), axes(count), done(false) {
    for (int a = 0; a < axes; ++a) done |= n[a] <= 0;
  }
  void next() {
    for (int a = axes - 1; a >= 0; --a) {
      if (++at[a] < n[a]) return;
      at[a] = 0;
    }
    done = true;
  }
};

}  // namespace lcmulti
