// Windows that abut along the last axis and hold one position of each other: a stride as long as
// the window, weights for each pixel. With few filters every input meets so few weights that to turn
// samples into lanes would cost more than the products do. So here lanes are elements of x as they
// lie in memory, which is gone through sample by sample, and a block of weights stays in the cache.
#include "abutting_tiles.h"
#include "maps.h"
#include "row_blocks.h"

namespace lcmulti::LCMULTI_ISA {
namespace {

// Samples at once: as many streams are fetched ahead.
constexpr int kSamples = 4;

// Elements of a window.
int64_t run_of(const Geometry &g) { return g.kernel[g.last()] * g.channels; }

RowBlocks blocks_of(const Geometry &g) {
  // Filters are neighbours, or have rows of their own.
  return {g, run_of(g), g.dy_step[2 + g.last()], kVectorBytes / g.wide / g.filters, run_of(g) * kVectorBytes};
}

template <class D, class A, int RUN, int F>
class Abutting : InBlocks<D, A> {
  using Base = InBlocks<D, A>;
  using Base::a_, Base::b_, Base::clear, Base::g, Base::map_, Base::p, Base::result_, Base::VL;
  using G = Group<D, A, VL, RUN, F>;

 public:

  Abutting(const Geometry &geometry, int map, const void *a, const void *b, void *result)
      : Base(geometry, blocks_of(geometry), map, a, b, result), streamed_(g.written(map) * g.item > kStreamedBytes),
        steps_(std::max<int64_t>(p.run / VL, 1)) {}

  bool run() const {
    return Base::run_blocks([this](const RowBlocks::Block &each, auto &&for_groups) { block(each, for_groups); });
  }

 private:
  const bool streamed_;
  const int64_t steps_;

  template <class Groups>
  void block(const RowBlocks::Block &block, Groups &&for_groups) const {
    const int64_t x = block.x, y = block.y, count = block.count, w = block.position * p.run * F;
    if (map_ == LCMULTI_KERNEL_GRAD) return kernel_grad(a_ + x, b_ + y, result_ + w, for_groups);
    for_groups([&](int64_t position, A *to) { take_apart(b_ + w + position * p.run * F, to); });
    const int64_t x_step = g.x_step[0], y_step = g.dy_step[0], filter = g.dy_step[1];
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
          G::template outputs<kEach>(a_ + x_at + i * x_step, x_step, weights, steps_, result_ + y_at + i * y_step,
                                     y_step, filter, streamed_, ahead);
        }
      });
    });
    if (!block.last || map_ == LCMULTI_FORWARD) return;
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
        body(n, samples, std::min<int64_t>(samples, g.batch - samples - n) * g.x_step[0]);
      }
    };
    take(std::integral_constant<int, kSamples>{});
    take(std::integral_constant<int, 1>{});
  }

  template <class Groups>
  void kernel_grad(const D *x, const D *dy, D *to, Groups &&for_groups) const {
    clear(for_groups);
    for_samples([&](int64_t n, auto samples, int64_t ahead) {
      for_groups([&](int64_t position, A *sums) {
        G::template weights<samples>(x + n * g.x_step[0] + position * p.run, g.x_step[0],
                                     dy + n * g.dy_step[0] + position * p.column, g.dy_step[0], g.dy_step[1], steps_,
                                     sums, ahead);
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

// Windows shorter than a vector are many programs, and take a compiler long: float16 and float64 do without.
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
  // Of outputs each filter may also have rows of its own. (With steps of 1 for both, as of a window
  // that slides over an array, neighbours are the same elements.)
  const bool one = g.filters == 1, together = g.dy_step[1] == 1;
  fits &= (one || together) ? g.dy_step[2 + last] == g.filters : g.dy_step[2 + last] == 1;
  return fits;
}

int64_t abutting_workspace(const Geometry &g) { return blocks_of(g).workspace(); }

bool abutting(const Geometry &g, int map, const void *a, const void *b, void *result) {
  return with_types(g, [&](auto d, auto wide) {
    return with_shape<decltype(d), decltype(wide)>(g, map, a, b, result);
  });
}

}  // namespace lcmulti::LCMULTI_ISA
