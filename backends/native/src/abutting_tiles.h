// The innermost loops for adjacent windows; see abutting.cc.
#pragma once

#include "simd/halves.h"
#include "simd/products.h"
#include "simd/shuffles.h"

namespace lcmulti::LCMULTI_ISA {

// A window is `run` elements of x. A group has the inputs of one vector of outputs: kUnits * steps vectors of
// x. Either these are whole windows of RUN lanes (steps is 1), or each window takes `steps` vectors.
// Here outputs are (position, filter).
template <class D, class A, int VL, int RUN, int F>
struct Group {
  using V = Vector<A, VL>;
  static constexpr int kUnits = RUN / F, kPositions = VL / F;

  // Transposes (first, second) to (second, first), where `second` has N values.
  template <int N, int... I>
  static LCMULTI_INLINE V turned(V v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, (I % (VL / N) * N + I / (VL / N))...);
  }

  // y or dy. Either filters are adjacent, or they are `filter` elements apart and positions are adjacent.
  static LCMULTI_INLINE V load_outputs(const D *from, int64_t filter) {
    if (F == 1 || filter == 1) return load_wide<A, VL>(from);
    return turned<kPositions>(load_rows<F>(from, filter), kLanes<V>);
  }
  static LCMULTI_INLINE void store_outputs(V v, D *to, int64_t filter, bool streamed) {
    if (F == 1 || filter == 1) return store_narrow<D, VL, A>(to, v, streamed);
    const V rows = turned<F>(v, kLanes<V>);
    if constexpr (sizeof(D) == 2) {
      store_rows<F>(narrow<VL>(rows, D{}), reinterpret_cast<uint16_t *>(to), filter);
    } else {
      store_rows<F>(rows, to, filter);
    }
  }
  // The rows of some filters, one after the other in a vector.
  template <int ROWS>
  static LCMULTI_INLINE auto load_rows(const D *from, int64_t filter) {
    if constexpr (ROWS == 1) {
      return load_wide<A, kPositions>(from);
    } else {
      constexpr int H = ROWS / 2;
      return joined(load_rows<H>(from, filter), load_rows<H>(from + H * filter, filter),
                    std::make_integer_sequence<int, ROWS * kPositions>{});
    }
  }
  template <int ROWS, class W, class E>
  static LCMULTI_INLINE void store_rows(W rows, E *to, int64_t filter) {
    if constexpr (ROWS == 1) {
      store(to, rows);
    } else {
      constexpr int H = ROWS / 2;
      constexpr auto half = std::make_integer_sequence<int, H * kPositions>{};
      store_rows<H>(part_of<0>(rows, half), to, filter);
      store_rows<H>(part_of<H * kPositions>(rows, half), to + H * filter, filter);
    }
  }

  template <class Use, int... I>
  static LCMULTI_INLINE void each_unit(Use &&use, std::integer_sequence<int, I...>) {
    (use(std::integral_constant<int, I>{}), ...);
  }
  template <class Use>
  static LCMULTI_INLINE void each_unit(Use &&use) {
    each_unit(use, std::make_integer_sequence<int, kUnits>{});
  }

