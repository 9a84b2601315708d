// Copies between the caller's arrays and boxes with samples innermost, (position, channel, sample). A box has
// zeros where it reaches beyond the array.
#pragma once

#include <algorithm>

#include "plan.h"
#include "simd/edges.h"
#include "simd/shuffles.h"

namespace lcmulti::LCMULTI_ISA {

// Bytes that are prefetched during a transposition. Samples are more streams than the processor prefetches by
// itself.
constexpr int kAhead = 256;

// A shorter row ends before the processor prefetches it. With channels first, the row of the next channel
// follows.
template <class D>
bool is_short(int64_t length) {
  return length * static_cast<int64_t>(sizeof(D)) < 2 * kAhead;
}

// (count samples `step` apart, length elements `pitch` apart) -> (length rows, lanes), with row j at place(j).
// Prefetches the elements `ahead` elements further on.
template <class A, int VL, class D, class Place>
LCMULTI_INLINE void gather_at(const D *from, int64_t step, int64_t pitch, int64_t length, int64_t count, int lanes,
                              int64_t ahead, Place &&place) {
  for (int64_t n = 0; n < lanes; n += VL) {
    const int64_t rows = count - n < VL ? count - n : VL;
    const D *base = from + n * step;
    if (step == 1 && pitch != 1 && rows > 0) {
      for (int64_t j = 0; j < length; ++j) {
        const D *each = base + j * pitch;
        store(place(j) + n, rows == VL ? load_wide<A, VL>(each) : load_first<A, VL>(each, rows));
      }
      continue;
    }
    if (rows <= 0 || pitch != 1) {
      for (int64_t j = 0; j < length; ++j) {
        D part[VL] = {};
        for (int64_t q = 0; q < rows; ++q) part[q] = base[q * step + j * pitch];
        store(place(j) + n, load_wide<A, VL>(part));
      }
      continue;
    }
    for (int64_t j = 0; j < length; j += VL) {
      // The last columns overlap the ones before: copying some twice is faster than one by one.
      if (length - j < VL && length >= VL) j = length - VL;
      const int64_t columns = length - j < VL ? length - j : VL;
      Vector<A, VL> block[VL];
      if (columns == VL && rows == VL) {
#pragma GCC unroll 16
        for (int q = 0; q < VL; ++q) {
          block[q] = load_wide<A, VL>(base + q * step + j);
          __builtin_prefetch(base + q * step + j + ahead, 0, 3);
        }
      } else {
        for (int q = 0; q < VL; ++q) {
          if (q < rows) __builtin_prefetch(base + q * step + j + ahead, 0, 3);
          block[q] = q < rows ? columns == VL ? load_wide<A, VL>(base + q * step + j)
                                              : load_first<A, VL>(base + q * step + j, columns)
                              : Vector<A, VL>{};
        }
      }
      transpose(block);
      if (columns == VL) {
#pragma GCC unroll 16
        for (int q = 0; q < VL; ++q) store(place(j + q) + n, block[q]);
      } else {
        for (int q = 0; q < columns; ++q) store(place(j + q) + n, block[q]);
      }
    }
  }
}

// The same with rows `row` apart.
template <class A, int VL, class D>
void gather(const D *from, int64_t step, int64_t pitch, int64_t length, int64_t count, A *to, int64_t row, int lanes,
            int64_t ahead = kAhead / sizeof(D)) {
  gather_at<A, VL>(from, step, pitch, length, count, lanes, ahead, [to, row](int64_t j) { return to + j * row; });
}

// The way back: from rows to adjacent elements. If `ahead` is not 0, prefetches the elements that far ahead for
// writing.
template <class A, int VL, class D, class Place>
LCMULTI_INLINE void scatter_from(int64_t length, int64_t count, D *to, int64_t step, bool streamed, int64_t ahead,
                                 Place &&place) {
  for (int64_t n = 0; n < count; n += VL) {
    const int64_t rows = count - n < VL ? count - n : VL;
    D *base = to + n * step;
    for (int64_t j = 0; j < length; j += VL) {
      if (length - j < VL && length >= VL) j = length - VL;
      const int64_t columns = length - j < VL ? length - j : VL;
      Vector<A, VL> block[VL];
      if (columns == VL) {
#pragma GCC unroll 16
        for (int q = 0; q < VL; ++q) block[q] = load<A, VL>(place(j + q) + n);
      } else {
        for (int q = 0; q < VL; ++q) {
          block[q] = q < columns ? load<A, VL>(place(j + q) + n) : Vector<A, VL>{};
        }
      }
      if (ahead) {
        for (int q = 0; q < rows; ++q) __builtin_prefetch(base + q * step + j + ahead, 1, 3);
      }
      transpose(block);
      if (columns == VL && rows == VL) {
#pragma GCC unroll 16
        for (int q = 0; q < VL; ++q) store_narrow<D, VL, A>(base + q * step + j, block[q], streamed);
      } else if (columns == VL) {
        for (int q = 0; q < rows; ++q) store_narrow<D, VL, A>(base + q * step + j, block[q], streamed);
      } else {
        for (int q = 0; q < rows; ++q) store_first<D, VL, A>(base + q * step + j, block[q], columns);
      }
    }
  }
}

template <class A, int VL, class D>
void scatter(const A *from, int64_t row, int64_t length, int64_t count, D *to, int64_t step, bool streamed,
             int64_t ahead = 0) {
  scatter_from<A, VL>(length, count, to, step, streamed, ahead, [from, row](int64_t j) { return from + j * row; });
}

// An array of the caller to read, with any strides.
template <class D>
struct Source {
  const D *data;
  const int64_t *step;  // batch, channels, axes
  const int64_t *size;
  int64_t channels;
  int axes;
};

// The part of a box's row (along the last axis, at `outer` along the others) that lies within the array: from
// column lo to hi; none if the row is outside.
template <class D>
struct RowWithin {
  const D *from;  // column lo of the first sample
  int64_t lo, hi;

