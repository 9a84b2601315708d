// Half types: how they are stored, and their conversion from and to the float32 of sums.
#pragma once

#include "vector.h"

namespace lcmulti {

// Half types as stored in memory.
struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

namespace LCMULTI_ISA {

template <int VL>
LCMULTI_INLINE Vector<float, VL> widen(Vector<uint16_t, VL> bits, bfloat16) {
  return bits_of<Vector<float, VL>>(__builtin_convertvector(bits, Vector<uint32_t, VL>) << 16);
}

template <int VL>
LCMULTI_INLINE Vector<float, VL> widen(Vector<uint16_t, VL> bits, float16) {
#if defined(__AVX512F__)
  if constexpr (VL == 16) return bits_of<Vector<float, VL>>(_mm512_cvtph_ps(bits_of<__m256i>(bits)));
#endif
#if defined(__F16C__)
  if constexpr (VL == 8) return bits_of<Vector<float, VL>>(_mm256_cvtph_ps(bits_of<__m128i>(bits)));
#endif
  using U = Vector<uint32_t, VL>;
  using F = Vector<float, VL>;
  const U half = __builtin_convertvector(bits, U);
  const U sign = (half & 0x8000u) << 16, exponent = half & 0x7c00u;
  // Normal: the exponent's bias changes from 15 to 127; infinite or NaN: from 31 to 255.
  const U normal = ((half & 0x7fffu) << 13) + (exponent == 0x7c00u ? U{} + (224u << 23) : U{} + (112u << 23));
  // Subnormal: the mantissa is a whole number of 2^-24.
  const F tiny = __builtin_convertvector(__builtin_convertvector(half & 0x3ffu, Vector<int32_t, VL>), F) * 0x1p-24f;
  const U magnitude = exponent == 0u ? bits_of<U>(tiny) : normal;
  return bits_of<F>(magnitude | sign);
}

template <int VL>
LCMULTI_INLINE Vector<uint16_t, VL> narrow(Vector<float, VL> v, bfloat16) {
#if defined(__AVX512BF16__)
  if constexpr (VL == 16) {
    constexpr int kSubnormal = 0x20;  // which the instruction would take as zeros
    if (_mm512_fpclass_ps_mask(bits_of<__m512>(v), kSubnormal) == 0) {
      return bits_of<Vector<uint16_t, VL>>(_mm512_cvtneps_pbh(bits_of<__m512>(v)));
    }
  }
#endif
  using U = Vector<uint32_t, VL>;
  const U bits = bits_of<U>(v);
  const U rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
  const U quiet = (bits >> 16) | 0x40u;
  return __builtin_convertvector((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded, Vector<uint16_t, VL>);
}

#if defined(__F16C__)
constexpr int kToNearest = _MM_FROUND_TO_NEAREST_INT;
#endif

template <int VL>
LCMULTI_INLINE Vector<uint16_t, VL> narrow(Vector<float, VL> v, float16) {
#if defined(__AVX512F__)
  if constexpr (VL == 16) return bits_of<Vector<uint16_t, VL>>(_mm512_cvtps_ph(bits_of<__m512>(v), kToNearest));
#endif
#if defined(__F16C__)
  if constexpr (VL == 8) return bits_of<Vector<uint16_t, VL>>(_mm256_cvtps_ph(bits_of<__m256>(v), kToNearest));
#endif
  using U = Vector<uint32_t, VL>;
  using F = Vector<float, VL>;
  const U bits = bits_of<U>(v), sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
  // Normal: re-bias, round to nearest, ties to even. A carry into the exponent is right.
  const U normal = (size - (112u << 23) + 0xfffu + ((size >> 13) & 1u)) >> 13;
  // Below 2^-14: adding 1/2 leaves a whole number of 2^-24, rounded by the addition.
  const U tiny = bits_of<U>(bits_of<F>(size) + 0.5f) - (126u << 23);
  U result = size < (113u << 23) ? tiny : normal;
  result = size >= (143u << 23) ? U{} + 0x7c00u : result;             // too large
  result = size > 0x7f800000u ? 0x7e00u | ((size >> 13) & 0x3ffu) : result;  // NaN
  return __builtin_convertvector(result | sign, Vector<uint16_t, VL>);
}

template <class A, int VL, class D>
LCMULTI_INLINE Vector<A, VL> load_wide(const D *p) {
  if constexpr (!std::is_same_v<A, D>) {
    return widen<VL>(load<uint16_t, VL>(reinterpret_cast<const uint16_t *>(p)), D{});
  } else {
    return load<A, VL>(p);
  }
}

template <class D, int VL, class A>
LCMULTI_INLINE void store_narrow(D *p, Vector<A, VL> v, bool streamed) {
  const auto put = [streamed](auto *to, auto narrowed) { streamed ? stream(to, narrowed) : store(to, narrowed); };
  if constexpr (sizeof(D) == 2) {
    put(reinterpret_cast<uint16_t *>(p), narrow<VL>(v, D{}));
  } else {
    put(p, v);
  }
}

// Copies `length` elements of two bytes without a function call, because rows of a box are short.
template <class D>
LCMULTI_INLINE void copy_row(const D *from, int64_t length, D *to) {
  static_assert(sizeof(D) == 2);
#if defined(__AVX512BW__)
  for (; length >= 32; length -= 32, from += 32, to += 32) _mm512_storeu_si512(to, _mm512_loadu_si512(from));
  if (length == 0) return;  // a masked store of nothing is slower than everything else here
  const auto mask = static_cast<__mmask32>((uint64_t{1} << length) - 1);
  _mm512_mask_storeu_epi16(to, mask, _mm512_maskz_loadu_epi16(mask, from));
#else
  std::memcpy(to, from, sizeof(D) * length);
#endif
}

}  // namespace LCMULTI_ISA
}  // namespace lcmulti