  // Sums have the order (window of a vector, unit, filter); positions of y have (unit, window of a vector).
  static constexpr int summed(int lane) {
    const int windows = VL / RUN, position = lane / F;
    return position % windows * RUN + position / windows * F + lane % F;
  }
  template <int... I>
  static LCMULTI_INLINE V in_order(V v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, summed(I)...);
  }
  // For each lane of a unit's x, the element of a vector of dy that it is multiplied with.
  template <int UNIT, int FILTER, int... I>
  static LCMULTI_INLINE V spread_out(V v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, ((UNIT * (VL / RUN) + I / RUN) * F + FILTER)...);
  }
  template <int UNIT>
  static LCMULTI_INLINE void spread_out(V v, V (&each)[F]) {
    constexpr auto lanes = std::make_integer_sequence<int, VL>{};
    each[0] = spread_out<UNIT, 0>(v, lanes);
    if constexpr (F > 1) each[1] = spread_out<UNIT, 1>(v, lanes);
    if constexpr (F > 2) each[2] = spread_out<UNIT, 2>(v, lanes), each[3] = spread_out<UNIT, 3>(v, lanes);
  }

  // Calls use(unit, the elements of dy for the x of a unit, for each sample and filter).
  template <int SAMPLES, class Use>
  static LCMULTI_INLINE void each_spread(const D *dy, int64_t dy_step, int64_t filter, Use &&use) {
    V dyv[SAMPLES];
#pragma GCC unroll 4
    for (int n = 0; n < SAMPLES; ++n) dyv[n] = load_outputs(dy + n * dy_step, filter);
    each_unit([&](auto unit) {
      V each[SAMPLES][F];
#pragma GCC unroll 4
      for (int n = 0; n < SAMPLES; ++n) spread_out<unit>(dyv[n], each[n]);
      use(unit, each);
    });
  }

  // The maps for SAMPLES samples, for which a weight is loaded once.
  template <int SAMPLES>
  static void outputs(const D *x, int64_t x_step, const A *w, int64_t steps, D *y, int64_t y_step,
                      int64_t filter, bool streamed, int64_t ahead) {
    V parts[SAMPLES][kUnits];
    each_unit([&](auto unit) {
      V sums[SAMPLES][F] = {};
      for (int64_t s = 0; s < steps; ++s, x += VL, w += F * VL) {
#pragma GCC unroll 4
        for (int n = 0; n < SAMPLES; ++n) {
          const V xv = load_wide<A, VL>(x + n * x_step);
          __builtin_prefetch(x + n * x_step + ahead, 0, 2);
#pragma GCC unroll 4
          for (int f = 0; f < F; ++f) sums[n][f] = multiply_add(sums[n][f], xv, load<A, VL>(w + f * VL));
        }
      }
#pragma GCC unroll 4
      for (int n = 0; n < SAMPLES; ++n) parts[n][unit] = sum_each(sums[n]);
    });
#pragma GCC unroll 4
    for (int n = 0; n < SAMPLES; ++n) {
      const V sum = in_order(sum_each<F>(parts[n]), std::make_integer_sequence<int, VL>{});
      store_outputs(sum, y + n * y_step, filter, streamed);
    }
  }

  template <int SAMPLES>
  static void inputs(const D *dy, int64_t dy_step, int64_t filter, const A *w, int64_t steps, D *dx, int64_t dx_step,
                     bool streamed) {
    each_spread<SAMPLES>(dy, dy_step, filter, [&](auto, V (&each)[SAMPLES][F]) {
      for (int64_t s = 0; s < steps; ++s, dx += VL, w += F * VL) {
#pragma GCC unroll 4
        for (int n = 0; n < SAMPLES; ++n) {
          V sum = each[n][0] * load<A, VL>(w);
#pragma GCC unroll 4
          for (int f = 1; f < F; ++f) sum = multiply_add(sum, each[n][f], load<A, VL>(w + f * VL));
          store_narrow<D, VL, A>(dx + n * dx_step, sum, streamed);
        }
      }
    });
  }

  template <int SAMPLES>
  static void weights(const D *x, int64_t x_step, const D *dy, int64_t dy_step, int64_t filter, int64_t steps,
                      A *dw, int64_t ahead) {
    each_spread<SAMPLES>(dy, dy_step, filter, [&](auto, V (&each)[SAMPLES][F]) {
      for (int64_t s = 0; s < steps; ++s, x += VL, dw += F * VL) {
        V sums[F];
#pragma GCC unroll 4
        for (int f = 0; f < F; ++f) sums[f] = load<A, VL>(dw + f * VL);
#pragma GCC unroll 4
        for (int n = 0; n < SAMPLES; ++n) {
          const V xv = load_wide<A, VL>(x + n * x_step);
          __builtin_prefetch(x + n * x_step + ahead, 0, 2);
#pragma GCC unroll 4
          for (int f = 0; f < F; ++f) sums[f] = multiply_add(sums[f], xv, each[n][f]);
        }
#pragma GCC unroll 4
        for (int f = 0; f < F; ++f) store(dw + f * VL, sums[f]);
      }
    });
  }
};

}  // namespace lcmulti::LCMULTI_ISA
