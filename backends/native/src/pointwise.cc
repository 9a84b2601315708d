// Windows of a single position, in arrays whose neighbours are positions: channels come first, each
// pixel has weights of its own. Lanes are positions: neither input nor output is turned, only the
// weights, which then stay in the cache while all samples pass.
#include "maps.h"
#include "row_blocks.h"

namespace lcmulti::LCMULTI_ISA {
namespace {

// Weights of a position: with more of them, to turn input and output costs less than to fetch each weight
// for every sample.
constexpr int64_t kMostWeights = 32;
constexpr int kTogether = 4;  // outputs for which a vector is fetched once

RowBlocks blocks_of(const Geometry &g) {
  return {g, 1, 1, kVectorBytes / g.wide, g.terms * g.filters * kVectorBytes};
}

template <class D, class A>
class Pointwise : InBlocks<D, A> {
  using Base = InBlocks<D, A>;
  using Base::a_, Base::b_, Base::clear, Base::g, Base::map_, Base::p, Base::result_, Base::VL;
  using typename Base::V;

 public:
  Pointwise(const Geometry &geometry, int map, const void *a, const void *b, void *result)
      : Base(geometry, blocks_of(geometry), map, a, b, result), each_(g.terms * g.filters) {}

  bool run() const {
    return Base::run_blocks([this](const RowBlocks::Block &each, auto &&for_groups) { block(each, for_groups); });
  }

 private:
  const int64_t each_;  // weights of a position

  // By a position's channels, its filters, and (channel, filter) as the kernel has them.
  struct Group {
    int64_t channels, filters, weights;
  };
  Group of_group(int64_t i) const {
    const int64_t filter = i * g.filters_per_group;
    return {i * g.channels_per_group * g.x_step[1], filter * g.dy_step[1], filter * VL};
  }

  template <class Groups>
  void block(const RowBlocks::Block &block, Groups &&for_groups) const {
    const int64_t w = block.position * each_;
    if (map_ == LCMULTI_KERNEL_GRAD) return kernel_grad(block, result_ + w, for_groups);
    for_groups([&](int64_t position, A *to) {
      gather<A, VL>(b_ + w + position * each_, each_, 1, each_, VL, to, VL, VL);
    });
    for (int64_t n = 0; n < g.batch; ++n) {
      const int64_t x = block.x + n * g.x_step[0], y = block.y + n * g.dy_step[0];
      for (int64_t i = 0; i < g.groups; ++i) {
        const Group at = of_group(i);
        for_groups([&](int64_t position, const A *weights) {
          const int64_t xs = x + at.channels + position, ys = y + at.filters + position;
          if (map_ == LCMULTI_FORWARD) {
            write_sums({a_ + xs, g.x_step[1], g.channels_per_group, g.filters * VL},
                       {result_ + ys, g.dy_step[1], g.filters_per_group, VL}, weights + at.weights);
          } else {
            write_sums({a_ + ys, g.dy_step[1], g.filters_per_group, VL},
                       {result_ + xs, g.x_step[1], g.channels_per_group, g.filters * VL}, weights + at.weights);
          }
        });
      }
    }
  }

  // Rows, `step` apart, whose weights are `weights` apart.
  template <class E>
  struct Rows {
    E *data;
    int64_t step, count, weights;
  };

  // to[i] = sum over j of from[j] * weights[i, j], for one vector of positions.
  static void write_sums(const Rows<const D> &from, const Rows<D> &to, const A *weights) {
    int64_t i = 0;
    const auto take = [&](auto together) {
      constexpr int kRows = together;
      for (; i + kRows <= to.count; i += kRows) {
        V sum[kRows] = {};
        const A *w = weights + i * to.weights;
        for (int64_t j = 0; j < from.count; ++j, w += from.weights) {
          const V each = load_wide<A, VL>(from.data + j * from.step);
#pragma GCC unroll 4
          for (int r = 0; r < kRows; ++r) sum[r] = multiply_add(sum[r], each, load<A, VL>(w + r * to.weights));
        }
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) store_narrow<D, VL, A>(to.data + (i + r) * to.step, sum[r], false);
      }
    };
    take(std::integral_constant<int, kTogether>{});
    take(std::integral_constant<int, 2>{});
    take(std::integral_constant<int, 1>{});
  }

  template <class Groups>
  void kernel_grad(const RowBlocks::Block &block, D *to, Groups &&for_groups) const {
    clear(for_groups);
    for (int64_t n = 0; n < g.batch; ++n) {
      const D *x = a_ + block.x + n * g.x_step[0], *dy = b_ + block.y + n * g.dy_step[0];
      for (int64_t i = 0; i < g.groups; ++i) {
        const Group at = of_group(i);
        for_groups([&](int64_t position, A *sums) {
          add_products(x + at.channels + position, dy + at.filters + position, sums + at.weights);
        });
      }
    }
    for_groups([&](int64_t position, const A *sums) {
      scatter<A, VL>(sums, VL, each_, VL, to + position * each_, each_, false);
    });
  }

  // sums[c, f] += x[c] * dy[f], for one vector of positions of one sample.
  void add_products(const D *x, const D *dy, A *sums) const {
    for (int64_t c = 0; c < g.channels_per_group; ++c, x += g.x_step[1], sums += g.filters * VL) {
      const V each = load_wide<A, VL>(x);
      for (int64_t f = 0; f < g.filters_per_group; ++f) {
        store(sums + f * VL, multiply_add(load<A, VL>(sums + f * VL), each, load_wide<A, VL>(dy + f * g.dy_step[1])));
      }
    }
  }
};

}  // namespace

bool is_pointwise(const Geometry &g) {
  const int last = g.last();
  const int64_t lanes = kVectorBytes / g.wide;
  bool is = g.batch > 0 && !g.any_shared() && g.terms * g.filters <= kMostWeights;
  // The weights of few samples are not worth turning where filters fill a vector as they lie.
  is &= g.batch > kFewSamples || g.filters % lanes != 0;
  for (int a = 0; a < g.axes; ++a) is &= is_pixels(g, a);
  is = is && g.x_step[2 + last] == 1 && g.dy_step[2 + last] == 1;
  return is && blocks_of(g).positions >= lanes;
}

int64_t pointwise_workspace(const Geometry &g) { return blocks_of(g).workspace(); }

bool pointwise(const Geometry &g, int map, const void *a, const void *b, void *result) {
  return with_types(g, [&](auto d, auto wide) {
    return Pointwise<decltype(d), decltype(wide)>(g, map, a, b, result).run();
  });
}

}  // namespace lcmulti::LCMULTI_ISA
