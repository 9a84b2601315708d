// Windows with few weights and a stride of 1 along rows in which positions are adjacent in memory (channels come
// first, or there is one channel). Lanes are positions. Only weights are transposed, not the input or the output,
// and weights stay in the cache while all samples are computed.
#include <array>
#include <cstring>

#include "in_place.h"
#include "pool.h"
#include "row_blocks.h"
#include "rows.h"
#include "scratch.h"
#include "sliding_loops.h"
#include "types.h"

namespace lcmulti::LCMULTI_ISA {
namespace {

// Largest number of weights of a position, by map. With more, transposing input and output costs less than loading
// each weight for every few samples. With few samples, which would leave lanes idle, kMostTerms holds for every map.
constexpr int64_t kMostWeights[] = {18, 32, 64};
// The same for pixels, which read each row once, for any map and batch.
constexpr int64_t kMostOfPixels = 32;
constexpr int64_t kMostRows = 16;  // rows of a block; at least some of them share inputs

int64_t weights_of(const Geometry &g) { return g.terms * g.filters; }
bool all_pixels(const Geometry &g) {
  bool all = true;
  for (int a = 0; a < g.axes; ++a) all &= is_pixels(g, a);
  return all;
}

RowBlocks blocks_of(const Geometry &g, int map) {
  const int64_t *size = map == LCMULTI_INPUT_GRAD ? g.input : g.output;
  return {g, size, g.last(), kVectorBytes / g.wide, weights_of(g) * kVectorBytes, kMostRows};
}

template <class D, class A>
class Sliding {
  using Loops = SlidingLoops<D, A>;
  static constexpr int VL = Loops::VL;

 public:
  Sliding(const Geometry &geometry, int map, const void *a, const void *b, void *result)
      : g(geometry), p(blocks_of(g, map)), map_(map), each_(weights_of(g)), pixels_(all_pixels(g)),
        a_(static_cast<const D *>(a)), b_(static_cast<const D *>(b)), result_(static_cast<D *>(result)) {
    const Side x{g.x_step, g.input, product(g.input + p.outer, g.axes - p.outer), g.channels_per_group, g.filters * VL};
    const Side y{g.dy_step, g.output, product(g.output + p.outer, g.axes - p.outer), g.filters_per_group, VL};
    from_ = map == LCMULTI_INPUT_GRAD ? y : x;
    to_ = map == LCMULTI_INPUT_GRAD ? x : y;
  }

  bool run() const {
    return parallel_for(p.tasks, p.threads, g.lender, [this](int64_t task) { block(task); });
  }

 private:
  // One of the two arrays other than the kernel: the one that is read for each term, or the one that is written
  // (or, for the kernel's gradient, multiplied with it).
  struct Side {
    const int64_t *step, *size;
    int64_t columns;   // of a row
    int64_t channels;  // of a group
    int64_t apart;     // elements from one channel's weights to the next's
  };
  // The vectors of a block that belong to one row.
  struct Row {
    int64_t number, offset;  // its offset in a sample
    int64_t column, count;   // of the first vector, and number of vectors
    A *weights;              // of the first vector: a vector for each weight of a position
    Terms terms;
  };
  // A vector: its offset, its column in the row, its weights, and the number of its lanes within the row.
  struct At {
    int64_t offset, column;
    A *weights;
    int64_t count;
  };

  const Geometry &g;
  const RowBlocks p;
  const int map_;
  const int64_t each_;  // weights of a position
  const bool pixels_;
  const D *const a_, *const b_;
  D *const result_;
  Side from_, to_;

  At vector(const Row &row, int64_t i) const {
    const int64_t column = row.column + i * VL;
    return {row.offset + column, column, row.weights + i * each_ * VL, std::min<int64_t>(p.columns - column, VL)};
  }

