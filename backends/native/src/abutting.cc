// Windows that abut along the last axis and hold one position of each other: a stride as long as
// the window, weights for each pixel. With few filters every input meets so few weights that to turn
// samples into lanes would cost more than the products do. So here lanes are elements of x as they
// lie in memory, which is gone through sample by sample, and a block of weights stays in the cache.
#include "abutting_tiles.h"
#include "maps.h"

namespace lcmulti::LCMULTI_ISA {
namespace {

// Weights of a block: with the inputs of some samples they stay in the second-level cache.
constexpr int64_t kBlockBytes = 64 << 10;
// Samples at once: as many streams are fetched ahead.
constexpr int kSamples = 4;

// Distances between neighbours in an array, in elements.
struct Layout {
  int64_t sample;
  Index axis;
};

Layout layout(const int64_t *step, int64_t axes) {
  Layout result{step[0], {}};
  std::copy_n(step + 2, axes, result.axis.begin());
  return result;
}

// How a call is cut up. What is written may be written twice, with the same sums: the last group of
// a block overlaps the one before it rather than be a smaller one.
struct Plan {
  Layout x, y;
  int64_t run, lanes, group;  // elements of a window, of a vector; positions of a group
  int64_t column;             // elements of y from one position to the next: its filters, or 1 where they are apart
  int64_t positions, beyond;  // of a row, and elements of x after its last window
  int64_t groups, blocks;     // of a row
  int64_t rows, tasks;
  int outer;                  // axes that count rows

  explicit Plan(const Geometry &g) {
    const int last = g.last();
    x = layout(g.x_step, g.axes);
    y = layout(g.dy_step, g.axes);
    column = y.axis[last];
    run = g.kernel[last] * g.channels;
    lanes = kVectorBytes / g.wide;
    group = lanes / g.filters;
    positions = g.output[last];
    beyond = g.input[last] * g.channels - positions * run;
    // Rows that lie one after the other are one.
    for (outer = last; outer > 0 && beyond == 0; positions *= g.output[--outer]) {
      if (x.axis[outer - 1] != positions * run || y.axis[outer - 1] != positions * column) break;
    }
    groups = positions / group;
    blocks = (groups + most_groups(g) - 1) / most_groups(g);
    rows = product(g.output, outer);
    tasks = rows * blocks;
  }

  int64_t most_groups(const Geometry &g) const { return std::max<int64_t>(kBlockBytes / (run * lanes * g.wide), 1); }
  // The last of a row may have a group more.
  int64_t scratch(const Geometry &g) const { return (most_groups(g) + 1) * run * lanes * g.wide + 64; }
};

template <class D, class A, int RUN, int F>
class Abutting {
 public:
  static constexpr int VL = kVectorBytes / sizeof(A);
  using G = Group<D, A, VL, RUN, F>;

  Abutting(const Geometry &geometry, int map, const void *a, const void *b, void *result)
      : g(geometry), p(geometry), map_(map), a_(static_cast<const D *>(a)), b_(static_cast<const D *>(b)),
        result_(static_cast<D *>(result)), streamed_(g.written(map) * g.item > kStreamedBytes),
        steps_(std::max<int64_t>(p.run / VL, 1)) {}

  bool run() const {
    const double products = static_cast<double>(g.batch) * static_cast<double>(g.weights);
    return parallel_for(p.tasks, products < kSmall ? 1 : g.threads, g.lender, [this](int64_t i) {
      block(i);
      end_streams();
    });
  }

 private:
  const Geometry &g;
  const Plan p;
  const int map_;
  const D *a_, *b_;
  D *result_;
  const bool streamed_;
  const int64_t steps_;

  void block(int64_t i) const {
    const int64_t row = i / p.blocks, number = i % p.blocks;
    const int64_t lo = p.groups * number / p.blocks * p.group;
    const bool is_last = number + 1 == p.blocks;
    const int64_t count = (is_last ? p.positions : p.groups * (number + 1) / p.blocks * p.group) - lo;
    int64_t x = lo * p.run, y = lo * p.column, left = row;
    for (int a = p.outer - 1; a >= 0; --a) {
      x += left % g.output[a] * p.x.axis[a];
      y += left % g.output[a] * p.y.axis[a];
      left /= g.output[a];
    }
    const int64_t w = (row * p.positions + lo) * p.run * F;
    A *const room = reinterpret_cast<A *>(scratch.take(static_cast<size_t>(p.scratch(g))));
    // body(position, weights of the group in `room`)
    const auto for_groups = [&](auto &&body) {
      A *at = room;
      for (int64_t first = 0; first < count; first += p.group, at += p.run * VL) {
        body(std::min(first, count - p.group), at);
      }
    };
    if (map_ == LCMULTI_KERNEL_GRAD) return kernel_grad(a_ + x, b_ + y, result_ + w, for_groups);
    for_groups([&](int64_t position, A *to) { take_apart(b_ + w + position * p.run * F, to); });
    const int64_t x_step = p.x.sample, y_step = p.y.sample, filter = g.dy_step[1];
    for_samples([&](int64_t n, auto samples, int64_t ahead) {
      constexpr int kEach = std::min<int>(samples, F);  // of outputs, for which registers suffice
      const int64_t xs = x + n * x_step, ys = y + n * y_step;
      for_groups([&](int64_t position, const A *weights) {
        const int64_t x_at = xs + position * p.run, y_at = ys + position * p.column;
        if (map_ == LCMULTI_INPUT_GRAD) {
          return G::template inputs<samples>(a_ + y_at, y_step, filter, weights, steps_, result_ + x_at, x_step,
                                              streamed_);
        }
        for (int i = 0; i < samples; i += kEach) {
          G::template outputs<kEach>(a_ + x_at + i * x_step, x_step, weights, steps_, result_ + y_at + i * y_step, y_step,
                                     filter, streamed_, ahead);
        }
      });
    });
    if (!is_last || map_ == LCMULTI_FORWARD) return;
    for (int64_t n = 0; n < g.batch; ++n) {
      std::memset(result_ + x + n * x_step + count * p.run, 0, sizeof(D) * p.beyond);
    }
  }

