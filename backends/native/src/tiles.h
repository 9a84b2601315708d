// The innermost loops. Lanes are samples (input and output of a tile have samples innermost) and weights are
// broadcast, so any number of filters fills the vectors. Only the kernel's gradient, a sum over samples, has
// filters as lanes if there are enough of them.
#pragma once

#include <algorithm>
#include <utility>

#include "simd/edges.h"
#include "simd/products.h"
#include "simd/shuffles.h"

namespace lcmulti {

// A part of a window whose inputs and weights are both contiguous.
struct Run {
  int64_t input;    // first element, relative to the window
  int64_t weights;  // first row of filters
  int64_t length;   // rows
};

namespace LCMULTI_ISA {

// Number of accumulators that leaves enough registers for the factors, of 32 or of 16 registers.
#if defined(__AVX512F__) || LCMULTI_EMULATED || defined(__aarch64__)
constexpr int kAccumulators = 24;
#else
constexpr int kAccumulators = 12;
#endif
// Elements that are prefetched from a stream of weights, which are used as soon as they arrive. They go to the
// second-level cache: the first-level cache waits for too few lines at once to keep memory busy.
constexpr int kFarAhead = 1024;
constexpr int64_t kFarthest = 16384;

constexpr int most_rows(int vectors) { return std::min(12, kAccumulators / vectors); }

// y[f] += sum over k of x[k] * w[k][f], for ROWS filters and NV vectors of samples.
template <class E, int VL, int NV, int ROWS>
void forward_tile(const Run *runs, int64_t count, const E *x, const E *w, int64_t filters, SumOf<E> *y,
                  const E *next) {
  using V = Vector<E, VL>;
  Vector<SumOf<E>, VL> sum[ROWS][NV] = {};
  for (int64_t r = 0; r < count; ++r) {
    const E *xp = x + runs[r].input * (VL * NV), *wp = w + runs[r].weights * filters;
    for (int64_t k = runs[r].length; k > 0; --k) {
      V xv[NV];
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) xv[v] = load<E, VL>(xp + v * VL);
#pragma GCC unroll 16
      for (int f = 0; f < ROWS; ++f) {
        const V each = spread<V>(wp[f]);
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) sum[f][v] = multiply_add(sum[f][v], each, xv[v]);
      }
      // Prefetches the weights of the next position, which come from memory once.
      __builtin_prefetch(next, 0, 2);
      next += ROWS;
      xp += VL * NV;
      wp += filters;
    }
  }
#pragma GCC unroll 16
  for (int f = 0; f < ROWS; ++f) {
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) store(y + (f * NV + v) * VL, sum[f][v]);
  }
}

// dx[k] += sum over f of dy[f] * w[k][f], for ROWS neighbouring k.
template <class E, int VL, int NV, int ROWS>
void input_tile(const E *dy, const E *w, int64_t filters, int64_t of_group, SumOf<E> *dx, const E *next) {
  using V = Vector<E, VL>;
  using A = SumOf<E>;
  Vector<A, VL> sum[ROWS][NV];
  const E *row[ROWS];
#pragma GCC unroll 16
  for (int k = 0; k < ROWS; ++k) {
    row[k] = w + k * filters;
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) sum[k][v] = load<A, VL>(dx + (k * NV + v) * VL);
  }
  for (int64_t f = 0; f < of_group; ++f) {
    V dyv[NV];
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) dyv[v] = load<E, VL>(dy + (f * NV + v) * VL);
#pragma GCC unroll 16
    for (int k = 0; k < ROWS; ++k) {
      const V each = spread<V>(row[k][f]);
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) sum[k][v] = multiply_add(sum[k][v], each, dyv[v]);
    }
    __builtin_prefetch(next, 0, 2);
    next += ROWS;
  }
#pragma GCC unroll 16
  for (int k = 0; k < ROWS; ++k) {
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) store(dx + (k * NV + v) * VL, sum[k][v]);
  }
}

// How a tile of the kernel's gradient is stored.
enum class Leave { kStore, kStream, kAdd };

