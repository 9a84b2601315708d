// One call of one of the three maps: the parts that they share.
//
// A task owns a box of the result. It transposes the part of the input that the box needs, so that samples are
// innermost. It goes over the windows in place, and transposes its result back. The box stays in the cache; the
// kernel, or its gradient, is read or written once.
//
// The members of each map are defined in a file of its own: forward.cc, input_grad.cc, kernel_grad.cc.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "layout.h"
#include "pool.h"
#include "rows.h"
#include "scratch.h"
#include "simd/products.h"
#include "simd/smallest.h"
#include "simd/tile_unit.h"
#include "tiles.h"
#include "types.h"
#include "windows.h"

namespace lcmulti::LCMULTI_ISA {

// One call in one data type D, summed in A.
template <class D, class A, int MAP>
class Call {
 public:
  explicit Call(const Geometry &geometry) : g(geometry), grid_(make_grid(g, MAP, most_lanes(), panel())) {}

  static constexpr int kVL = kVectorBytes / sizeof(A);
  // If there are fewer samples than lanes, vectors are shorter; a processor computes more of these in a cycle.
  static constexpr int kShort = std::max<int>(kVL / 2, 16 / sizeof(A));
  static constexpr bool kWidens = !std::is_same_v<D, A>;

  int64_t workspace() const {
    return scratch_bytes(g, MAP, grid_.box, most_lanes(), panel()) + 4096 + (kTiled ? tiled_bytes() : 0);
  }

  bool run(const void *a, const void *b, void *result) {
    a_ = static_cast<const D *>(a);
    b_ = static_cast<const D *>(b);
    result_ = static_cast<D *>(result);
    streamed_ = g.written(MAP) * g.item > kStreamedBytes;
    const double products = static_cast<double>(g.batch * product(g.output, g.axes)) * static_cast<double>(g.terms) *
                            static_cast<double>(g.filters);
    const int64_t threads = products < kSmall ? 1 : g.threads;
    const auto tasks = [&](int64_t count, auto &&task) {
      return parallel_for(count, threads, g.lender, [task](int64_t i) {
        task(i);
        end_streams();
        scratch.trim();
      });
    };
    if constexpr (kTiled && MAP == LCMULTI_FORWARD) {
      return tasks(grid_.tasks, [this](int64_t i) { forward_tiled(grid_.at(i)); });
    } else if constexpr (kTiled) {
      return run_in<Pair>(tasks);
    } else {
      if constexpr (kHasPairs && std::is_same_v<D, bfloat16>) {
        if (pairs()) return run_in<Pair>(tasks);
      }
      return run_in<A>(tasks);
    }
  }

  // Whether `run` lost nothing to products that take small numbers as zero.
  bool is_exact() const { return all_normal(smallest_a_, smallest_b_); }

  // Whether the matrix unit is used: samples and filters must fill a good part of its tiles.
  static bool fills_tiles(const Geometry &g) {
    if (g.batch <= kShort || g.filters_per_group < kFewFilters) return false;
    return MAP == LCMULTI_KERNEL_GRAD || (g.groups == 1 && g.terms * (g.filters + kMostTiled) < kMostWindow);
  }

 private:
  const Geometry &g;
  Grid grid_;
  const D *a_ = nullptr, *b_ = nullptr;
  D *result_ = nullptr;
  bool streamed_ = false;
  SmallestOfCall smallest_a_{0xffff}, smallest_b_{0xffff};  // factors of products of pairs
  // For kernel_grad: boxes of positions with weights of their own, the boxes that share each of these, and the
  // parts into which a window is divided if there would be too few tasks.
  Grid owners_, sharers_;
  int64_t parts_ = 1;

  template <class E, class Tasks>
  bool run_in(Tasks &&tasks) {
    if constexpr (MAP == LCMULTI_FORWARD) {
      return tasks(grid_.tasks, [this](int64_t i) { forward<E>(grid_.at(i)); });
    } else if constexpr (MAP == LCMULTI_INPUT_GRAD) {
      return tasks(grid_.tasks, [this](int64_t i) { input_grad<E>(grid_.at(i)); });
    } else {
      split_kernel();
      return tasks(owners_.tasks * parts_,
                   [this](int64_t i) { kernel_grad<E>(owners_.at(i / parts_), i % parts_); });
    }
  }

  static uintptr_t address(const D *p) { return reinterpret_cast<uintptr_t>(p); }

