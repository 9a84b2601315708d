// Arrays of the fuzzer, between margins that must not be touched.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "lcmulti_native.h"

using Random = std::mt19937_64;

inline int64_t draw(Random &random, int64_t lo, int64_t hi) {
  return std::uniform_int_distribution<int64_t>(lo, hi)(random);
}

constexpr unsigned char kCanary = 0xA5;
constexpr size_t kMargin = 192;

// Elements between two margins that must not be touched. Values are small multiples of a power of two, so that
// every type represents them, and every sum of them, exactly.
class Buffer {
 public:
  Buffer(int64_t count, int64_t dtype, size_t offset)
      : count_(count), dtype_(dtype), item_(dtype == LCMULTI_FLOAT64 ? 8 : dtype == LCMULTI_FLOAT32 ? 4 : 2),
        start_(kMargin + offset * item_), bytes_(start_ + count * item_ + kMargin, kCanary) {}

  void *data() { return bytes_.data() + start_; }

  bool canaries_alive() const {
    const auto alive = [](unsigned char c) { return c == kCanary; };
    return std::all_of(bytes_.begin(), bytes_.begin() + start_, alive) &&
           std::all_of(bytes_.end() - kMargin, bytes_.end(), alive);
  }

  bool untouched(int64_t i) const {
    const auto first = bytes_.begin() + static_cast<int64_t>(start_) + i * static_cast<int64_t>(item_);
    return std::all_of(first, first + static_cast<int64_t>(item_), [](unsigned char c) { return c == kCanary; });
  }

  void set(int64_t i, double value) {
    unsigned char *at = bytes_.data() + start_ + i * item_;
    const float f = static_cast<float>(value);
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    if (dtype_ == LCMULTI_FLOAT64) {
      std::memcpy(at, &value, 8);
    } else if (dtype_ == LCMULTI_FLOAT32) {
      std::memcpy(at, &f, 4);
    } else {
      // Values are exact and normal, so truncation converts them.
      const uint16_t half = dtype_ == LCMULTI_BFLOAT16 ? static_cast<uint16_t>(bits >> 16)
                            : f == 0                   ? 0
                                     : static_cast<uint16_t>(((bits >> 16) & 0x8000) |
                                                             (((bits & 0x7fffffff) - (112u << 23)) >> 13));
      std::memcpy(at, &half, 2);
    }
  }

  double get(int64_t i) const {
    const unsigned char *at = bytes_.data() + start_ + i * item_;
    if (dtype_ == LCMULTI_FLOAT64) {
      double d;
      std::memcpy(&d, at, 8);
      return d;
    }
    float f;
    if (dtype_ == LCMULTI_FLOAT32) {
      std::memcpy(&f, at, 4);
      return f;
    }
    uint16_t half;
    std::memcpy(&half, at, 2);
    if (dtype_ == LCMULTI_BFLOAT16) {
      const uint32_t bits = static_cast<uint32_t>(half) << 16;
      std::memcpy(&f, &bits, 4);
      return f;
    }
    const int exponent = (half >> 10) & 31, mantissa = half & 1023;
    const double size = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    return half & 0x8000 ? -size : size;
  }

  void fill(Random &random, double unit) {
    for (int64_t i = 0; i < count_; ++i) set(i, unit * static_cast<double>(draw(random, -4, 4)));
  }

  bool operator==(const Buffer &other) const { return bytes_ == other.bytes_; }
  int64_t count() const { return count_; }

 private:
  int64_t count_, dtype_;
  size_t item_, start_;
  std::vector<unsigned char> bytes_;
};