  void block(int64_t task) const {
    A *const room = reinterpret_cast<A *>(scratch.take(static_cast<size_t>(p.scratch_bytes())));
    std::array<Row, kMostRows + 1> rows;
    int count = 0;
    p.for_rows(task, [&](const RowBlocks::Run &run) {
      Row &row = rows[count++];
      const Index at = p.at(run.row);
      row.number = run.row, row.offset = p.offset(at, to_.step), row.column = run.first * VL, row.count = run.count;
      row.weights = room + run.at * each_ * VL;
      find_terms(at, row);
    });
    const auto each_vector = [&](auto &&body) {
      for (const Row *row = rows.data(); row != rows.data() + count; ++row) {
        for (int64_t i = 0; i < row->count; ++i) {
          const At at = vector(*row, i);
          body(at, (row->number * p.columns + at.column) * each_);
        }
      }
    };
    if (map_ == LCMULTI_KERNEL_GRAD) {
      std::memset(room, 0, static_cast<size_t>(p.scratch_bytes()));
    } else if (map_ == LCMULTI_FORWARD) {
      each_vector([this](const At &at, int64_t weights) { turn(b_ + weights, each_, 0, at.count, at.weights); });
    }
    const auto with_samples = [&](auto together) {
      for_samples<together>(g.batch, [&](int64_t n, auto samples) {
        for (int i = 0; i < count; ++i) one_row<samples>(rows[i], n);
      });
    };
    // A pixel reads each row once. Memory is faster with fewer rows at a time.
    if (pixels_) {
      with_samples(std::integral_constant<int, 1>{});
    } else {
      with_samples(std::integral_constant<int, 4>{});
    }
    if (map_ != LCMULTI_KERNEL_GRAD) return;
    each_vector([this](const At &at, int64_t weights) {
      scatter<A, VL>(at.weights, VL, each_, at.count, result_ + weights, each_, false);
    });
  }

  // The input index that a tap reads along an axis from position `at`; -1 if it reads none.
  int64_t seen(int a, int64_t at, int64_t tap) const {
    const int64_t moved = tap * g.dilation[a] - g.pad[a];
    int64_t i = at * g.stride[a] + moved;
    if (map_ == LCMULTI_INPUT_GRAD) {
      i = at - moved;
      if (i % g.stride[a]) return -1;
      i /= g.stride[a];
    }
    return i >= 0 && i < from_.size[a] ? i : -1;
  }

  // Finds the terms of a row; for the input's gradient, also transposes their weights.
  void find_terms(const Index &at, Row &row) const {
    const int last = g.last();
    const int64_t taps = g.kernel[last], weights = g.channels_per_group * g.filters;
    Terms &terms = row.terms;
    int64_t number = 0;
    for (Odometer o(g.kernel, last); !o.done; o.next(), number += taps) {
      int64_t elements = 0, position = 0;
      bool within = true;
      for (int a = 0; a < last; ++a) {
        const int64_t i = seen(a, at[a], o.at[a]);
        within &= i >= 0;
        elements += i * from_.step[2 + a];
        position = position * from_.size[a] + i;
      }
      const bool backward = map_ == LCMULTI_INPUT_GRAD;
      if (backward && !within) continue;
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t moved = t * g.dilation[last] - g.pad[last], first = (number + t) * weights;
        // All columns of a row of padding are beyond the last one: zeros, with which infinite weights give NaN.
        const int64_t shift = !within ? from_.columns : backward ? -moved : moved;
        if (!within) elements = 0;
        for (int64_t j = 0; j < from_.channels; ++j) {
          terms.each[terms.count++] = {elements + j * from_.step[1], shift, first * VL + j * from_.apart};
        }
        terms.least = std::min(terms.least, shift), terms.most = std::max(terms.most, shift);
        if (!backward) continue;
        for (int64_t i = 0; i < row.count; ++i) {
          const At to = vector(row, i);
          const int64_t column = to.column + shift, lo = std::clamp<int64_t>(-column, 0, VL);
          const int64_t hi = std::clamp<int64_t>(from_.columns - column, 0, VL);
          turn(b_ + (position * from_.size[last] + column) * each_ + first, weights, lo, hi, to.weights + first * VL);
        }
      }
    }
  }

