// The edges of a row: loads and stores of some of a vector's elements.
#pragma once

#include <algorithm>

#include "halves.h"

namespace lcmulti::LCMULTI_ISA {

#if defined(__AVX512F__)
// Whether `load_masked` supports it.
template <class A, int VL, class D>
constexpr bool kMasked = VL * sizeof(A) == 64 && (std::is_same_v<A, D> ? sizeof(A) != 2 : sizeof(D) == 2);

// Loads the elements whose bit is set; the others are zeros.
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

// Loads the first `count` elements; the others are zeros. It goes by halves, because a vector that is loaded from
// an array on the stack would have to wait for each element that was stored there.
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

// Loads elements at, at + 1, ... of a row if they are within its `length`; other lanes are zeros.
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

// The same for elements that all lie within the row.
template <class A, int VL, class D>
struct Inside {
  LCMULTI_INLINE Inside(int64_t, int64_t) {}
  LCMULTI_INLINE Vector<A, VL> load(const D *p) const { return load_wide<A, VL>(p); }
};

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

}  // namespace lcmulti::LCMULTI_ISA
