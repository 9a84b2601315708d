// Products added to sums, of one term or of a pair of terms.
#pragma once

#include "vector.h"

namespace lcmulti::LCMULTI_ISA {

// Two adjacent terms of a sum in bfloat16, which one instruction multiplies and adds.
using Pair = uint32_t;
template <class E>
using SumOf = std::conditional_t<std::is_same_v<E, Pair>, float, E>;
#if defined(__AVX512BF16__) || LCMULTI_EMULATED >= 2
constexpr bool kHasPairs = true;
#else
constexpr bool kHasPairs = false;
#endif

template <class V>
LCMULTI_INLINE V multiply_add(V sum, V a, V b) {
  return sum + a * b;
}

#if defined(__AVX512BF16__)
LCMULTI_INLINE Vector<float, 16> multiply_add(Vector<float, 16> sum, Vector<Pair, 16> a, Vector<Pair, 16> b) {
  return bits_of<Vector<float, 16>>(_mm512_dpbf16_ps(bits_of<__m512>(sum), bits_of<__m512bh>(a), bits_of<__m512bh>(b)));
}
LCMULTI_INLINE Vector<float, 8> multiply_add(Vector<float, 8> sum, Vector<Pair, 8> a, Vector<Pair, 8> b) {
  return bits_of<Vector<float, 8>>(_mm256_dpbf16_ps(bits_of<__m256>(sum), bits_of<__m256bh>(a), bits_of<__m256bh>(b)));
}
#elif LCMULTI_EMULATED >= 2
template <int VL>
LCMULTI_INLINE Vector<float, VL> multiply_pairs(Vector<float, VL> sum, Vector<Pair, VL> a, Vector<Pair, VL> b) {
  const auto low = [](Vector<Pair, VL> v) { return bits_of<Vector<float, VL>>(v << 16); };
  const auto high = [](Vector<Pair, VL> v) { return bits_of<Vector<float, VL>>(v >> 16 << 16); };
  return sum + low(a) * low(b) + high(a) * high(b);
}
LCMULTI_INLINE Vector<float, 16> multiply_add(Vector<float, 16> sum, Vector<Pair, 16> a, Vector<Pair, 16> b) {
  return multiply_pairs<16>(sum, a, b);
}
LCMULTI_INLINE Vector<float, 8> multiply_add(Vector<float, 8> sum, Vector<Pair, 8> a, Vector<Pair, 8> b) {
  return multiply_pairs<8>(sum, a, b);
}
#endif

// Interleaves the elements of two rows.
template <int VL>
LCMULTI_INLINE Vector<Pair, VL> pairs_of(const uint16_t *low, const uint16_t *high) {
#if defined(__AVX512F__)
  if constexpr (VL == 16) {  // compilers would do it in halves
    const auto widened = [](const uint16_t *p) {
      return bits_of<Vector<Pair, VL>>(_mm512_maskz_cvtepu16_epi32(0xffff, bits_of<__m256i>(load<uint16_t, VL>(p))));
    };
    return widened(low) | widened(high) << 16;
  }
#endif
  return __builtin_convertvector(load<uint16_t, VL>(low), Vector<Pair, VL>) |
         __builtin_convertvector(load<uint16_t, VL>(high), Vector<Pair, VL>) << 16;
}

}  // namespace lcmulti::LCMULTI_ISA
