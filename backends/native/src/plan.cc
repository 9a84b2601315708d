#include "plan.h"

#include <algorithm>
#include <cstring>

#include "pool.h"

namespace lcmulti {
namespace {

constexpr int64_t kLineElements = 16;  // of a cache line, in float32
constexpr int64_t kMostElements = int64_t{1} << 46;

bool multiply(int64_t &total, int64_t factor) {
  return factor >= 1 && factor <= kMostElements && (total <= kMostElements / factor) &&
         (total *= factor, true);
}

// Makes one axis of adjacent axes along which windows have one element, where both arrays allow it: longer rows are
// transposed faster, and a box of any number of positions is one.
void merge_pixels(Geometry &g) {
  const auto adjoin = [](const int64_t *step, const int64_t *size, int a) {
    return size[a] == 1 || size[a + 1] == 1 || step[2 + a] == step[3 + a] * size[a + 1];
  };
  for (int a = g.last() - 1; a >= 0; --a) {
    const int next = a + 1;
    if (!is_pixels(g, a) || !is_pixels(g, next) || g.shared[a] != g.shared[next]) continue;
    if (!adjoin(g.x_step, g.input, a) || !adjoin(g.dy_step, g.output, a)) continue;
    // An axis of length 1 may have any step.
    const int kept = g.input[next] == 1 ? a : next;
    g.x_step[2 + a] = g.x_step[2 + kept], g.dy_step[2 + a] = g.dy_step[2 + kept];
    g.input[a] *= g.input[next], g.output[a] = g.input[a];
    for (int64_t *each : {g.input, g.output, g.kernel, g.stride, g.dilation, g.pad, g.shared, g.x_step + 2,
                          g.dy_step + 2}) {
      std::copy(each + next + 1, each + g.axes, each + next);
    }
    --g.axes;
  }
}

}  // namespace

bool Geometry::any_shared() const {
  return std::any_of(shared, shared + axes, [](int64_t s) { return s != 0; });
}

int64_t Geometry::written(int map) const {
  if (map == LCMULTI_KERNEL_GRAD) return weights;
  return map == LCMULTI_FORWARD ? batch * filters * product(output, axes) : batch * channels * product(input, axes);
}

int64_t product(const int64_t *values, int64_t count) {
  int64_t total = 1;
  for (int64_t i = 0; i < count; ++i) total *= values[i];
  return total;
}

int check(const lcmulti_geometry &given, Geometry &g) {
  std::memcpy(static_cast<lcmulti_geometry *>(&g), &given, sizeof given);
  if (g.dtype < LCMULTI_FLOAT32 || g.dtype > LCMULTI_FLOAT16) return LCMULTI_INVALID;
  if (g.axes < 1 || g.axes > kAxes || g.batch < 0 || g.threads < 0) return LCMULTI_INVALID;
  if (g.channels < 1 || g.filters < 1 || g.groups < 1) return LCMULTI_INVALID;
  if (g.channels % g.groups || g.filters % g.groups) return LCMULTI_INVALID;
  g.threads = std::min(g.threads > 0 ? g.threads : pool_threads(), kMostThreads);
  g.item = g.dtype == LCMULTI_FLOAT64 ? 8 : g.dtype == LCMULTI_FLOAT32 ? 4 : 2;
  g.wide = g.dtype == LCMULTI_FLOAT64 ? 8 : 4;
  g.channels_per_group = g.channels / g.groups;
  g.filters_per_group = g.filters / g.groups;
  int64_t inputs = 1, outputs = 1, weights = 1;
  bool fits = multiply(inputs, std::max<int64_t>(g.batch, 1)) && multiply(inputs, g.channels);
  fits = fits && multiply(outputs, std::max<int64_t>(g.batch, 1)) && multiply(outputs, g.filters);
  fits = fits && multiply(weights, g.channels_per_group) && multiply(weights, g.filters);
  for (int a = 0; a < g.axes && fits; ++a) {
    if (g.stride[a] < 1 || g.dilation[a] < 1 || g.pad[a] < 0 || g.kernel[a] < 1) return LCMULTI_INVALID;
    if (g.shared[a] != 0 && g.shared[a] != 1) return LCMULTI_INVALID;
    fits = multiply(inputs, g.input[a]) && multiply(outputs, g.output[a]) && multiply(weights, g.kernel[a]);
    fits = fits && std::max({g.stride[a], g.dilation[a], g.pad[a]}) <= kMostElements;
  }
  if (!fits) return LCMULTI_INVALID;
  merge_pixels(g);
  g.terms = weights / g.filters;
  for (int a = 0; a < g.axes; ++a) {
    int64_t span = g.kernel[a], reach = g.output[a];
    if (!multiply(span, g.dilation[a]) || !multiply(reach, g.stride[a])) return LCMULTI_INVALID;
    g.extent[a] = (g.kernel[a] - 1) * g.dilation[a] + 1;
  }
  int64_t step = weights;
  for (int a = g.last(); a >= 0; --a) {
    g.weights_step[a] = g.shared[a] ? 0 : step;
    if (!g.shared[a] && !multiply(step, g.output[a])) return LCMULTI_INVALID;
  }
  g.weights = step;
  return LCMULTI_OK;
}

void Grid::count() {
  tasks = 1;
  for (int a = 0; a < axes; ++a) {
    counts[a] = (size[a] + box[a] - 1) / box[a];
    tasks *= counts[a];
  }
}

Box Grid::at(int64_t task) const {
  Box result{};
  for (int a = axes - 1; a >= 0; --a) {
    result.lo[a] = task % counts[a] * box[a];
    result.n[a] = std::min(box[a], size[a] - result.lo[a]);
    task /= counts[a];
  }
  return result;
}

Box seen_by(const Geometry &g, const Box &outputs) {
  Box result{};
  for (int a = 0; a < g.axes; ++a) {
    result.lo[a] = outputs.lo[a] * g.stride[a] - g.pad[a];
    result.n[a] = (outputs.n[a] - 1) * g.stride[a] + g.extent[a];
  }
  return result;
}

Box seers_of(const Geometry &g, const Box &inputs) {
  Box result{};
  for (int a = 0; a < g.axes; ++a) {
    const int64_t first = inputs.lo[a] + g.pad[a] - (g.extent[a] - 1);
    const int64_t lo = first <= 0 ? 0 : (first + g.stride[a] - 1) / g.stride[a];
    const int64_t hi = std::min((inputs.lo[a] + inputs.n[a] - 1 + g.pad[a]) / g.stride[a], g.output[a] - 1);
    result.lo[a] = lo;
    result.n[a] = std::max<int64_t>(hi - lo + 1, 0);
  }
  return result;
}

namespace {

// Bytes that a task holds: the data that several windows share, and the data that each window uses only once.
struct Held {
  double shared, passing;
  double all() const { return shared + passing; }
};

Held held(const Geometry &g, int map, const Index &box, int64_t lanes, int64_t panel) {
  // In floating point, because a large window in many dimensions exceeds any integer.
  double positions = 1, seen = 1, seers = 1;
  for (int a = 0; a < g.axes; ++a) {
    positions *= static_cast<double>(box[a]);
    seen *= static_cast<double>((box[a] - 1) * g.stride[a] + g.extent[a]);
    seers *= static_cast<double>(most_seers(g, a, box[a]));
  }
  const double channels = static_cast<double>(g.channels), filters = static_cast<double>(g.filters);
  // Filters of a group, rounded up to whole vectors.
  const double whole = static_cast<double>(g.groups * ((g.filters_per_group + 15) / 16 * 16));
  const double wide = static_cast<double>(g.wide), read = static_cast<double>(panel);
  const double samples = static_cast<double>(lanes);
  Held result{};
  if (map == LCMULTI_FORWARD) {
    // Half types are written by rows along the last axis.
    const double row = panel < g.wide ? static_cast<double>(box[g.last()]) : positions;
    result = {read * seen * channels * samples, wide * row * whole * samples};
  } else if (map == LCMULTI_INPUT_GRAD) {
    result = {wide * positions * channels * samples, read * seers * filters * samples};
  } else {
    // For the matrix unit, filters that are not adjacent are copied and transposed first.
    const double turned = g.dy_step[1] != 1 && panel < g.wide ? filters : 0;
    result = {read * seen * channels * samples, read * positions * (whole + turned) * samples};
  }
  if (g.item != g.wide) {
    const double weights = wide * static_cast<double>(g.terms) * filters;
    if (map != LCMULTI_KERNEL_GRAD) {
      result.passing += weights;
    } else {
      result.shared += sums_at_once(g, lanes) ? weights : weights * positions;
    }
  }
  return result;
}

}  // namespace

int64_t scratch_bytes(const Geometry &g, int map, const Index &box, int64_t lanes, int64_t panel) {
  return static_cast<int64_t>(std::min(held(g, map, box, lanes, panel).all(), 0x1p62));
}

Grid make_grid(const Geometry &g, int map, int64_t lanes, int64_t panel) {
  Grid grid{};
  grid.axes = static_cast<int>(g.axes);
  std::copy_n(map == LCMULTI_INPUT_GRAD ? g.input : g.output, grid.axes, grid.size.begin());
  grid.box.fill(1);
  // Enough tasks for all threads. If boxes are summed, their number must not depend on the number of threads.
  const bool summed = map == LCMULTI_KERNEL_GRAD && g.any_shared();
  const int64_t all = product(grid.size.data(), grid.axes);
  const double outputs = static_cast<double>(g.batch * g.filters * product(g.output, g.axes));
  const double products = outputs * static_cast<double>(g.terms);
  const int64_t worth = static_cast<int64_t>(std::min(products / kTaskProducts, 1e9));
  const int64_t tasks = summed ? 16 : std::clamp(worth, g.threads, 4 * g.threads);
  const int64_t most = std::max<int64_t>(all / tasks, 1);
  const auto bytes = [&](const Index &size) { return held(g, map, size, lanes, panel); };
  // Processors with a matrix unit for half types have larger caches.
  const int64_t more = panel < g.wide ? 2 : 1;
  const auto passes = [&](const Index &size) {
    return bytes(size).all() <= static_cast<double>(more * kPassingBytes);
  };
  const auto fits = [&](const Index &size) {
    const Held each = bytes(size);
    if (each.shared > static_cast<double>(more * kBoxBytes) || !passes(size)) return false;
    if (g.batch <= lanes) return true;
    const double weights = static_cast<double>(g.weights * g.item) *
                           static_cast<double>(product(size.data(), grid.axes)) / static_cast<double>(all);
    return each.all() + weights <= static_cast<double>(more * kChunkedBytes);
  };
  // If positions along the last axis are adjacent in memory, instead of channels, a box takes many of them: whole
  // rows if possible, even if shared data, or the weights for each chunk, then come from the third-level cache.
  if (g.x_step[1] != 1 || g.dy_step[1] != 1) {
    Index wide = grid.box;
    const int64_t whole = grid.size[g.last()];
    for (int64_t n : {4 * kLineElements, kLineElements, kLineElements / 2, kLineElements / 4}) {
      wide[g.last()] = std::min(n, whole);
      if (grid.box[g.last()] == 1 && wide[g.last()] <= most && passes(wide)) grid.box = wide;
    }
  }
  // Double the box along the axis that saves most transposed data per position, until the cache is full.
  for (;;) {
    int best = -1;
    double least = 0;
    for (int a = grid.axes - 1; a >= 0; --a) {
      if (grid.box[a] == grid.size[a]) continue;
      // Weights that are used once stream better if the parts of a window within a box are longer.
      if (best >= 0 && map == LCMULTI_INPUT_GRAD && g.batch <= kFewSamples) break;
      Index wider = grid.box;
      wider[a] = std::min(2 * wider[a], grid.size[a]);
      const int64_t positions = product(wider.data(), grid.axes);
      if (positions > most || !fits(wider)) continue;
      const double each = bytes(wider).all() / static_cast<double>(positions);
      if (best < 0 || each < least * 0.98) best = a, least = each;
    }
    if (best < 0) break;
    grid.box[best] = std::min(2 * grid.box[best], grid.size[best]);
  }
  grid.count();
  return grid;
}

}  // namespace lcmulti
