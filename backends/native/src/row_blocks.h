// For calls without transposition of input and output: the rows of the result, divided into blocks whose weights
// stay in the cache while all samples are computed.
#pragma once

#include <type_traits>

#include "plan.h"

namespace lcmulti {

// Bytes of the weights of a block: together with the inputs of some samples, they fit the second-level cache.
constexpr int64_t kBlockBytes = 64 << 10;

// The number of axes before the last one that count rows, after contiguous rows are merged. These axes are
// pixels. Between positions there are `run` elements of x and `column` elements of y.
inline int axes_of_rows(const Geometry &g, int64_t run, int64_t column) {
  int outer = g.last();
  for (int64_t positions = g.output[outer]; outer > 0; positions *= g.output[--outer]) {
    if (g.x_step[1 + outer] != positions * run || g.dy_step[1 + outer] != positions * column) break;
  }
  return outer;
}

// A row consists of groups of positions, as many as fit in a vector. A block is some groups in order.
struct RowBlocks {
  const int64_t *size;    // of the array
  int outer;              // axes that count rows
  int64_t rows, columns;  // columns: positions of a row
  int64_t group, in_row;  // positions of a group, groups of a row
  int64_t bytes;          // of the weights of a group
  int64_t most, tasks;    // groups of a block, or one more; blocks
  int64_t threads;

  RowBlocks(const Geometry &g, const int64_t *array, int rows_axes, int64_t positions, int64_t group_bytes,
            int64_t most_rows)
      : size(array), outer(rows_axes), rows(product(size, outer)), columns(product(size + outer, g.axes - outer)),
        group(positions), in_row((columns + group - 1) / group), bytes(group_bytes) {
    const int64_t fit = std::min(std::max<int64_t>(kBlockBytes / bytes, 1), most_rows * in_row);
    most = std::clamp<int64_t>(in_row * rows / (4 * g.threads), 1, fit);
    tasks = (in_row * rows + most - 1) / most;
    const double products = static_cast<double>(g.batch) * static_cast<double>(g.weights);
    threads = products < kSmall ? 1 : g.threads;
  }

  // Of the weights of a block.
  int64_t scratch_bytes() const { return (most + 1) * bytes; }

  // The groups of a block that belong to one row.
  struct Run {
    int64_t row, first, count;  // `first` is the number within the row
    int64_t at;                 // the number of the first one within the block
  };

  template <class Body>
  void for_rows(int64_t task, Body &&body) const {
    const int64_t start = first_of(task), end = first_of(task + 1);
    for (int64_t i = start, count; i < end; i += count) {
      const int64_t first = i % in_row;
      count = std::min(in_row - first, end - i);
      body(Run{i / in_row, first, count, i - start});
    }
  }

  // The first group of a block. The last group of a row may overlap the one before it, so one task has both.
  int64_t first_of(int64_t task) const {
    const int64_t i = std::min(task * most, in_row * rows);
    return i + (columns % group != 0 && in_row > 1 && i % in_row == in_row - 1);
  }

  // The index of a row along the axes that count rows, and its offset.
  Index at(int64_t row) const {
    Index result{};
    for (int a = outer - 1; a >= 0; row /= size[a--]) result[a] = row % size[a];
    return result;
  }
  int64_t offset(const Index &row, const int64_t *step) const {
    int64_t elements = 0;
    for (int a = 0; a < outer; ++a) elements += row[a] * step[2 + a];
    return elements;
  }
};

// Calls body(first, how many) for `count` samples; a weight is loaded once for several samples.
template <int TOGETHER, class Body>
void for_samples(int64_t count, Body &&body) {
  int64_t n = 0;
  for (; n + TOGETHER <= count; n += TOGETHER) body(n, std::integral_constant<int, TOGETHER>{});
  for (; n < count; ++n) body(n, std::integral_constant<int, 1>{});
}

}  // namespace lcmulti
