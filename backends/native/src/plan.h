// How one call is divided into tasks: boxes of positions, so that the data that windows share stays in a cache.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "lcmulti_native.h"

namespace lcmulti {

constexpr int kAxes = LCMULTI_MAX_AXES;
using Index = std::array<int64_t, kAxes>;

// Bytes of transposed data that a task uses repeatedly: three quarters of the smallest second-level cache in use
// (Zen 3: 512 KiB; Zen 4 and Neoverse: 1 MiB). The kernel streams through the rest.
constexpr int64_t kBoxBytes = 384 << 10;
// The same together with data that only one window uses, which may come from the third-level cache.
constexpr int64_t kPassingBytes = 4 * kBoxBytes;
// The same with the weights of a box, if these are read once for each chunk of samples.
constexpr int64_t kChunkedBytes = 4 << 20;
// Number of products that take less time than waking a thread, and number that a task should have if possible.
constexpr double kSmall = 5e5, kTaskProducts = 1e6;
constexpr int64_t kMostThreads = 1024;
// With fewer samples than this, samples are not the lanes of a vector.
constexpr int64_t kFewSamples = 4;
// Largest scratch of one thread for the smallest box; a call that needs more is declined.
constexpr int64_t kMostBytes = 16 << 20;

// The samples that a task takes at once. Lanes are samples, so `padded` is a multiple of the vector length.
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
  lcmulti_parallel lender;    // lends threads; null for those of the pool

  int last() const { return static_cast<int>(axes) - 1; }
  bool any_shared() const;
  // Number of elements of a map's result.
  int64_t written(int map) const;
  // Whether the taps of a window along the last axis, with their channels, are adjacent.
  bool rows_are_runs() const { return groups == 1 && (dilation[last()] == 1 || kernel[last()] == 1); }
};

// Whether windows have length 1 along an axis, and each position reads the input at its own place.
inline bool is_pixels(const Geometry &g, int axis) {
  return g.kernel[axis] == 1 && g.stride[axis] == 1 && g.pad[axis] == 0 && g.output[axis] == g.input[axis];
}

int64_t product(const int64_t *values, int64_t count);

// LCMULTI_OK and a Geometry, or an error code.
int check(const lcmulti_geometry &given, Geometry &geometry);

// The grid of boxes of a map's tasks: of output positions, or of input positions for input_grad.
struct Grid {
  Index size, box, counts;
  int64_t tasks;
  int axes;

  // Finds how many boxes there are.
  void count();
  Box at(int64_t task) const;
};

// `lanes`: the largest number of samples at once. `panel`: bytes of an element that a box reads besides weights.
Grid make_grid(const Geometry &geometry, int map, int64_t lanes, int64_t panel);

// The inputs that a box of outputs reads; they may reach into the padding.
Box seen_by(const Geometry &geometry, const Box &outputs);
// The outputs whose windows reach a box of inputs; n may be 0.
Box seers_of(const Geometry &geometry, const Box &inputs);

// The largest number of outputs along an axis whose windows reach `length` inputs, wherever these are.
inline int64_t most_seers(const Geometry &geometry, int axis, int64_t length) {
  return std::min((length + geometry.extent[axis] - 2) / geometry.stride[axis] + 1, geometry.output[axis]);
}

// Bytes of scratch for a box: transposed input and output, and weights widened or summed.
int64_t scratch_bytes(const Geometry &geometry, int map, const Index &box, int64_t lanes, int64_t panel);
// Whether the gradient of a position's weights is summed at once, so that the next position can use its memory.
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
