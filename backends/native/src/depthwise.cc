// Depthwise layers: each channel has one filter of its own. Lanes are channels, so weights are used as they lie in
// memory, and no sum crosses lanes. A task owns a box of positions of a vector of channels. It copies what the box
// reads, a few samples at a time, as (position, sample, channel), with zeros for padding.
#include <algorithm>
#include <cstring>
#include <vector>

#include "in_place.h"
#include "pool.h"
#include "row_blocks.h"
#include "rows.h"
#include "scratch.h"
#include "types.h"
#include "windows.h"

namespace lcmulti::LCMULTI_ISA {
namespace {

constexpr int kTogether = 4;  // samples that use a vector of weights

// Positions of a box in the input, or beyond it, and in the output.
struct Sides {
  double x, y;
};

Sides sides(const Geometry &g, int map, const Index &box) {
  Sides result{1, 1};
  for (int a = 0; a < g.axes; ++a) {
    const bool back = map == LCMULTI_INPUT_GRAD;
    const int64_t x = back ? box[a] + 2 * (g.extent[a] - 1) : (box[a] - 1) * g.stride[a] + g.extent[a];
    result.x *= static_cast<double>(x);
    result.y *= static_cast<double>(back ? most_seers(g, a, box[a]) : box[a]);
  }
  return result;
}

struct Plan {
  Grid grid{};
  int64_t channels, blocks;  // channels of a task, and tasks for each box
  double bytes;              // of a task's scratch

  Plan(const Geometry &g, int map) {
    // Where channels are adjacent, a vector of them is a line of the cache, and processors fetch lines in pairs.
    channels = (g.x_step[1] == 1 ? 2 : 1) * kVectorBytes / g.wide;
    blocks = (g.channels + channels - 1) / channels;
    grid.axes = static_cast<int>(g.axes);
    std::copy_n(map == LCMULTI_INPUT_GRAD ? g.input : g.output, grid.axes, grid.size.begin());
    grid.box = grid.size;
    for (;;) {
      count(g, map);
      const auto widest = std::max_element(grid.box.begin(), grid.box.begin() + grid.axes);
      if (*widest == 1 || (bytes <= kBoxBytes && grid.tasks * blocks >= 4 * g.threads)) return;
      *widest = (*widest + 1) / 2;
    }
  }

 private:
  void count(const Geometry &g, int map) {
    grid.count();
    const auto [x, y] = sides(g, map, grid.box);
    const double sums = map == LCMULTI_KERNEL_GRAD ? y * static_cast<double>(g.terms) : 0;
    bytes = kVectorBytes * (kTogether * (x + y) + sums) + 4 * 64;
  }
};

// The part of a box that lies within an array.
Box within(const Box &box, const int64_t *size) {
  Box result = box;
  for (int a = 0; a < kAxes; ++a) {
    result.lo[a] = std::max<int64_t>(box.lo[a], 0);
    result.n[a] = std::max<int64_t>(std::min(box.lo[a] + box.n[a], size[a]) - result.lo[a], 0);
  }
  return result;
}

// Some channels of a part of a box of an array. It consists of runs, of which all are alike: rows along the last
// axis, or several of them where they are adjacent in memory.
struct Part {
  const int64_t *step;
  int64_t channel, count;
  Box box, part;
  int axes, outer;              // axes, and those that count runs
  std::vector<int64_t> places;  // of a run's elements in the box, as a position

  Part(const int64_t *steps, int64_t first, int64_t channels, const Box &all, const Box &some, int64_t how_many)
      : step(steps), channel(first), count(channels), box(all), part(some), axes(static_cast<int>(how_many)),
        outer(axes - 1) {
    for (int64_t length = part.n[outer]; outer > 0 && step[1 + outer] == length * column(); length *= part.n[outer]) {
      --outer;
    }
    for (Odometer o(part.n.data() + outer, axes - outer); !o.done; o.next()) {
      int64_t place = 0;
      for (int a = outer; a < axes; ++a) place = place * box.n[a] + part.lo[a] - box.lo[a] + o.at[a - outer];
      places.push_back(place);
    }
  }

  int64_t column() const { return step[1 + axes]; }
  int64_t length() const { return static_cast<int64_t>(places.size()); }