  RowWithin(const Source<D> &source, const Box &box, const Index &outer) : from(source.data) {
    const int last = source.axes - 1;
    lo = box.lo[last] < 0 ? -box.lo[last] : 0;
    hi = std::min(box.n[last], source.size[last] - box.lo[last]);
    bool within = lo < hi;
    for (int a = 0; a < last; ++a) {
      const int64_t i = box.lo[a] + outer[a];
      within &= i >= 0 && i < source.size[a];
      from += i * source.step[2 + a] * within;
    }
    if (within) {
      from += (box.lo[last] + lo) * source.step[2 + last];
    } else {
      lo = hi = 0;
    }
  }
};

template <class A, int VL, class D>
void gather_box(const Source<D> &source, const Box &box, const Chunk &chunk, A *to) {
  const int last = source.axes - 1, lanes = chunk.padded;
  const int64_t row = source.channels * lanes, batch = source.step[0], channel = source.step[1];
  const int64_t column = source.step[2 + last];
  for (Odometer outer(box.n.data(), last); !outer.done; outer.next(), to += box.n[last] * row) {
    const RowWithin<D> in(source, box, outer.at);
    const int64_t length = in.hi - in.lo;
    const D *from = in.from + chunk.first * batch;
    A *inner = to + in.lo * row;
    std::memset(to, 0, sizeof(A) * in.lo * row);
    std::memset(to + in.hi * row, 0, sizeof(A) * (box.n[last] - in.hi) * row);
    if (length == 0) continue;
    if (channel == 1 && column == source.channels) {
      gather<A, VL>(from, batch, 1, length * source.channels, chunk.count, inner, lanes, lanes);
    } else if (channel == 1 && source.channels > 1) {
      for (int64_t i = 0; i < length; ++i) {
        gather<A, VL>(from + i * column, batch, 1, source.channels, chunk.count, inner + i * row, lanes, lanes);
      }
    } else {
      for (int64_t c = 0; c < source.channels; ++c) {
        const int64_t ahead = is_short<D>(length) && c + 1 < source.channels ? channel : kAhead / sizeof(D);
        gather<A, VL>(from + c * channel, batch, column, length, chunk.count, inner + c * lanes, row, lanes, ahead);
      }
    }
  }
}

// A box as a separate array (sample, *box, channels), with `sample` elements between samples, and zeros where
// it reaches beyond the caller's array. Whole vectors are written: up to 15 more elements at the end.
template <class D>
void copy_box(const Source<D> &source, const Box &box, const Chunk &chunk, int64_t sample, D *to) {
  constexpr int VL = 16;
  const int last = source.axes - 1;
  const int64_t channels = source.channels, channel = source.step[1], column = source.step[2 + last];
  for (int64_t n = 0; n < chunk.count; ++n, to += sample) {
    D *row = to;
    for (Odometer outer(box.n.data(), last); !outer.done; outer.next(), row += box.n[last] * channels) {
      const RowWithin<D> in(source, box, outer.at);
      const D *from = in.from + (chunk.first + n) * source.step[0];
      D *inner = row + in.lo * channels, *end = row + in.hi * channels;
      std::memset(row, 0, sizeof(D) * in.lo * channels);
      if (in.lo == in.hi) {  // nothing but padding
      } else if (channel == 1 && column == channels) {
        copy_row(from, end - inner, inner);
      } else if (channel == 1) {
        for (; inner < end; inner += channels, from += column) copy_row(from, channels, inner);
      } else {
        // The rest that is less than a vector comes first. It is also written as a vector, into the next column.
        const int whole = static_cast<int>(channels / VL * VL);
        const int64_t length = in.hi - in.lo, rest = channels - whole;
        if (rest > 0) gather<D, VL>(from + whole * channel, channel, column, length, rest, inner + whole, channels, VL);
        gather<D, VL>(from, channel, column, length, whole, inner, channels, whole);
      }
      std::memset(end, 0, sizeof(D) * (box.n[last] - in.hi) * channels);
    }
  }
}

// An array to write; `step` has its strides along batch, channels and axes.
template <class D>
struct Target {
  D *data;
  const int64_t *step;
  int64_t channels;
  int axes;

