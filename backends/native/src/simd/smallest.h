// The smallest factors of a call. The processor's products of pairs and its matrix unit take factors and sums
// below 2^-126 as zero. So a call whose products may come near to it is computed in float32 instead.
#pragma once

#include <algorithm>
#include <atomic>

#include "vector.h"

namespace lcmulti::LCMULTI_ISA {

// One factor of a call, in bfloat16: its smallest number but zero, in the order of `Smallest::size`.
using SmallestOfCall = std::atomic<uint16_t>;

// The numbers of one factor that one task reads.
class Smallest {
 public:
  explicit Smallest(SmallestOfCall &of_call) : of_call_(of_call) {}
  Smallest(const Smallest &) = delete;
  Smallest &operator=(const Smallest &) = delete;
  ~Smallest() {
    uint16_t own = 0xffff, known = of_call_.load(std::memory_order_relaxed);
    for (int lane = 0; lane < kLanes; ++lane) own = std::min<uint16_t>(own, least_[lane]);
    while (own < known && !of_call_.compare_exchange_weak(known, own, std::memory_order_relaxed)) {
    }
  }

  static constexpr int kLanes = 32;  // 64 bytes, as vectors of pairs have
  using V = Vector<uint16_t, kLanes>;

  // Sizes of the numbers that a loop has seen, which it keeps in a register.
  static constexpr V kNone = ~V{};
  static LCMULTI_INLINE V lesser(V least, V numbers) {
    const V size = numbers + numbers - 1;  // without the sign; zero becomes the largest
    return size < least ? size : least;
  }
  LCMULTI_INLINE void add(V least) { least_ = least < least_ ? least : least_; }

  void see(const void *numbers, int64_t count) {
    const auto *from = static_cast<const uint16_t *>(numbers);
    V least = kNone;
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) least = lesser(least, load<uint16_t, kLanes>(from + i));
    if (i < count && i > 0) least = lesser(least, load<uint16_t, kLanes>(from + count - kLanes));
    if (i < count && i == 0) {
      uint16_t some[kLanes] = {};
      std::memcpy(some, from, sizeof(uint16_t) * static_cast<size_t>(count));
      least = lesser(least, load<uint16_t, kLanes>(some));
    }
    add(least);
  }

 private:
  SmallestOfCall &of_call_;
  V least_ = kNone;
};

// Whether no product is so small that its sum may lose digits. A sum's error is measured by the sum of absolute
// values, of which float32 loses up to 2^-24 at each product; what is lost below 2^-126 is less than that.
inline bool all_normal(const SmallestOfCall &a, const SmallestOfCall &b) {
  constexpr int kBias = 127, kLeast = -100;
  const auto exponent = [](const SmallestOfCall &size) { return (size.load(std::memory_order_relaxed) + 1) >> 8; };
  return exponent(a) > 0 && exponent(b) > 0 && exponent(a) + exponent(b) - 2 * kBias >= kLeast;
}

}  // namespace lcmulti::LCMULTI_ISA
