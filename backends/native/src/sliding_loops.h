// The innermost loops for sliding windows; see sliding.cc.
#pragma once

#include <array>

#include "simd/edges.h"
#include "simd/products.h"

namespace lcmulti::LCMULTI_ISA {

constexpr int64_t kMostTerms = 64;  // of a position

// One channel of one tap: the input of a term for each vector of the result.
struct Term {
  int64_t row;      // offset of its row
  int64_t shift;    // its first column
  int64_t weights;  // offset of its first weights
};

// The terms, which are the same for all vectors of a row.
struct Terms {
  std::array<Term, kMostTerms> each;
  int64_t count = 0, least = 0, most = 0;  // shifts

  const Term *begin() const { return each.data(); }
  const Term *end() const { return each.data() + count; }
};

template <class D, class A>
struct SlidingLoops {
  static constexpr int VL = kVectorBytes / sizeof(A);
  using V = Vector<A, VL>;

  template <bool CLIPPED>
  using Lanes = std::conditional_t<CLIPPED, Within<A, VL, D>, Inside<A, VL, D>>;

  struct Steps {
    int64_t sample, columns;        // strides of the array that is read
    int64_t to_sample, to_columns;  // strides of the array that each term is for
    int64_t to_channel, apart;      // between its channels, and between their weights
    int64_t column, count;          // first column of the vector, and number of its lanes within the row
  };

  // Computes one vector of some samples and channels.
  template <int SAMPLES, int CHANNELS, bool CLIPPED>
  static LCMULTI_INLINE void sums(const Steps &steps, const Terms &terms, const D *from, const A *weights, D *to) {
    V sum[SAMPLES][CHANNELS] = {};
    const int64_t columns = steps.columns, column = steps.column, apart = steps.apart;
    const D *row[SAMPLES];
#pragma GCC unroll 4
    for (int n = 0; n < SAMPLES; ++n) row[n] = from + n * steps.sample;
    for (const Term &each : terms) {
      const int64_t at = each.row + each.shift;
      const Lanes<CLIPPED> lanes(column + each.shift, columns);
      V weight[CHANNELS];
#pragma GCC unroll 4
      for (int i = 0; i < CHANNELS; ++i) weight[i] = load<A, VL>(weights + each.weights + i * apart);
#pragma GCC unroll 4
      for (int n = 0; n < SAMPLES; ++n) {
        const V value = lanes.load(row[n] + at);
#pragma GCC unroll 4
        for (int i = 0; i < CHANNELS; ++i) sum[n][i] = multiply_add(sum[n][i], value, weight[i]);
      }
    }
#pragma GCC unroll 4
    for (int n = 0; n < SAMPLES; ++n) {
#pragma GCC unroll 4
      for (int i = 0; i < CHANNELS; ++i) {
        D *at = to + n * steps.to_sample + i * steps.to_channel;
        if (!CLIPPED || steps.count == VL) {
          store_narrow<D, VL, A>(at, sum[n][i], false);
        } else {
          store_first<D, VL, A>(at, sum[n][i], steps.count);
        }
      }
    }
  }

  // Adds the products of some samples and one filter to the sums of each weight.
  template <int SAMPLES, bool CLIPPED>
  static LCMULTI_INLINE void products(const Steps &steps, const Terms &terms, const D *x, const D *dy, A *totals) {
    const int64_t columns = steps.columns, column = steps.column;
    const Lanes<CLIPPED> own(column, steps.to_columns);
    V grad[SAMPLES];
    const D *row[SAMPLES];
#pragma GCC unroll 4
    for (int n = 0; n < SAMPLES; ++n) {
      grad[n] = own.load(dy + n * steps.to_sample);
      row[n] = x + n * steps.sample;
    }
    for (const Term &each : terms) {
      const int64_t at = each.row + each.shift;
      const Lanes<CLIPPED> lanes(column + each.shift, columns);
      V sum = load<A, VL>(totals + each.weights);
#pragma GCC unroll 4
      for (int n = 0; n < SAMPLES; ++n) sum = multiply_add(sum, lanes.load(row[n] + at), grad[n]);
      store(totals + each.weights, sum);
    }
  }
};

}  // namespace lcmulti::LCMULTI_ISA