  // Whether sums may use pairs.
  bool pairs() const {
    if (MAP == LCMULTI_KERNEL_GRAD) return !few_filters() && g.dy_step[1] == 1;
    if (few_samples() || g.groups > 1 || address(a_) % 4 || address(b_) % 4) return false;
    return MAP == LCMULTI_FORWARD ? can_pair(g.channels, g.x_step, g.axes) : can_pair(g.filters, g.dy_step, g.axes);
  }

  // For an instruction set with a matrix unit, a Call always uses it; `compute` passes other calls on.
  static constexpr bool kTiled = kHasTiles && std::is_same_v<D, bfloat16>;
  static constexpr int64_t kMostTiled = 128, kMostWindow = 1 << 20;
  // The number of filters that the input's gradient sums at a time.
  int64_t deep_filters() const {
    return g.filters <= kDeep ? whole_tiles(g.filters, 2) : whole_tiles(g.filters, kDeep);
  }
  int64_t panel() const { return kTiled ? sizeof(D) : sizeof(A); }
  // The scratch that it needs in addition to that of the others.
  int64_t tiled_bytes() const {
    const int64_t lanes = most_lanes();
    if (MAP == LCMULTI_FORWARD) {
      return 2 * (whole_tiles(g.terms, kDeep) + 64) * (lanes + whole_tiles(g.filters));
    }
    const int64_t positions = product(grid_.box.data(), g.axes);
    if (MAP == LCMULTI_KERNEL_GRAD) {
      return 4 * g.terms * g.groups * kTile * (sums_at_once(g, lanes) ? 1 : positions);
    }
    int64_t seers = 1;
    for (int a = 0; a < g.axes; ++a) seers *= most_seers(g, a, grid_.box[a]);
    return 2 * (seers * lanes + g.terms + 1) * deep_filters();
  }

  // Number of samples at once: enough to reuse a weight in a register, but not more than the batch needs.
  int most_lanes() const {
    if (MAP == LCMULTI_INPUT_GRAD && few_samples()) return static_cast<int>(std::max<int64_t>(g.batch, 1));
    if (MAP == LCMULTI_FORWARD && kTiled) return static_cast<int>(std::min(whole_tiles(g.batch), kMostTiled));
    int lanes = least_lanes();
    while (lanes < limit_of_lanes() && lanes < g.batch) lanes *= 2;
    return lanes;
  }

  // Filters are not lanes if they would leave half of a vector's lanes idle.
  static constexpr int kFewFilters = std::min(kVL / 2 + 1, 8);
  bool few_filters() const { return g.filters_per_group < kFewFilters; }
  // Too few samples to be lanes, and enough filters.
  bool few_samples() const {
    return g.batch <= std::min<int64_t>(kFewSamples, kShort) && g.groups == 1 && g.filters % kVL == 0;
  }

  // If samples are summed instead of being lanes: enough of them that sums stay in registers.
  int limit_of_lanes() const { return kTiled || (MAP == LCMULTI_KERNEL_GRAD && !few_filters()) ? 8 * kVL : 4 * kVL; }

  int least_lanes() const { return kTiled ? kVL : kShort; }

  // Calls body(chunk, vector length, vectors) for all samples.
  template <class Body>
  void for_chunks(Body &&body) const {
    for (int64_t first = 0; first < g.batch;) {
      const int64_t left = g.batch - first;
      int lanes = least_lanes();
      while (lanes < limit_of_lanes() && lanes < left) lanes *= 2;
      // A pass must be at least three quarters full; otherwise a smaller pass is made, and then the rest.
      if (lanes > kVL && left < lanes && 4 * left < 3 * lanes) lanes /= 2;
      const Chunk chunk{first, std::min<int64_t>(left, lanes), lanes};
      using std::integral_constant;
      if (lanes >= 4 * kVL) {
        body(chunk, integral_constant<int, kVL>{}, integral_constant<int, 4>{});
      } else if (lanes == 2 * kVL) {
        body(chunk, integral_constant<int, kVL>{}, integral_constant<int, 2>{});
      } else if (lanes == kVL) {
        body(chunk, integral_constant<int, kVL>{}, integral_constant<int, 1>{});
      } else if constexpr (!kTiled) {
        body(chunk, integral_constant<int, kShort>{}, integral_constant<int, 1>{});
      }
      first += chunk.count;
    }
  }

