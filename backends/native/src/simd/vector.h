// Vectors of VL elements by the compilers' own vector extensions: the same source is AVX-512,
// AVX2, NEON or plain code by the flags it is compiled with.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

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

// LCMULTI_EMULATED stands for what a processor lacks, so that what is written for it may be tested: 1 for
// vectors of 64 bytes, 2 for products of pairs too, 3 for a matrix unit too.
#if !defined(LCMULTI_EMULATED)
#define LCMULTI_EMULATED 0
#endif

#if defined(__AVX512F__) || LCMULTI_EMULATED >= 1
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

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

// Past the caches, where nobody will look for it soon: the line need not be read first.
template <class V, class T>
LCMULTI_INLINE void stream(T *p, V v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64) {
    auto *to = reinterpret_cast<__m512i *>(p);
    if (reinterpret_cast<uintptr_t>(p) % 64 == 0) return _mm512_stream_si512(to, bits_of<__m512i>(v));
  }
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(V) == 32) {
    auto *to = reinterpret_cast<__m256i *>(p);
    if (reinterpret_cast<uintptr_t>(p) % 32 == 0) return _mm256_stream_si256(to, bits_of<__m256i>(v));
  }
#endif
  store(p, v);
}

// After the last `stream` of a task, before anyone is told that it is done.
LCMULTI_INLINE void end_streams() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// ---- Between storage and the type sums are held in ----

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
  // As the instructions that multiply do, this takes subnormal numbers for zeros.
  if constexpr (VL == 16) return bits_of<Vector<uint16_t, VL>>(_mm512_cvtneps_pbh(bits_of<__m512>(v)));
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
  if constexpr (!std::is_same_v<A, D>) {
    return widen<VL>(load<uint16_t, VL>(reinterpret_cast<const uint16_t *>(p)), D{});
  } else {
    return load<A, VL>(p);
  }
}

template <class V, int... I>
LCMULTI_INLINE auto joined(V low, V high, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(low, high, I...);
}
template <int FIRST, class V, int... I>
LCMULTI_INLINE auto part_of(V v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, FIRST + I...);
}

#if defined(__AVX512F__)
// Whether `load_masked` has it.
template <class A, int VL, class D>
constexpr bool kMasked = VL * sizeof(A) == 64 && (std::is_same_v<A, D> ? sizeof(A) != 2 : sizeof(D) == 2);

// The elements whose bit is set, and zeros.
template <class A, int VL, class D>
LCMULTI_INLINE Vector<A, VL> load_masked(const D *p, uint64_t mask) {
  if constexpr (sizeof(D) == 8) {
    return bits_of<Vector<A, VL>>(_mm512_maskz_loadu_epi64(static_cast<__mmask8>(mask), p));
  } else if constexpr (sizeof(D) == 4) {
    return bits_of<Vector<A, VL>>(_mm512_maskz_loadu_epi32(static_cast<__mmask16>(mask), p));
  } else {
    const __m256i some = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(mask), p);
    return widen<VL>(bits_of<Vector<uint16_t, VL>>(some), D{});
  }
}
#endif

// The first `count` elements, and zeros. By halves: a vector loaded from an array on the stack would
// wait for each of the elements stored to it.
template <class A, int VL, class D>
LCMULTI_INLINE Vector<A, VL> load_first(const D *p, int64_t count) {
#if defined(__AVX512F__)
  const uint64_t mask = (uint64_t{1} << count) - 1;
  if constexpr (kMasked<A, VL, D>) {
    return load_masked<A, VL>(p, mask);
  } else if constexpr (sizeof(D) == 2 && std::is_same_v<A, D> && VL == 16) {
    return bits_of<Vector<A, VL>>(_mm256_maskz_loadu_epi16(static_cast<__mmask16>(mask), p));
  }
#endif
  if constexpr (VL == 1) {
    return count > 0 ? load_wide<A, 1>(p) : Vector<A, 1>{};
  } else {
    constexpr int H = VL / 2;
    constexpr auto both = std::make_integer_sequence<int, VL>{};
    if (count < H) return joined(load_first<A, H>(p, count), Vector<A, H>{}, both);
    return joined(load_wide<A, H>(p), load_first<A, H>(p + H, count - H), both);
  }
}

template <class V, int... I>
constexpr V counting(std::integer_sequence<int, I...>) {
  return V{I...};
}