  // Calls body(offset in the array, position in the box) for each run.
  template <class Body>
  void for_runs(Body &&body) const {
    if (places.empty()) return;
    for (Odometer o(part.n.data(), outer); !o.done; o.next()) {
      int64_t offset = channel * step[1], start = 0;
      for (int a = 0; a < axes; ++a) {
        const int64_t at = a < outer ? o.at[a] : 0;
        offset += (part.lo[a] + at) * step[2 + a];
        start = start * box.n[a] + (a < outer ? part.lo[a] - box.lo[a] + at : 0);
      }
      body(offset, start);
    }
  }
};

template <class D, class A>
class Depthwise {
  static constexpr int VL = kVectorBytes / sizeof(A);
  using V = Vector<A, VL>;

 public:
  Depthwise(const Geometry &geometry, int map, const void *a, const void *b, void *result)
      : g(geometry), one_(geometry), plan_(geometry, map), map_(map), a_(static_cast<const D *>(a)),
        b_(static_cast<const D *>(b)), result_(static_cast<D *>(result)) {
    one_.channels = 1;
  }

  bool run() const {
    const double products = static_cast<double>(g.batch) * static_cast<double>(g.weights);
    const int64_t tasks = plan_.grid.tasks * plan_.blocks, threads = products < kSmall ? 1 : g.threads;
    return parallel_for(tasks, threads, g.lender, [this](int64_t task) {
      const Box box = plan_.grid.at(task / plan_.blocks);
      const int64_t first = task % plan_.blocks * plan_.channels, end = std::min(first + plan_.channels, g.channels);
      for (int64_t channel = first; channel < end; channel += VL) block(box, channel);
    });
  }

 private:
  const Geometry &g;
  Geometry one_;  // seen from a lane: one channel
  const Plan plan_;
  const int map_;
  const D *const a_, *const b_;
  D *const result_;

  void block(const Box &box, int64_t channel) const {
    const bool back = map_ == LCMULTI_INPUT_GRAD;
    const Box outputs = back ? seers_of(g, box) : box;
    Box seen = seen_by(g, outputs);
    if (back) cover(box, seen);
    const int64_t inputs = product(seen.n.data(), one_.axes), positions = product(outputs.n.data(), one_.axes);
    const int64_t summed = map_ == LCMULTI_KERNEL_GRAD ? positions * g.terms * VL : 0;
    const int64_t count = std::min<int64_t>(VL, g.channels - channel);
    char *memory = scratch.take(static_cast<size_t>(plan_.bytes));
    A *const xs = part<A>(memory, kTogether * inputs * VL), *const ys = part<A>(memory, kTogether * positions * VL);
    A *const sums = part<A>(memory, summed);
    std::memset(sums, 0, sizeof(A) * summed);
    const std::vector<Run> taps = runs(one_, seen.n);
    int64_t origin = 0;  // of the first window in x
    for (int a = 0; a < g.axes; ++a) {
      origin = origin * seen.n[a] + outputs.lo[a] * g.stride[a] - g.pad[a] - seen.lo[a];
    }
    // The input's gradient is written where the task owns it alone.
    const Part x(g.x_step, channel, count, seen, back ? box : within(seen, g.input), g.axes);
    const Part y(g.dy_step, channel, count, outputs, outputs, g.axes);
    for_samples<kTogether>(g.batch, [&](int64_t first, auto samples) {
      constexpr int N = samples, kPitch = N * VL;
      // Zeros of padding stay until fewer samples are taken at a time.
      if (back || first == 0 || N == 1) std::memset(xs, 0, sizeof(A) * inputs * kPitch);
      if (!back) take<N>(a_, x, first, xs);
      if (map_ != LCMULTI_FORWARD) take<N>(back ? a_ : b_, y, first, ys);
      A *above = ys, *sum = sums;
      for_positions(one_, outputs, seen.n, [&](int64_t weights, int64_t start) {
        A *const in = xs + (origin + start) * kPitch;
        if (map_ == LCMULTI_FORWARD) {
          forward<N>(taps, in, b_ + weights + channel, count, above);
        } else if (back) {
          input_grad<N>(taps, above, b_ + weights + channel, count, in);
        } else {
          kernel_grad<N>(taps, in, above, sum);
        }
        above += kPitch, sum += g.terms * VL;
      });
      if (map_ == LCMULTI_FORWARD) give<N>(ys, y, first);
      if (back) give<N>(xs, x, first);
    });
    if (map_ != LCMULTI_KERNEL_GRAD) return;
    const A *sum = sums;
    for_positions(one_, outputs, seen.n, [&](int64_t weights, int64_t) {
      D *to = result_ + weights + channel;
      for (int64_t t = 0; t < g.terms; ++t, sum += VL, to += g.filters) write_row<A, VL>(sum, count, to);
    });
  }