  // The weights of one position in the type of the sums.
  const A *widened(const D *weights, A *room) const {
    if constexpr (kWidens) {
      const int64_t count = g.terms * g.filters;
      int64_t i = 0;
      for (; i + kVL <= count; i += kVL) store(room + i, load_wide<A, kVL>(weights + i));
      for (; i < count; ++i) room[i] = load_first<A, kVL>(weights + i, 1)[0];
      return room;
    } else {
      return weights;
    }
  }

  // The weights of one position as pairs of adjacent rows, (row / 2, filter).
  const Pair *paired(const D *weights, Pair *room) const {
    const auto *bits = reinterpret_cast<const uint16_t *>(weights);
    for (int64_t k = 0; k < g.terms; k += 2, bits += 2 * g.filters, room += g.filters) {
      int64_t f = 0;
      for (; f + kVL <= g.filters; f += kVL) store(room + f, pairs_of<kVL>(bits + f, bits + g.filters + f));
      for (; f < g.filters; ++f) room[f] = bits[f] | static_cast<Pair>(bits[g.filters + f]) << 16;
    }
    return room - g.terms / 2 * g.filters;
  }

  template <class E>
  const E *weights(const D *from, void *room) const {
    if constexpr (std::is_same_v<E, Pair>) {
      return paired(from, static_cast<Pair *>(room));
    } else {
      return widened(from, static_cast<A *>(room));
    }
  }

  // Whether pairs of adjacent channels (filters) may be read as one element.
  static bool can_pair(int64_t channels, const int64_t *step, int64_t axes) {
    bool can = kHasPairs && std::is_same_v<D, bfloat16> && channels % 2 == 0 && step[1] == 1;
    for (int64_t i = 0; i < axes + 2; ++i) can &= i == 1 || step[i] % 2 == 0;
    return can;
  }

  // gather_box of pairs: one element of four bytes in place of two.
  template <int VL>
  void gather_pairs(const D *data, const int64_t *step, const int64_t *size, int64_t channels, const Box &box,
                    const Chunk &chunk, Pair *to) const {
    int64_t halved[kAxes + 2];
    for (int i = 0; i < g.axes + 2; ++i) halved[i] = i == 1 ? 1 : step[i] / 2;
    const Source<Pair> source{reinterpret_cast<const Pair *>(data), halved, size, channels / 2,
                              static_cast<int>(g.axes)};
    gather_box<Pair, VL>(source, box, chunk, to);
  }

  Source<D> inputs() const { return {a_, g.x_step, g.input, g.channels, static_cast<int>(g.axes)}; }
  Source<D> outputs(const D *dy) const { return {dy, g.dy_step, g.output, g.filters, static_cast<int>(g.axes)}; }

  // The results of forward and of the input's gradient.
  Target<D> target() const {
    const bool forward = MAP == LCMULTI_FORWARD;
    return {result_, forward ? g.dy_step : g.x_step, forward ? g.filters : g.channels, static_cast<int>(g.axes)};
  }

  // The weights to prefetch while those at `weights` are used; the same weights after the last ones.
  template <class E>
  const E *next_weights(const E *weights) const {
    if constexpr (kWidens) {
      return weights;
    } else {
      const int64_t at = weights - b_ + g.terms * g.filters;
      return at < g.weights ? weights + g.terms * g.filters : weights;
    }
  }

  template <class E>
  void forward(const Box &box);
  void forward_tiled(const Box &box);
  void forward_rows(const Box &box, const Box &seen, const std::vector<Run> &window_runs, A *x, A *y) const;

  template <class E>
  void input_grad(const Box &box);
  template <int VL>
  void turn_pairs(const Box &seers, const Chunk &chunk, Pair *to, uint16_t *turned) const;
  const uint16_t *deep_weights(const D *stored, uint16_t *room) const;
  void input_rows(const A *dy, const D *w, int64_t rows, A *dx) const;

  void split_kernel();
  template <class E>
  void kernel_grad(const Box &owner, int64_t piece);
  int64_t owned_index(const Box &box, const Box &owned, int64_t at) const;
  template <int FV, class E>
  void vectors_of_filters(const E *x, int64_t length, int64_t lanes, int64_t samples, const E *dy, int64_t pitch,
                          A *to, int64_t tail, Leave leave) const;
  template <class E>
  void many_filters(const E *x, int64_t length, int64_t lanes, int64_t samples, const E *dy, int64_t pitch, A *to,
                    Leave leave) const;
  template <int VL, int NV>
  void sums_over_samples(const A *x, int64_t length, const A *dy, int64_t dy_step, A *to, int64_t to_step,
                         Leave leave) const;
};

}  // namespace lcmulti::LCMULTI_ISA
