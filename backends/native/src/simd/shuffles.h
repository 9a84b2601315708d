// Permutations of lanes: transposition, sums across lanes, interleaving.
#pragma once

#include "vector.h"

namespace lcmulti::LCMULTI_ISA {

template <class V>
constexpr auto kLanes = std::make_integer_sequence<int, static_cast<int>(sizeof(V) / sizeof(V{}[0]))>{};

// Lanes whose index does not have bit H come from a, the others from b.
template <int H, class V, int... I>
LCMULTI_INLINE V blend(V a, V b, std::integer_sequence<int, I...>) {
#if defined(__AVX512F__)
  // Compilers would use a shuffle, but processors can do twice as many blends.
  constexpr unsigned mask = ((I & H ? 1u << I : 0u) | ...);
  if constexpr (sizeof(V) == 64 && sizeof...(I) == 16) {
    return bits_of<V>(_mm512_mask_blend_epi32(mask, bits_of<__m512i>(a), bits_of<__m512i>(b)));
  } else if constexpr (sizeof(V) == 64 && sizeof...(I) == 8) {
    return bits_of<V>(_mm512_mask_blend_epi64(mask, bits_of<__m512i>(a), bits_of<__m512i>(b)));
  }
#endif
  return __builtin_shufflevector(a, b, ((I & H) == 0 ? I : static_cast<int>(sizeof...(I)) + I)...);
}
// The other lanes of both, moved by H to the places that `blend` leaves out.
template <int H, class V, int... I>
LCMULTI_INLINE V crossed(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, ((I & H) == 0 ? I + H : static_cast<int>(sizeof...(I)) + I - H)...);
}

// rows[i][k] <-> rows[k][i], in halves: one shuffle and two blends for two rows. Processors do more blends than
// shuffles in a cycle.
template <int VL, int H = VL / 2, class V>
LCMULTI_INLINE void transpose(V (&rows)[VL]) {
  if constexpr (H >= 1) {
#pragma GCC unroll 16
    for (int i = 0; i < VL; ++i) {
      if (i & H) continue;
      const V a = rows[i], b = rows[i + H], moved = crossed<H>(a, b, kLanes<V>);
      rows[i] = blend<H>(a, moved, kLanes<V>);
      rows[i + H] = blend<H>(moved, b, kLanes<V>);
    }
    transpose<VL, H / 2>(rows);
  }
}

// Lane i * N + k of the result is the sum of lanes i * N to i * N + N - 1 of rows[k]; `SCALE` adjacent lanes count
// as one.
template <int SCALE = 1, int N, class V, int H = N / 2>
LCMULTI_INLINE V sum_each(V (&rows)[N], std::integral_constant<int, H> = {}) {
  if constexpr (H >= 1) {
#pragma GCC unroll 16
    for (int i = 0; i < H; ++i) {
      rows[i] = blend<H * SCALE>(rows[i], rows[i + H], kLanes<V>) + crossed<H * SCALE>(rows[i], rows[i + H], kLanes<V>);
    }
    return sum_each<SCALE>(rows, std::integral_constant<int, H / 2>{});
  } else {
    return rows[0];
  }
}

template <int FIRST, class V, int... I>
LCMULTI_INLINE V every_second(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (2 * I + FIRST)...);
}
template <int HALF, class V, int... I>
LCMULTI_INLINE V in_turn(V a, V b, std::integer_sequence<int, I...>) {
  constexpr int n = sizeof...(I);
  return __builtin_shufflevector(a, b, (HALF * n / 2 + I / 2 + I % 2 * n)...);
}

// Deinterleaves elements into F vectors; F is 1, 2 or 4.
template <int F, class V>
LCMULTI_INLINE void deal(V (&v)[F]) {
  if constexpr (F == 2) {
    const V a = v[0], b = v[1];
    v[0] = every_second<0>(a, b, kLanes<V>), v[1] = every_second<1>(a, b, kLanes<V>);
  } else if constexpr (F == 4) {
    V low[2] = {v[0], v[1]}, high[2] = {v[2], v[3]};
    deal(low), deal(high);
    V even[2] = {low[0], high[0]}, odd[2] = {low[1], high[1]};
    deal(even), deal(odd);
    v[0] = even[0], v[1] = odd[0], v[2] = even[1], v[3] = odd[1];
  }
}

// The inverse.
template <int F, class V>
LCMULTI_INLINE void collect(V (&v)[F]) {
  if constexpr (F == 2) {
    const V a = v[0], b = v[1];
    v[0] = in_turn<0>(a, b, kLanes<V>), v[1] = in_turn<1>(a, b, kLanes<V>);
  } else if constexpr (F == 4) {
    V even[2] = {v[0], v[2]}, odd[2] = {v[1], v[3]};
    collect(even), collect(odd);
    V low[2] = {even[0], odd[0]}, high[2] = {even[1], odd[1]};
    collect(low), collect(high);
    v[0] = low[0], v[1] = low[1], v[2] = high[0], v[3] = high[1];
  }
}

}  // namespace lcmulti::LCMULTI_ISA
