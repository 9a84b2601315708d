// A call about cosines of filters that are neighbours on a sheet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "lcmulti_native.h"

namespace lcmulti {

// Pairs of filters: the first ones are at positions in some rows and columns, the second ones some positions
// further. They are filters `filter` to `filter + length - 1` there, and filters `shift` further.
struct Link {
  int64_t rows[2], columns[2];  // from and to, exclusive
  int64_t down, right, filter, shift, length;
  const int64_t *weights;  // of the cosine of each pair at a position, the bits of doubles

  double weight(int64_t i) const {
    double value;
    std::memcpy(&value, weights + i, sizeof value);
    return value;
  }
  bool has(int64_t row, int64_t column) const {
    return row >= rows[0] && row < rows[1] && column >= columns[0] && column < columns[1];
  }
  // Products of all pairs, and the first one of a position among them.
  size_t products() const { return static_cast<size_t>((rows[1] - rows[0]) * (columns[1] - columns[0]) * length); }
  size_t product(int64_t row, int64_t column) const {
    return static_cast<size_t>(((row - rows[0]) * (columns[1] - columns[0]) + column - columns[0]) * length);
  }
};

struct Sheet {
  int64_t map = 0, dtype = 0, threads = 0, rows = 0, columns = 0, weights = 0, filters = 0;
  std::vector<Link> links;
  lcmulti_parallel lender = nullptr;

  int64_t positions() const { return rows * columns; }
  int64_t elements() const { return positions() * weights * filters; }
  // Whether arrays of so many elements are those of this call.
  bool takes(int64_t a, int64_t b, int64_t result) const {
    const int64_t all = positions() * filters;
    return a == elements() && (map == LCMULTI_COSINE_SUMS ? b == all && result == 4 * all : b == 4 * all && result == a);
  }
  int64_t item() const { return dtype == LCMULTI_FLOAT64 ? 8 : 4; }
};

// Reads a call, which may come from a file; false if there is no such call.
bool read(const int64_t *call, int64_t length, Sheet &sheet);

}  // namespace lcmulti
