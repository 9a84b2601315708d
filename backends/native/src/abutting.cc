// Windows that are adjacent along the last axis (the stride is the length of the window) and have length 1
// along all other axes. With few filters, each input meets so few weights that transposing samples into
// lanes would cost more than the products. So lanes are elements of x in memory order here, one sample
// after the other, and a block of weights stays in the cache.
#include <cstring>

#include "abutting_tiles.h"
#include "in_place.h"
#include "pool.h"
#include "row_blocks.h"
#include "scratch.h"
#include "types.h"

namespace lcmulti::LCMULTI_ISA {
namespace {

// Number of samples at once: as many streams as are prefetched.
constexpr int kSamples = 4;

// Number of elements of a window.
int64_t run_of(const Geometry &g) { return g.kernel[g.last()] * g.channels; }
// Stride of y between positions: filters are adjacent, or each has rows of its own.
int64_t column_of(const Geometry &g) { return g.dy_step[2 + g.last()]; }
// Elements of x after a row's last window.
int64_t beyond_of(const Geometry &g) {
  return (g.input[g.last()] - g.output[g.last()] * g.stride[g.last()]) * g.channels;
}

RowBlocks blocks_of(const Geometry &g) {
  const int outer = beyond_of(g) ? g.last() : axes_of_rows(g, run_of(g), column_of(g));
  const int64_t rows = product(g.output, outer);
  return {g, g.output, outer, kVectorBytes / g.wide / g.filters, run_of(g) * kVectorBytes, rows};
}

// An element may be written twice, with the same sum: instead of a smaller group, the last group of a row
// overlaps the one before it.
template <class D, class A, int RUN, int F>
class Abutting {
  static constexpr int VL = kVectorBytes / sizeof(A);
  using G = Group<D, A, VL, RUN, F>;

 public:
  Abutting(const Geometry &geometry, int map, const void *a, const void *b, void *result)
      : g(geometry), p(blocks_of(g)), map_(map), a_(static_cast<const D *>(a)), b_(static_cast<const D *>(b)),
        result_(static_cast<D *>(result)), streamed_(g.written(map) * g.item > kStreamedBytes), run_(run_of(g)),
        column_(column_of(g)), steps_(std::max<int64_t>(run_ / VL, 1)) {}

  bool run() const {
    return parallel_for(p.tasks, p.threads, g.lender, [this](int64_t task) {
      block(task, reinterpret_cast<A *>(scratch.take(static_cast<size_t>(p.scratch_bytes()))));
      end_streams();
    });
  }

 private:
  const Geometry &g;
  const RowBlocks p;
  const int map_;
  const D *const a_, *const b_;
  D *const result_;
  const bool streamed_;
  const int64_t run_, column_, steps_;

  // Offset of a group's first element.
  struct At {
    int64_t x, y, weights;
  };

  // Calls body(at, weights or their gradients) for each group. A vector of weights has one weight of each
  // position.
  template <class Body>
  void for_groups(int64_t task, A *room, Body &&body) const {
    const int64_t each = p.bytes / static_cast<int64_t>(sizeof(A));
    p.for_rows(task, [&](const RowBlocks::Run &run) {
      const Index row = p.at(run.row);
      const int64_t x = p.offset(row, g.x_step), y = p.offset(row, g.dy_step);
      for (int64_t i = 0; i < run.count; ++i) {
        const int64_t position = std::min((run.first + i) * p.group, p.columns - p.group);
        const At at{x + position * run_, y + position * column_, (run.row * p.columns + position) * run_ * F};
        body(at, room + (run.at + i) * each);
      }
    });
  }

  void block(int64_t task, A *room) const {
    if (map_ == LCMULTI_KERNEL_GRAD) return kernel_grad(task, room);
    for_groups(task, room, [this](const At &at, A *to) { take_apart(b_ + at.weights, to); });
    const int64_t x_step = g.x_step[0], y_step = g.dy_step[0], filter = g.dy_step[1];
    for_samples<kSamples>(g.batch, [&](int64_t n, auto samples) {
      constexpr int kEach = std::min<int>(samples, F);  // outputs for which there are enough registers
      for_groups(task, room, [&](const At &at, const A *weights) {
        const int64_t x = at.x + n * x_step, y = at.y + n * y_step;
        if (map_ == LCMULTI_INPUT_GRAD) {
          return G::template inputs<samples>(a_ + y, y_step, filter, weights, steps_, result_ + x, x_step, streamed_);
        }
        for (int i = 0; i < samples; i += kEach) {
          G::template outputs<kEach>(a_ + x + i * x_step, x_step, weights, steps_, result_ + y + i * y_step, y_step,
                                     filter, streamed_, ahead(n, samples));
        }
      });
    });
    if (map_ == LCMULTI_INPUT_GRAD && beyond_of(g) > 0) clear_beyond(task);
  }

