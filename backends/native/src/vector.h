// Vectors of VL elements by the compilers' own vector extensions: the same source is AVX-512,
// AVX2, NEON or plain code by the flags it is compiled with.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#define LCMULTI_INLINE inline __attribute__((always_inline))

namespace lcmulti {

// Half types as they lie in memory.
struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

namespace LCMULTI_ISA {

template <class T, int VL>
struct VectorOf {
  typedef T type __attribute__((vector_size(VL * sizeof(T))));
};
template <class T, int VL>
using Vector = typename VectorOf<T, VL>::type;

template <class To, class From>
LCMULTI_INLINE To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class T, int VL>
LCMULTI_INLINE Vector<T, VL> load(const T *p) {
  Vector<T, VL> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class V, class T>
LCMULTI_INLINE void store(T *p, V v) {
  std::memcpy(p, &v, sizeof v);
}

// ---- Between storage and the type sums are held in ----

template <int VL>
LCMULTI_INLINE Vector<float, VL> widen(Vector<uint16_t, VL> bits, bfloat16) {
  return bits_of<Vector<float, VL>>(__builtin_convertvector(bits, Vector<uint32_t, VL>) << 16);
}

template <int VL>
LCMULTI_INLINE Vector<float, VL> widen(Vector<uint16_t, VL> bits, float16) {
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
  using U = Vector<uint32_t, VL>;
  const U bits = bits_of<U>(v);
  const U rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
  const U quiet = (bits >> 16) | 0x40u;
  return __builtin_convertvector((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded, Vector<uint16_t, VL>);
}

template <int VL>
LCMULTI_INLINE Vector<uint16_t, VL> narrow(Vector<float, VL> v, float16) {
  using U = Vector<uint32_t, VL>;
  using F = Vector<float, VL>;
  const U bits = bits_of<U>(v), sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
  // Normal: re-bias, round to nearest, ties to even; a carry rightly runs into the exponent.
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
  if constexpr (sizeof(D) == 2) {
    return widen<VL>(load<uint16_t, VL>(reinterpret_cast<const uint16_t *>(p)), D{});
  } else {
    return load<A, VL>(p);
  }
}

// The first `count` elements, and zeros.
template <class A, int VL, class D>
LCMULTI_INLINE Vector<A, VL> load_wide(const D *p, int64_t count) {
  D part[VL] = {};
  for (int64_t i = 0; i < count; ++i) part[i] = p[i];
  return load_wide<A, VL>(part);
}

template <class D, int VL, class A>
LCMULTI_INLINE void store_narrow(D *p, Vector<A, VL> v) {
  if constexpr (sizeof(D) == 2) {
    store(reinterpret_cast<uint16_t *>(p), narrow<VL>(v, D{}));
  } else {
    store(p, v);
  }
}

template <class D, int VL, class A>
LCMULTI_INLINE void store_narrow(D *p, Vector<A, VL> v, int64_t count) {
  D part[VL];
  store_narrow<D, VL, A>(part, v);
  for (int64_t i = 0; i < count; ++i) p[i] = part[i];
}

// ---- Shuffles ----

// Lanes whose index lacks bit H from a, the others from b, H lanes lower.
template <int H, class V, int... I>
LCMULTI_INLINE V lower(V a, V b, std::integer_sequence<int, I...>) {
  constexpr int n = sizeof...(I);
  return __builtin_shufflevector(a, b, ((I & H) == 0 ? I : n + I - H)...);
}
template <int H, class V, int... I>
LCMULTI_INLINE V upper(V a, V b, std::integer_sequence<int, I...>) {
  constexpr int n = sizeof...(I);
  return __builtin_shufflevector(a, b, ((I & H) == 0 ? I + H : n + I)...);
}

// rows[i][k] <-> rows[k][i], by halves.
template <int VL, int H = VL / 2, class V>
LCMULTI_INLINE void transpose(V (&rows)[VL]) {
  if constexpr (H >= 1) {
    constexpr auto lanes = std::make_integer_sequence<int, VL>{};
#pragma GCC unroll 16
    for (int i = 0; i < VL; ++i) {
      if (i & H) continue;
      const V a = rows[i], b = rows[i + H];
      rows[i] = lower<H>(a, b, lanes);
      rows[i + H] = upper<H>(a, b, lanes);
    }
    transpose<VL, H / 2>(rows);
  }
}

// Lane k of the result is the sum of the lanes of rows[k].
template <int VL, int H = VL / 2, class V>
LCMULTI_INLINE V sum_each(V (&rows)[VL]) {
  if constexpr (H >= 1) {
    constexpr auto lanes = std::make_integer_sequence<int, VL>{};
#pragma GCC unroll 16
    for (int i = 0; i < H; ++i) {
      rows[i] = lower<H>(rows[i], rows[i + H], lanes) + upper<H>(rows[i], rows[i + H], lanes);
    }
    return sum_each<VL, H / 2>(rows);
  } else {
    return rows[0];
  }
}

}  // namespace LCMULTI_ISA
}  // namespace lcmulti
