// Vectors of VL elements, with the compilers' vector extensions. Compiler flags turn the same source into
// AVX-512, AVX2, NEON or plain code.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define LCMULTI_INLINE inline __attribute__((always_inline))

namespace lcmulti::LCMULTI_ISA {

// LCMULTI_EMULATED emulates features that a processor does not have, so that their code can be tested: 1 for
// vectors of 64 bytes, 2 also for products of pairs, 3 also for a matrix unit.
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

// Writes past the caches, for data that is not read soon: the line need not be read first.
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

// Must follow the last `stream` of a task, before the task is reported as done.
LCMULTI_INLINE void end_streams() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// A vector with `value` in every lane.
template <class V, class T>
LCMULTI_INLINE V spread(T value) {
  return value - V{};
}

template <class V, int... I>
LCMULTI_INLINE auto joined(V low, V high, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(low, high, I...);
}
template <int FIRST, class V, int... I>
LCMULTI_INLINE auto part_of(V v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, FIRST + I...);
}

template <class V, int... I>
constexpr V counting(std::integer_sequence<int, I...>) {
  return V{I...};
}

}  // namespace lcmulti::LCMULTI_ISA