// dkernel[k][f] = sum over n of x[k][n] * dy[n][f], for ROWS neighbouring k, FV vectors of
// filters and `samples` n. Of the last vector, `tail` filters exist.
template <class E, int VL, int FV, int ROWS>
void kernel_tile(const E *x, int64_t lanes, const E *dy, int64_t pitch, int64_t samples, SumOf<E> *dkernel,
                 int64_t filters, int64_t tail, Leave leave) {
  using V = Vector<E, VL>;
  using A = SumOf<E>;
  Vector<A, VL> sum[ROWS][FV] = {};
  const E *row[ROWS];
#pragma GCC unroll 16
  for (int k = 0; k < ROWS; ++k) row[k] = x + k * lanes;
  for (int64_t n = 0; n < samples; ++n) {
    V dyv[FV];
#pragma GCC unroll 16
    for (int v = 0; v < FV; ++v) dyv[v] = load<E, VL>(dy + n * pitch + v * VL);
#pragma GCC unroll 16
    for (int k = 0; k < ROWS; ++k) {
      const V each = spread<V>(row[k][n]);
#pragma GCC unroll 16
      for (int v = 0; v < FV; ++v) sum[k][v] = multiply_add(sum[k][v], each, dyv[v]);
    }
  }
#pragma GCC unroll 16
  for (int k = 0; k < ROWS; ++k) {
#pragma GCC unroll 16
    for (int v = 0; v < FV; ++v) {
      A *to = dkernel + k * filters + v * VL;
      const int64_t count = v + 1 < FV ? VL : tail;
      if (count == VL && leave == Leave::kStream) {
        stream(to, sum[k][v]);
      } else if (count == VL) {
        store(to, leave == Leave::kAdd ? load<A, VL>(to) + sum[k][v] : sum[k][v]);
      } else {
        A part[VL];
        store(part, sum[k][v]);
        for (int64_t i = 0; i < count; ++i) to[i] = leave == Leave::kAdd ? to[i] + part[i] : part[i];
      }
    }
  }
}

// The same for FILTERS filters, too few to be lanes: VL sums over samples at once, of VL / FILTERS adjacent k, of
// which `rows` exist. dy is (filter, sample); that of the next k is `dy_step` elements further, or the same with 0.
template <class A, int VL, int NV, int FILTERS>
void small_kernel_tile(const A *x, const A *dy, int64_t dy_step, int64_t rows, A *dkernel, int64_t filters,
                       Leave leave) {
  using V = Vector<A, VL>;
  constexpr int kRows = VL / FILTERS;
  V sum[VL] = {};
  for (int k = 0; k < kRows; ++k) {
    const int64_t at = k < rows ? k : 0;
    const A *row = x + at * (NV * VL), *above = dy + at * dy_step;
#pragma GCC unroll 16
    for (int v = 0; v < NV; ++v) {
      const V xv = load<A, VL>(row + v * VL);
#pragma GCC unroll 16
      for (int f = 0; f < FILTERS; ++f) sum[k * FILTERS + f] += xv * load<A, VL>(above + (f * NV + v) * VL);
    }
  }
  V total = sum_each(sum);
  if (filters == FILTERS && rows >= kRows) {
    store(dkernel, leave == Leave::kAdd ? load<A, VL>(dkernel) + total : total);
    return;
  }
  A part[VL];
  store(part, total);
  for (int64_t k = 0; k < std::min<int64_t>(rows, kRows); ++k) {
    for (int f = 0; f < FILTERS; ++f) {
      A &to = dkernel[k * filters + f];
      to = leave == Leave::kAdd ? to + part[k * FILTERS + f] : part[k * FILTERS + f];
    }
  }
}

// With too few samples to fill lanes, filters are the lanes.

