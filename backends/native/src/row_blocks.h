// Of calls for which neither input nor output is turned, the rows of what is written, cut into blocks whose
// weights stay in the cache while all samples pass.
#pragma once

#include <type_traits>

#include "plan.h"

namespace lcmulti {

// Weights of a block: with the inputs of some samples they stay in the second-level cache.
constexpr int64_t kBlockBytes = 64 << 10;

// Whether windows hold one position along an axis, each another.
inline bool is_pixels(const Geometry &g, int axis) {
  return g.kernel[axis] == 1 && g.stride[axis] == 1 && g.pad[axis] == 0 && g.output[axis] == g.input[axis];
}

// Of axes before the last, which are pixels, how many count rows, if those that lie one after the other are
// one: from one position to the next there are `run` elements of x and `column` of y.
inline int axes_of_rows(const Geometry &g, int64_t run, int64_t column) {
  int outer = g.last();
  for (int64_t positions = g.output[outer]; outer > 0; positions *= g.output[--outer]) {
    if (g.x_step[1 + outer] != positions * run || g.dy_step[1 + outer] != positions * column) break;
  }
  return outer;
}

// Rows are groups of positions, as many as a vector takes; a block is some groups in order.
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

  // Groups of a block that are of one row.
  struct Run {
    int64_t row, first, count;  // `first` of the row's
    int64_t at;                 // the same of the block's
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

  // The first group of a block. The last of a row may overlap the one before it, so these are one task's.
  int64_t first_of(int64_t task) const {
    const int64_t i = std::min(task * most, in_row * rows);
    return i + (columns % group != 0 && in_row > 1 && i % in_row == in_row - 1);
  }

  // Where a row is along the axes that count them, and elements to it.
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

// body(first, how many) for `count` samples, of which a weight is fetched for several at once.
template <int TOGETHER, class Body>
void for_samples(int64_t count, Body &&body) {
  int64_t n = 0;
  for (; n + TOGETHER <= count; n += TOGETHER) body(n, std::integral_constant<int, TOGETHER>{});
  for (; n < count; ++n) body(n, std::integral_constant<int, 1>{});
}

}  // namespace lcmulti