  // `length` weights of positions lo to hi - 1 of a vector; other lanes are zeros. From half a vector of weights on,
  // a transposition is faster.
  void turn(const D *from, int64_t length, int64_t lo, int64_t hi, A *to) const {
    if (lo == 0 && 2 * length >= VL) return gather<A, VL>(from, each_, 1, length, hi, to, VL, VL);
    for (int64_t k = 0; k < length; ++k) {
      D some[VL] = {};
      for (int64_t i = lo; i < hi; ++i) some[i] = from[i * each_ + k];
      store(to + k * VL, load_wide<A, VL>(some));
    }
  }

  // Computes all vectors of a row for some samples.
  template <int SAMPLES>
  void one_row(const Row &row, int64_t n) const {
    // The vectors that lie within the row and of which no term reaches beyond a row.
    const int64_t lo = std::clamp<int64_t>((-row.terms.least - row.column + VL - 1) / VL, 0, row.count);
    const int64_t room = std::min(from_.columns - row.terms.most, p.columns) - row.column;
    const int64_t hi = std::clamp<int64_t>(room / VL, lo, row.count);
    vectors<SAMPLES, true>(row, 0, lo, n);
    vectors<SAMPLES, false>(row, lo, hi, n);
    vectors<SAMPLES, true>(row, hi, row.count, n);
  }

  template <int SAMPLES, bool CLIPPED>
  __attribute__((noinline)) void vectors(const Row &row, int64_t first, int64_t last, int64_t n) const {
    const int64_t channel = to_.step[1], from_sample = from_.step[0], to_sample = to_.step[0];
    const bool summed = map_ != LCMULTI_KERNEL_GRAD;
    for (int64_t number = first; number < last; ++number) {
      const At at = vector(row, number);
      const typename Loops::Steps steps{from_sample, from_.columns, to_sample, to_.columns,
                                        channel,     to_.apart,     at.column, at.count};
      const D *from = a_ + n * from_sample + at.column;
      int64_t to = n * to_sample + at.offset;
      A *weights = at.weights;
      for (int64_t group = 0; group < g.groups; ++group) {
        int64_t i = 0;
        const auto take = [&](auto together) {
          for (; i + together <= to_.channels; i += together) {
            D *to_first = result_ + to + i * channel;
            Loops::template sums<SAMPLES, together, CLIPPED>(steps, row.terms, from, weights + i * to_.apart, to_first);
          }
        };
        if (summed) {
          if constexpr (SAMPLES == 1) take(std::integral_constant<int, 4>{});
          take(std::integral_constant<int, 2>{});
          take(std::integral_constant<int, 1>{});
        } else {
          for (; i < to_.channels; ++i) {
            const D *dy = b_ + to + i * channel;
            Loops::template products<SAMPLES, CLIPPED>(steps, row.terms, from, dy, weights + i * to_.apart);
          }
        }
        from += from_.channels * from_.step[1], to += to_.channels * channel, weights += g.filters_per_group * VL;
      }
    }
  }

};

}  // namespace

bool slides(const Geometry &g, int map) {
  const int last = g.last();
  const int64_t lanes = kVectorBytes / g.wide;
  const bool few = g.batch <= kFewSamples;
  bool does = g.batch > 0 && !g.any_shared() && g.stride[last] == 1;
  does &= weights_of(g) <= (all_pixels(g) ? kMostOfPixels : few ? kMostTerms : kMostWeights[map]);
  // For few samples, transposing weights does not pay if filters already fill a vector.
  does &= !few || g.filters % lanes != 0;
  does = does && g.x_step[2 + last] == 1 && g.dy_step[2 + last] == 1;
  return does && 2 * blocks_of(g, map).columns >= lanes;
}

int64_t sliding_workspace(const Geometry &g, int map) { return blocks_of(g, map).scratch_bytes(); }

bool sliding(const Geometry &g, int map, const void *a, const void *b, void *result) {
  return with_types(g, [&](auto d, auto wide) {
    return Sliding<decltype(d), decltype(wide)>(g, map, a, b, result).run();
  });
}

}  // namespace lcmulti::LCMULTI_ISA
