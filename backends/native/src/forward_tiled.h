// Forward in bfloat16 with the matrix unit. The inputs of a window are copied row by row, with one row of the
// matrix for each sample. So inputs need not be transposed; only weights are rearranged into pairs.
#pragma once

#include "maps.h"

namespace lcmulti::LCMULTI_ISA {

// Number of elements that are copied at once; up to so many more than asked for are copied.
constexpr int64_t kCopied = 32;
constexpr int64_t kHeldBytes = 128 << 10;

LCMULTI_INLINE void copy_whole_vectors(const uint16_t *from, int64_t length, uint16_t *to) {
  for (int64_t i = 0; i < length; i += kCopied) store(to + i, load<uint16_t, kCopied>(from + i));
}

// The weights of one position as pairs of adjacent rows, (row / 2, filter), with zeros up to whole tiles.
inline void pair_rows(const uint16_t *from, int64_t rows, int64_t filters, Pair *to, int64_t deep, int64_t wide,
                      Smallest &seen) {
  constexpr int VL = kTile;
  const int64_t whole = filters / VL * VL;
  Smallest::V least = Smallest::kNone;
  for (int64_t k = 0; k < deep; k += 2, from += 2 * filters, to += wide) {
    if (k >= rows) {
      std::memset(to, 0, sizeof(Pair) * wide);
    } else if (k + 1 == rows) {
      for (int64_t f = 0; f < wide; ++f) to[f] = f < filters ? from[f] : 0;
      seen.see(from, filters);
    } else {
      const uint16_t *after = from + filters;
      const auto put = [&](int64_t f, Vector<Pair, VL> pairs) {
        store(to + f, pairs);
        least = Smallest::lesser(least, bits_of<Smallest::V>(pairs));
      };
      for (int64_t f = 0; f < whole; f += VL) put(f, pairs_of<VL>(from + f, after + f));
      if (whole == wide) continue;
      uint16_t low[VL] = {}, high[VL] = {};
      std::memcpy(low, from + whole, sizeof(uint16_t) * (filters - whole));
      std::memcpy(high, after + whole, sizeof(uint16_t) * (filters - whole));
      put(whole, pairs_of<VL>(low, high));
    }
  }
  seen.add(least);
}

template <class D, class A, int MAP>
void Call<D, A, MAP>::forward_tiled(const Box &box) {
  const Box seen = seen_by(g, box);
  const int axes = static_cast<int>(g.axes);
  const int64_t lanes = most_lanes(), sample = product(seen.n.data(), axes) * g.channels;
  const int64_t deep = whole_tiles(g.terms, kDeep), wide = whole_tiles(g.filters);
  char *memory = scratch.take(workspace());
  uint16_t *x = part<uint16_t>(memory, lanes * sample + kCopied);
  uint16_t *windows = part<uint16_t>(memory, lanes * deep + kCopied);
  Pair *pairs = part<Pair>(memory, deep / 2 * wide);
  // Sums are held for several positions of a row, so that longer pieces, or whole vectors, are written.
  const int64_t columns = box.n[axes - 1], some = kHeldBytes / (lanes * wide * static_cast<int64_t>(sizeof(A)));
  const int64_t held = std::min(columns, std::max(some, g.dy_step[1] == 1 ? 1 : kTile));
  const int64_t pitch = held * wide + kTile;  // a power of two would put all samples in one set of the cache
  A *y = part<A>(memory, lanes * pitch);
  const std::vector<Run> window_runs = runs(g, seen.n);
  const Source<uint16_t> source{reinterpret_cast<const uint16_t *>(a_), g.x_step, g.input, g.channels, axes};
  const Target<D> written = target();
  TileUnit unit;
  Smallest of_a(smallest_a_), of_b(smallest_b_);
  int64_t paired = -1;
  for (Chunk chunk{0, 0, 0}; chunk.first < g.batch; chunk.first += chunk.count) {
    chunk.count = std::min(g.batch - chunk.first, lanes);
    copy_box(source, seen, chunk, sample, x);
    of_a.see(x, chunk.count * sample);
    Odometer outer(box.n.data(), axes - 1);
    int64_t column = 0;
    for_positions(g, box, seen.n, [&](int64_t at, int64_t start) {
      if (at != paired) {
        pair_rows(reinterpret_cast<const uint16_t *>(b_ + at), g.terms, g.filters, pairs, deep, wide, of_b);
        paired = at;
      }
      for (int64_t n = 0; n < chunk.count; ++n) {
        const uint16_t *from = x + n * sample + start;
        uint16_t *to = windows + n * deep;
        for (const Run &run : window_runs) copy_whole_vectors(from + run.input, run.length, to + run.weights);
        std::memset(to + g.terms, 0, sizeof(uint16_t) * (deep - g.terms));
      }
      A *sums = y + column % held * wide;
      unit.multiply(windows, 2 * deep, pairs, 4 * wide, sums, 4 * pitch, chunk.count, wide, kTile, deep / kDeep,
                    false);
      if (++column % held != 0 && column < columns) return;
      const int64_t count = (column - 1) % held + 1;
      D *to = written.row(box, outer.at) + (column - count) * g.dy_step[1 + axes] + chunk.first * g.dy_step[0];
      for (int64_t n = 0; n < chunk.count; ++n) {
        write_columns<A, kTile>(y + n * pitch, count, wide, written, to + n * g.dy_step[0]);
      }
      if (column == columns) outer.next(), column = 0;
    });
  }
}

}  // namespace lcmulti::LCMULTI_ISA
