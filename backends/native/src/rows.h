// Copies boxes whose lanes are filters, with contiguous rows, and copies rows back.
#pragma once

#include "layout.h"
#include "simd/edges.h"
#include "simd/products.h"
#include "simd/smallest.h"

namespace lcmulti::LCMULTI_ISA {

// A box of the caller's array as (position, group, sample, filter); a row has `pitch` elements, whole vectors.
template <class A, int VL, class D>
void gather_filters(const Source<D> &source, int64_t groups, const Box &box, const Chunk &chunk, int64_t pitch,
                    A *to) {
  const int64_t filters = source.channels / groups, step = source.step[1];
  for (Odometer o(box.n.data(), source.axes); !o.done; o.next()) {
    const D *from = source.data + chunk.first * source.step[0];
    for (int a = 0; a < source.axes; ++a) from += (box.lo[a] + o.at[a]) * source.step[2 + a];
    for (int64_t group = 0; group < groups; ++group, from += filters * step) {
      for (int64_t n = 0; n < chunk.count; ++n, to += pitch) {
        const D *row = from + n * source.step[0];
        int64_t f = 0;
        if (step == 1) {
          for (; f + VL <= filters; f += VL) store(to + f, load_wide<A, VL>(row + f));
          if (f < filters) store(to + f, load_first<A, VL>(row + f, filters - f));
        } else {
          for (; f < filters; f += VL) {
            D some[VL] = {};
            for (int64_t i = 0; i < std::min<int64_t>(VL, filters - f); ++i) some[i] = row[(f + i) * step];
            store(to + f, load_wide<A, VL>(some));
          }
        }
      }
    }
  }
}

// The same for an array whose positions are adjacent.
template <class A, int VL, class D>
void turn_filters(const Source<D> &source, int64_t groups, const Box &box, const Chunk &chunk, int64_t pitch, A *to) {
  const int last = source.axes - 1;
  const int64_t filters = source.channels / groups, step = source.step[1], column = source.step[2 + last];
  const int64_t length = box.n[last], each = chunk.count * pitch;
  for (Odometer outer(box.n.data(), last); !outer.done; outer.next(), to += length * groups * each) {
    const D *from = RowWithin<D>(source, box, outer.at).from + chunk.first * source.step[0];
    for (int64_t n = 0; n < chunk.count; ++n, from += source.step[0]) {
      for (int64_t group = 0; group < groups; ++group) {
        gather<A, VL>(from + group * filters * step, step, column, length, filters, to + group * each + n * pitch,
                      groups * each, static_cast<int>(pitch), VL * step);
      }
    }
  }
}

// The same as pairs of adjacent samples, (position, group, sample / 2, filter), with zeros for missing samples up
// to `samples`.
template <int VL>
void gather_filter_pairs(const Source<uint16_t> &source, int64_t groups, const Box &box, const Chunk &chunk,
                         int64_t samples, int64_t pitch, Pair *to, Smallest &seen) {
  Smallest::V least = Smallest::kNone;
  const int64_t filters = source.channels / groups, step = source.step[1];
  for (Odometer o(box.n.data(), source.axes); !o.done; o.next()) {
    const uint16_t *from = source.data + chunk.first * source.step[0];
    for (int a = 0; a < source.axes; ++a) from += (box.lo[a] + o.at[a]) * source.step[2 + a];
    for (int64_t group = 0; group < groups; ++group, from += filters * step) {
      for (int64_t n = 0; n < chunk.count; n += 2, to += pitch) {
        const uint16_t *row = from + n * source.step[0], *after = row + source.step[0];
        const bool two = n + 1 < chunk.count;
        int64_t f = 0;
        for (; two && step == 1 && f + VL <= filters; f += VL) {
          const Vector<Pair, VL> pairs = pairs_of<VL>(row + f, after + f);
          store(to + f, pairs);
          if constexpr (kHasPairs) least = Smallest::lesser(least, bits_of<Smallest::V>(pairs));
        }
        const int64_t rest = pitch - f;
        for (; f < pitch; ++f) {
          to[f] = f >= filters ? 0 : row[f * step] | (two ? static_cast<Pair>(after[f * step]) << 16 : 0);
        }
        if (rest > 0) seen.see(to + pitch - rest, 2 * rest);
      }
      const int64_t beyond = (samples - chunk.count) / 2 * pitch;
      std::memset(to, 0, sizeof(Pair) * beyond);
      to += beyond;
    }
  }
  seen.add(least);
}

template <class A, int VL, class D>
LCMULTI_INLINE void write_row(const A *from, int64_t length, D *to) {
  int64_t i = 0;
  for (; i + VL <= length; i += VL) store_narrow<D, VL, A>(to + i, load<A, VL>(from + i), false);
  if (i < length) store_first<D, VL, A>(to + i, load_first<A, VL>(from + i, length - i), length - i);
}

// One row of a box along the last axis, in the order (column, channel), with `pitch` elements for each column.
template <class A, int VL, class D>
void write_columns(const A *from, int64_t columns, int64_t pitch, const Target<D> &target, D *to) {
  const int64_t channels = target.channels, channel = target.step[1], column = target.step[1 + target.axes];
  if (target.rows_are_runs() && pitch == channels) {
    write_row<A, VL>(from, columns * channels, to);
  } else if (channel == 1) {
    for (int64_t i = 0; i < columns; ++i) write_row<A, VL>(from + i * pitch, channels, to + i * column);
  } else if (column == 1) {
    scatter<A, VL>(from, pitch, columns, channels, to, channel, false);
  } else {
    for (int64_t i = 0; i < columns; ++i) {
      scatter<A, VL>(from + i * pitch, 0, 1, channels, to + i * column, channel, false);
    }
  }
}

// Writes a box that is a separate array (batch, *box, channels).
template <class A, int VL, class D>
void write_rows(const A *from, const Box &box, int64_t batch, const Target<D> &target) {
  const int last = target.axes - 1;
  for (int64_t n = 0; n < batch; ++n) {
    for (Odometer outer(box.n.data(), last); !outer.done; outer.next(), from += box.n[last] * target.channels) {
      write_columns<A, VL>(from, box.n[last], target.channels, target, target.row(box, outer.at) + n * target.step[0]);
    }
  }
}

}  // namespace lcmulti::LCMULTI_ISA