  // Elements of x between one group of samples and the next.
  int64_t ahead(int64_t n, int64_t samples) const {
    return std::min<int64_t>(samples, g.batch - samples - n) * g.x_step[0];
  }

  // Inputs that no window reads.
  void clear_beyond(int64_t task) const {
    p.for_rows(task, [this](const RowBlocks::Run &run) {
      if (run.first + run.count < p.in_row) return;
      D *to = result_ + p.offset(p.at(run.row), g.x_step) + p.columns * run_;
      for (int64_t n = 0; n < g.batch; ++n) std::memset(to + n * g.x_step[0], 0, sizeof(D) * beyond_of(g));
    });
  }

  void kernel_grad(int64_t task, A *room) const {
    std::memset(room, 0, static_cast<size_t>(p.scratch_bytes()));
    for_samples<kSamples>(g.batch, [&](int64_t n, auto samples) {
      for_groups(task, room, [&](const At &at, A *sums) {
        G::template weights<samples>(a_ + at.x + n * g.x_step[0], g.x_step[0], b_ + at.y + n * g.dy_step[0],
                                     g.dy_step[0], g.dy_step[1], steps_, sums, ahead(n, samples));
      });
    });
    for_groups(task, room, [this](const At &at, const A *sums) { put_together(sums, result_ + at.weights); });
  }

  // (x, filter) in memory order <-> one vector for each filter.
  void take_apart(const D *from, A *to) const {
    for (int64_t i = 0; i < run_ * VL; i += F * VL) {
      Vector<A, VL> v[F];
      for (int f = 0; f < F; ++f) v[f] = load_wide<A, VL>(from + i + f * VL);
      deal(v);
      for (int f = 0; f < F; ++f) store(to + i + f * VL, v[f]);
    }
  }
  void put_together(const A *from, D *to) const {
    for (int64_t i = 0; i < run_ * VL; i += F * VL) {
      Vector<A, VL> v[F];
      for (int f = 0; f < F; ++f) v[f] = load<A, VL>(from + i + f * VL);
      collect(v);
      for (int f = 0; f < F; ++f) store_narrow<D, VL, A>(to + i + f * VL, v[f], streamed_);
    }
  }
};

// Windows shorter than a vector need many template instances, which take long to compile. There are none for
// float16 and float64.
template <class D, class A>
constexpr int kShortest = std::is_same_v<D, float> || std::is_same_v<D, bfloat16> ? 2 : kVectorBytes / sizeof(A);

template <class D, class A, int RUN = kShortest<D, A>>
bool with_shape(const Geometry &g, int map, const void *a, const void *b, void *result) {
  constexpr int VL = kVectorBytes / sizeof(A);
  if constexpr (RUN < VL) {
    if (run_of(g) > RUN) return with_shape<D, A, 2 * RUN>(g, map, a, b, result);
  }
  if constexpr (RUN >= 4) {
    if (g.filters == 4) return Abutting<D, A, RUN, 4>(g, map, a, b, result).run();
  }
  if (g.filters == 2) return Abutting<D, A, RUN, 2>(g, map, a, b, result).run();
  return Abutting<D, A, RUN, 1>(g, map, a, b, result).run();
}

}  // namespace

bool abuts(const Geometry &g) {
  const int last = g.last();
  const int64_t lanes = kVectorBytes / g.wide, run = run_of(g);
  bool fits = g.batch > 0 && g.groups == 1 && !g.any_shared() && g.rows_are_runs();
  fits &= g.stride[last] == g.kernel[last] && g.pad[last] == 0 && g.output[last] * g.stride[last] <= g.input[last];
  for (int a = 0; a < last; ++a) fits &= is_pixels(g, a);
  fits &= (run % lanes == 0 || lanes % run == 0) && run * lanes * g.wide <= kBlockBytes;
  fits &= with_types(g, [run](auto d, auto wide) { return run >= kShortest<decltype(d), decltype(wide)>; });
  fits &= (g.filters == 1 || g.filters == 2 || g.filters == 4) && g.filters <= std::min(run, lanes);
  fits = fits && g.output[last] >= lanes / g.filters;
  fits &= (g.x_step[1] == 1 || g.channels == 1) && g.x_step[2 + last] == g.channels;
  // In outputs, each filter may also have rows of its own. (If both strides are 1, as for a window that
  // slides over an array, neighbours are the same elements.)
  const bool one = g.filters == 1, together = g.dy_step[1] == 1;
  fits &= (one || together) ? g.dy_step[2 + last] == g.filters : g.dy_step[2 + last] == 1;
  return fits;
}

int64_t abutting_workspace(const Geometry &g) { return blocks_of(g).scratch_bytes(); }

bool abutting(const Geometry &g, int map, const void *a, const void *b, void *result) {
  return with_types(g, [&](auto d, auto wide) {
    return with_shape<decltype(d), decltype(wide)>(g, map, a, b, result);
  });
}

}  // namespace lcmulti::LCMULTI_ISA