  bool rows_are_runs() const { return step[1] == 1 && step[1 + axes] == channels; }
  // The part of the first sample in a box's row along the last axis.
  D *row(const Box &box, const Index &outer) const {
    D *to = data + box.lo[axes - 1] * step[1 + axes];
    for (int a = 0; a + 1 < axes; ++a) to += (box.lo[a] + outer[a]) * step[2 + a];
    return to;
  }
};

template <class A, int VL, class D>
void scatter_box(const A *from, const Box &box, const Chunk &chunk, const Target<D> &target, bool streamed) {
  const int last = target.axes - 1;
  const int64_t sample = target.step[0], channel = target.step[1], column = target.step[2 + last];
  const int64_t channels = target.channels, row = channels * chunk.padded, columns = box.n[last];
  for (Odometer outer(box.n.data(), last); !outer.done; outer.next(), from += columns * row) {
    D *to = target.row(box, outer.at) + chunk.first * sample;
    const auto put = [&](const A *rows, int64_t apart, int64_t length, D *at) {
      scatter<A, VL>(rows, apart, length, chunk.count, at, sample, streamed);
    };
    if (target.rows_are_runs()) {
      put(from, chunk.padded, columns * channels, to);
    } else if (channel == 1) {
      for (int64_t i = 0; i < columns; ++i) put(from + i * row, chunk.padded, channels, to + i * column);
    } else if (column == 1) {
      for (int64_t c = 0; c < channels; ++c) {  // they begin and end within cache lines, so they are not streamed
        const int64_t ahead = is_short<D>(columns) && c + 1 < channels ? channel : 0;
        scatter<A, VL>(from + c * chunk.padded, row, columns, chunk.count, to + c * channel, sample, false, ahead);
      }
    } else {
      for (int64_t i = 0; i < columns * channels; ++i) {
        put(from + i * chunk.padded, 0, 1, to + i / channels * column + i % channels * channel);
      }
    }
  }
}

}  // namespace lcmulti::LCMULTI_ISA