  // body(first, how many, elements of x to those after them), for all samples
  template <class Body>
  void for_samples(Body &&body) const {
    int64_t n = 0;
    const auto take = [&](auto samples) {
      for (; n + samples <= g.batch; n += samples) {
        body(n, samples, std::min<int64_t>(samples, g.batch - samples - n) * p.x.sample);
      }
    };
    take(std::integral_constant<int, kSamples>{});
    take(std::integral_constant<int, 1>{});
  }

  template <class Groups>
  void kernel_grad(const D *x, const D *dy, D *to, Groups &&for_groups) const {
    for_groups([&](int64_t, A *sums) { std::memset(sums, 0, sizeof(A) * p.run * VL); });
    for_samples([&](int64_t n, auto samples, int64_t ahead) {
      for_groups([&](int64_t position, A *sums) {
        G::template weights<samples>(x + n * p.x.sample + position * p.run, p.x.sample,
                                     dy + n * p.y.sample + position * p.column, p.y.sample, g.dy_step[1], steps_, sums,
                                     ahead);
      });
    });
    for_groups([&](int64_t position, const A *sums) { put_together(sums, to + position * p.run * F); });
  }

  // (x, filter) as it lies in memory <-> a vector for each filter in turn.
  void take_apart(const D *from, A *to) const {
    for (int64_t i = 0; i < p.run * VL; i += F * VL) {
      Vector<A, VL> v[F];
      for (int f = 0; f < F; ++f) v[f] = load_wide<A, VL>(from + i + f * VL);
      deal(v);
      for (int f = 0; f < F; ++f) store(to + i + f * VL, v[f]);
    }
  }
  void put_together(const A *from, D *to) const {
    for (int64_t i = 0; i < p.run * VL; i += F * VL) {
      Vector<A, VL> v[F];
      for (int f = 0; f < F; ++f) v[f] = load<A, VL>(from + i + f * VL);
      collect(v);
      for (int f = 0; f < F; ++f) store_narrow<D, VL, A>(to + i + f * VL, v[f], streamed_);
    }
  }
};

template <class D, class A, int RUN = 1>
bool with_shape(const Geometry &g, int map, const void *a, const void *b, void *result) {
  constexpr int VL = kVectorBytes / sizeof(A);
  const int64_t run = g.kernel[g.last()] * g.channels;
  if constexpr (RUN < VL) {
    if (run > RUN) return with_shape<D, A, 2 * RUN>(g, map, a, b, result);
  }
  if constexpr (RUN >= 4) {
    if (g.filters == 4) return Abutting<D, A, RUN, 4>(g, map, a, b, result).run();
  }
  if constexpr (RUN >= 2) {
    if (g.filters == 2) return Abutting<D, A, RUN, 2>(g, map, a, b, result).run();
  }
  return Abutting<D, A, RUN, 1>(g, map, a, b, result).run();
}

}  // namespace

bool abuts(const Geometry &g) {
  const int last = g.last();
  const int64_t lanes = kVectorBytes / g.wide, run = g.kernel[last] * g.channels;
  bool fits = g.batch > 0 && g.groups == 1 && !g.any_shared() && g.rows_are_runs();
  fits &= g.stride[last] == g.kernel[last] && g.pad[last] == 0 && g.output[last] * g.stride[last] <= g.input[last];
  for (int a = 0; a < last; ++a) {
    fits &= g.kernel[a] == 1 && g.stride[a] == 1 && g.pad[a] == 0 && g.output[a] == g.input[a];
  }
  fits &= (run % lanes == 0 || lanes % run == 0) && run * lanes * g.wide <= kBlockBytes;
  fits &= (g.filters == 1 || g.filters == 2 || g.filters == 4) && g.filters <= std::min(run, lanes);
  fits = fits && g.output[last] >= lanes / g.filters;
  fits &= (g.x_step[1] == 1 || g.channels == 1) && g.x_step[2 + last] == g.channels;
  // Of outputs each filter may also have rows of its own. (With steps of 1 for both, as of a window
  // that slides over an array, neighbours are the same elements.)
  const bool one = g.filters == 1, together = g.dy_step[1] == 1;
  fits &= (one || together) ? g.dy_step[2 + last] == g.filters : g.dy_step[2 + last] == 1;
  return fits;
}

int64_t abutting_workspace(const Geometry &g) { return Plan(g).scratch(g); }

bool abutting(const Geometry &g, int map, const void *a, const void *b, void *result) {
  return with_types(g, [&](auto d, auto wide) {
    return with_shape<decltype(d), decltype(wide)>(g, map, a, b, result);
  });
}

}  // namespace lcmulti::LCMULTI_ISA