  // Makes `seen` cover `box`, which may have inputs that no window reads.
  void cover(const Box &box, Box &seen) const {
    for (int a = 0; a < g.axes; ++a) {
      const int64_t lo = std::min(box.lo[a], seen.lo[a]);
      seen.n[a] = std::max(box.lo[a] + box.n[a], seen.lo[a] + seen.n[a]) - lo;
      seen.lo[a] = lo;
    }
  }

  static V weights(const D *from, int64_t count) {
    return count == VL ? load_wide<A, VL>(from) : load_first<A, VL>(from, count);
  }

  template <int N>
  LCMULTI_INLINE void forward(const std::vector<Run> &taps, const A *x, const D *w, int64_t count, A *y) const {
    V sum[N] = {};
    for (const Run &tap : taps) {
      const V each = weights(w + tap.weights * g.filters, count);
      const A *from = x + tap.input * (N * VL);
      for (int n = 0; n < N; ++n) sum[n] += each * load<A, VL>(from + n * VL);
    }
    for (int n = 0; n < N; ++n) store(y + n * VL, sum[n]);
  }

  template <int N>
  LCMULTI_INLINE void input_grad(const std::vector<Run> &taps, const A *dy, const D *w, int64_t count, A *dx) const {
    V above[N];
    for (int n = 0; n < N; ++n) above[n] = load<A, VL>(dy + n * VL);
    for (const Run &tap : taps) {
      const V each = weights(w + tap.weights * g.filters, count);
      A *to = dx + tap.input * (N * VL);
      for (int n = 0; n < N; ++n) store(to + n * VL, load<A, VL>(to + n * VL) + each * above[n]);
    }
  }

  template <int N>
  LCMULTI_INLINE void kernel_grad(const std::vector<Run> &taps, const A *x, const A *dy, A *sums) const {
    V above[N];
    for (int n = 0; n < N; ++n) above[n] = load<A, VL>(dy + n * VL);
    for (const Run &tap : taps) {
      const A *from = x + tap.input * (N * VL);
      V sum = load<A, VL>(sums);
      for (int n = 0; n < N; ++n) sum += above[n] * load<A, VL>(from + n * VL);
      store(sums, sum);
      sums += VL;
    }
  }

  // Copies N samples of a part, (position, sample, channel).
  template <int N>
  void take(const D *from, const Part &part, int64_t first, A *to) const {
    const int64_t *step = part.step, ahead = kAhead / sizeof(D);
    part.for_runs([&](int64_t offset, int64_t start) {
      for (int n = 0; n < N; ++n) {
        const auto place = [&](int64_t j) { return to + ((start + part.places[j]) * N + n) * VL; };
        gather_at<A, VL>(from + offset + (first + n) * step[0], step[1], part.column(), part.length(), part.count, VL,
                         ahead, place);
      }
    });
  }

  template <int N>
  void give(const A *from, const Part &part, int64_t first) const {
    const int64_t *step = part.step, column = part.column(), length = part.length();
    part.for_runs([&](int64_t offset, int64_t start) {
      for (int n = 0; n < N; ++n) {
        D *to = result_ + offset + (first + n) * step[0];
        const auto place = [&](int64_t j) { return from + ((start + part.places[j]) * N + n) * VL; };
        if (column == 1) {
          scatter_from<A, VL>(length, part.count, to, step[1], false, 0, place);
        } else if (step[1] == 1) {
          for (int64_t j = 0; j < length; ++j) write_row<A, VL>(place(j), part.count, to + j * column);
        } else {
          for (int64_t j = 0; j < length; ++j) {
            scatter<A, VL>(place(j), 0, 1, part.count, to + j * column, step[1], false);
          }
        }
      }
    });
  }
};

}  // namespace

bool is_depthwise(const Geometry &g, int map) {
  const int64_t least = std::max<int64_t>(kVectorBytes / g.wide / 2, 2);  // with fewer, most lanes would be idle
  const bool does = g.channels == g.groups && g.filters == g.groups && g.groups >= least && g.batch > 0;
  return does && !g.any_shared() && Plan(g, map).bytes <= static_cast<double>(kMostBytes / 2);
}

int64_t depthwise_workspace(const Geometry &g, int map) { return static_cast<int64_t>(Plan(g, map).bytes); }

bool depthwise(const Geometry &g, int map, const void *a, const void *b, void *result) {
  return with_types(g, [&](auto d, auto wide) {
    return Depthwise<decltype(d), decltype(wide)>(g, map, a, b, result).run();
  });
}

}  // namespace lcmulti::LCMULTI_ISA