// y[n][f] = sum over k of x[k][n] * w[k][f], for SAMPLES samples and FV vectors of filters.
template <class A, int VL, int SAMPLES, int FV, class D>
void forward_row_tile(const Run *runs, int64_t count, const A *x, int64_t lanes, const D *w, int64_t filters,
                      A *y, int64_t pitch) {
  using V = Vector<A, VL>;
  V sum[SAMPLES][FV] = {};
  for (int64_t r = 0; r < count; ++r) {
    const A *xp = x + runs[r].input * lanes;
    const D *wp = w + runs[r].weights * filters;
    for (int64_t k = runs[r].length; k > 0; --k) {
#pragma GCC unroll 16
      for (int v = 0; v < FV; ++v) {
        const V wv = load_wide<A, VL>(wp + v * VL);
        __builtin_prefetch(wp + v * VL + kFarAhead, 0, 2);
#pragma GCC unroll 16
        for (int n = 0; n < SAMPLES; ++n) sum[n][v] += xp[n] * wv;
      }
      xp += lanes;
      wp += filters;
    }
  }
#pragma GCC unroll 16
  for (int n = 0; n < SAMPLES; ++n) {
#pragma GCC unroll 16
    for (int v = 0; v < FV; ++v) store(y + n * pitch + v * VL, sum[n][v]);
  }
}

// dx[k] += sum over f of dy[f] * w[k][f], for one sample, `rows` adjacent k and FV vectors of filters. It goes row
// by row, so that weights, which are used once, are read in memory order.
template <class A, int VL, int FV, class D>
void input_row_tile(const A *dy, const D *w, int64_t filters, int64_t rows, A *dx, int64_t ahead) {
  using V = Vector<A, VL>;
  V dyv[FV], sum[VL] = {};
#pragma GCC unroll 16
  for (int v = 0; v < FV; ++v) dyv[v] = load<A, VL>(dy + v * VL);
#pragma GCC unroll 16
  for (int k = 0; k < VL; ++k) {
    if (k >= rows) break;
    const D *row = w + k * filters;
#pragma GCC unroll 16
    for (int v = 0; v < FV; ++v) {
      __builtin_prefetch(row + v * VL + ahead, 0, 2);
      sum[k] = multiply_add(sum[k], dyv[v], load_wide<A, VL>(row + v * VL));
    }
  }
  const V total = sum_each(sum);
  if (rows >= VL) {
    store(dx, load<A, VL>(dx) + total);
  } else {
    store_first<A, VL, A>(dx, load_first<A, VL>(dx, rows) + total, rows);
  }
}

// Tiles by their number of rows, 1 to `most_rows(vectors)`.
template <class E, int VL, int NV>
struct Tiles {
  static constexpr int kMost = most_rows(NV);
  using Forward = decltype(&forward_tile<E, VL, NV, 1>);
  using Input = decltype(&input_tile<E, VL, NV, 1>);

  template <int... I>
  static constexpr std::array<Forward, kMost> forwards(std::integer_sequence<int, I...>) {
    return {&forward_tile<E, VL, NV, I + 1>...};
  }
  template <int... I>
  static constexpr std::array<Input, kMost> inputs(std::integer_sequence<int, I...>) {
    return {&input_tile<E, VL, NV, I + 1>...};
  }
  static constexpr auto kForward = forwards(std::make_integer_sequence<int, kMost>{});
  static constexpr auto kInput = inputs(std::make_integer_sequence<int, kMost>{});
};

template <class E, int VL, int FV>
struct KernelTiles {
  static constexpr int kMost = most_rows(FV);
  using Kernel = decltype(&kernel_tile<E, VL, FV, 1>);

  template <int... I>
  static constexpr std::array<Kernel, kMost> kernels(std::integer_sequence<int, I...>) {
    return {&kernel_tile<E, VL, FV, I + 1>...};
  }
  static constexpr auto kKernel = kernels(std::make_integer_sequence<int, kMost>{});
};

// Divides `count` rows into nearly equal tiles of at most `most` rows; calls tile(first, rows).
template <class Tile>
LCMULTI_INLINE void in_tiles(int64_t count, int64_t most, Tile &&tile) {
  if (count <= most) return tile(int64_t{0}, count);  // a division costs as much as a small tile
  const int64_t tiles = (count + most - 1) / most;
  for (int64_t i = 0, first = 0; i < tiles; ++i) {
    const int64_t rows = (count - first + tiles - i - 1) / (tiles - i);
    tile(first, rows);
    first += rows;
  }
}

}  // namespace LCMULTI_ISA
}  // namespace lcmulti