// Of the elements at, at + 1, ... of a row those within its `length`; zeros in the other lanes.
template <class A, int VL, class D>
class Within {
 public:
  LCMULTI_INLINE Within(int64_t at, int64_t length)
      : lo_(clipped(-at)), hi_(clipped(length - at)) {
#if defined(__AVX512F__)
    mask_ = (uint64_t{1} << hi_) - (uint64_t{1} << std::min(lo_, hi_));
#elif defined(__AVX2__)
    const I lane = counting<I>(std::make_integer_sequence<int, VL>{});
    mask_ = (lane >= static_cast<T>(lo_)) & (lane < static_cast<T>(hi_));
#endif
  }
  LCMULTI_INLINE Vector<A, VL> load(const D *p) const {
#if defined(__AVX512F__)
    if constexpr (kMasked<A, VL, D>) return load_masked<A, VL>(p, mask_);
#elif defined(__AVX2__)
    if constexpr (std::is_same_v<A, D> && VL * sizeof(A) == 32) {
      if constexpr (sizeof(A) == 4) return bits_of<Vector<A, VL>>(_mm256_maskload_ps(p, bits_of<__m256i>(mask_)));
      else return bits_of<Vector<A, VL>>(_mm256_maskload_pd(p, bits_of<__m256i>(mask_)));
    }
#endif
    if (lo_ == 0 && hi_ == VL) return load_wide<A, VL>(p);
    D some[VL] = {};
    for (int64_t i = lo_; i < hi_; ++i) some[i] = p[i];
    return load_wide<A, VL>(some);
  }

 private:
  static int64_t clipped(int64_t lane) { return lane < 0 ? 0 : lane > VL ? VL : lane; }

  int64_t lo_, hi_;
#if defined(__AVX512F__)
  uint64_t mask_;
#elif defined(__AVX2__)
  using T = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
  using I = Vector<T, VL>;
  I mask_;
#endif
};

// The same where all are.
template <class A, int VL, class D>
struct Inside {
  LCMULTI_INLINE Inside(int64_t, int64_t) {}
  LCMULTI_INLINE Vector<A, VL> load(const D *p) const { return load_wide<A, VL>(p); }
};

// `length` elements of two bytes, without a call: rows of a box are short.
template <class D>
LCMULTI_INLINE void copy_row(const D *from, int64_t length, D *to) {
  static_assert(sizeof(D) == 2);
#if defined(__AVX512BW__)
  for (; length >= 32; length -= 32, from += 32, to += 32) _mm512_storeu_si512(to, _mm512_loadu_si512(from));
  if (length == 0) return;  // to store nothing takes a processor longer than all the rest
  const auto mask = static_cast<__mmask32>((uint64_t{1} << length) - 1);
  _mm512_mask_storeu_epi16(to, mask, _mm512_maskz_loadu_epi16(mask, from));
#else
  std::memcpy(to, from, sizeof(D) * length);
#endif
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

template <class D, int VL, class A>
LCMULTI_INLINE void store_first(D *p, Vector<A, VL> v, int64_t count) {
#if defined(__AVX512F__)
  const auto mask = static_cast<__mmask16>((1u << count) - 1);
  if constexpr (sizeof(D) == 2 && VL == 16) {
    return _mm256_mask_storeu_epi16(p, mask, bits_of<__m256i>(narrow<VL>(v, D{})));
  } else if constexpr (sizeof(D) == 4 && VL == 16) {
    return _mm512_mask_storeu_epi32(p, mask, bits_of<__m512i>(v));
  }
#endif
  if constexpr (VL == 1) {
    if (count > 0) store_narrow<D, 1, A>(p, v, false);
  } else {
    constexpr int H = VL / 2;
    constexpr auto half = std::make_integer_sequence<int, H>{};
    const Vector<A, H> low = part_of<0>(v, half);
    if (count < H) return store_first<D, H, A>(p, low, count);
    store_narrow<D, H, A>(p, low, false);
    store_first<D, H, A>(p + H, part_of<H>(v, half), count - H);
  }
}

// ---- Products ----

// Two neighbours of a sum in bfloat16, that one instruction multiplies and adds.
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

// Elements of two rows, side by side.
template <int VL>
LCMULTI_INLINE Vector<Pair, VL> pairs_of(const uint16_t *low, const uint16_t *high) {
#if defined(__AVX512F__)
  if constexpr (VL == 16) {  // which compilers would do in halves
    const auto widened = [](const uint16_t *p) {
      return bits_of<Vector<Pair, VL>>(_mm512_maskz_cvtepu16_epi32(0xffff, bits_of<__m256i>(load<uint16_t, VL>(p))));
    };
    return widened(low) | widened(high) << 16;
  }
#endif
  return __builtin_convertvector(load<uint16_t, VL>(low), Vector<Pair, VL>) |
         __builtin_convertvector(load<uint16_t, VL>(high), Vector<Pair, VL>) << 16;
}

// Every lane `value`.
template <class V, class T>
LCMULTI_INLINE V spread(T value) {
  return value - V{};
}

}  // namespace LCMULTI_ISA
}  // namespace lcmulti
