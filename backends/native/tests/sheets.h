// Random calls of lcmulti_cosines for the fuzzer, compared with a direct evaluation in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "buffer.h"

struct Pairs {
  int64_t rows[2], columns[2], down, right, filter, shift;
  std::vector<int64_t> weights;  // small integers, so that sums of products are exact
};

struct RandomSheet {
  int64_t dtype, threads, rows, columns, weights, filters;
  std::vector<Pairs> links;

  explicit RandomSheet(Random &random) {
    const bool large = draw(random, 0, 15) == 0;  // several threads share it
    dtype = draw(random, 0, 1) ? LCMULTI_FLOAT32 : LCMULTI_FLOAT64, threads = draw(random, 0, 3);
    rows = draw(random, 1, large ? 16 : 5), columns = draw(random, 1, large ? 16 : 5);
    weights = draw(random, 1, large ? 90 : 40), filters = draw(random, 1, 40);
    for (int64_t l = draw(random, 0, 4); l > 0; --l) {
      Pairs link{};
      link.down = some(random, rows, link.rows), link.right = some(random, columns, link.columns);
      int64_t run[2];
      link.shift = some(random, filters, run), link.filter = run[0];
      for (int64_t f = run[0]; f < run[1]; ++f) link.weights.push_back(draw(random, -2, 2));
      links.push_back(link);
    }
  }

  std::vector<int64_t> call(int map) const {
    const auto count = static_cast<int64_t>(links.size());
    std::vector<int64_t> result{map, dtype, threads, rows, columns, weights, filters, count};
    for (const Pairs &link : links) {
      result.insert(result.end(), {link.rows[0], link.rows[1], link.columns[0], link.columns[1], link.down, link.right,
                                   link.filter, link.shift, static_cast<int64_t>(link.weights.size())});
      for (const int64_t weight : link.weights) {
        const auto value = static_cast<double>(weight);
        result.emplace_back();
        std::memcpy(&result.back(), &value, sizeof value);
      }
    }
    return result;
  }

  // Calls body(one filter, the other, weight) for each pair; filters are numbered over all positions.
  template <class Body>
  void each_pair(Body &&body) const {
    for (const Pairs &link : links) {
      for (int64_t r = link.rows[0]; r < link.rows[1]; ++r) {
        for (int64_t c = link.columns[0]; c < link.columns[1]; ++c) {
          for (int64_t i = 0; i < static_cast<int64_t>(link.weights.size()); ++i) {
            const int64_t one = (r * columns + c) * filters + link.filter + i;
            const int64_t move = (link.down * columns + link.right) * filters + link.shift;
            body(one, one + move, static_cast<double>(link.weights[i]));
          }
        }
      }
    }
  }

  int64_t all() const { return rows * columns * filters; }
  // The place of a weight of a filter in the kernel.
  int64_t place(int64_t filter, int64_t w) const {
    return (filter / filters * weights + w) * filters + filter % filters;
  }

 private:
  // A range of `size`, which may be empty, and a distance at which it is still within.
  static int64_t some(Random &random, int64_t size, int64_t *range) {
    const int64_t move = draw(random, 1 - size, size - 1);
    range[0] = draw(random, std::max<int64_t>(-move, 0), std::min(size - move, size));
    range[1] = draw(random, range[0], std::min(size - move, size));
    return move;
  }
};

inline const char *wrong_sums(const RandomSheet &s, const Buffer &kernel, const Buffer &bias, const Buffer &result) {
  const auto size = static_cast<size_t>(s.all());
  std::vector<double> lengths(size), along(size), most(size);
  const auto product = [&](int64_t one, int64_t other) {
    double sum = bias.get(one) * bias.get(other);
    for (int64_t w = 0; w < s.weights; ++w) sum += kernel.get(s.place(one, w)) * kernel.get(s.place(other, w));
    return sum;
  };
  const auto inverse = [&](int64_t i) { return 1 / std::sqrt(lengths[i] + 1e-24); };
  const auto scale = [&](int64_t i) { return lengths[i] * std::pow(inverse(i), 3); };
  for (int64_t i = 0; i < s.all(); ++i) lengths[i] = product(i, i);
  s.each_pair([&](int64_t one, int64_t other, double weight) {
    const double found = weight * product(one, other);
    along[one] += found * scale(other), along[other] += found * scale(one);
    most[one] += std::abs(found * scale(other)), most[other] += std::abs(found * scale(one));
  });
  const double unit = s.dtype == LCMULTI_FLOAT64 ? 0x1p-48 : 0x1p-19;
  const auto differs = [&](int64_t i, double value, double limit) {
    return !(std::abs(result.get(i) - value) <= unit * limit);
  };
  for (int64_t i = 0; i < s.all(); ++i) {
    const double share = lengths[i] * inverse(i) * inverse(i), cube = std::pow(inverse(i), 3);
    if (differs(i, scale(i), scale(i)) || differs(s.all() + i, scale(i), scale(i))) return "a wrong scale";
    if (differs(2 * s.all() + i, along[i] * cube * (3 * share - 2), most[i] * cube)) return "a wrong part along";
    if (differs(3 * s.all() + i, along[i] * scale(i), most[i] * scale(i))) return "a wrong sum of cosines";
  }
  return nullptr;
}

inline const char *wrong_slopes(const RandomSheet &s, const Buffer &kernel, const Buffer &sums, const Buffer &result) {
  std::vector<double> expected(static_cast<size_t>(kernel.count()));
  const auto add = [&](int64_t to, int64_t from, double factor) {
    for (int64_t w = 0; w < s.weights; ++w) expected[s.place(to, w)] += factor * kernel.get(s.place(from, w));
  };
  for (int64_t i = 0; i < s.all(); ++i) add(i, i, -sums.get(2 * s.all() + i));
  s.each_pair([&](int64_t one, int64_t other, double weight) {
    add(one, other, weight * sums.get(one) * sums.get(s.all() + other));
    add(other, one, weight * sums.get(other) * sums.get(s.all() + one));
  });
  for (int64_t i = 0; i < kernel.count(); ++i) {
    if (!(result.get(i) == expected[static_cast<size_t>(i)])) return "a wrong slope";  // all is exact
  }
  return nullptr;
}

inline const char *sheet_fault(Random &random, lcmulti_parallel lender) {
  const RandomSheet sheet(random);
  const auto offset = static_cast<size_t>(draw(random, 0, 3));
  Buffer kernel(sheet.all() * sheet.weights, sheet.dtype, offset);
  kernel.fill(random, 1);
  for (const int map : {LCMULTI_COSINE_SUMS, LCMULTI_COSINE_SLOPES}) {
    const bool is_sums = map == LCMULTI_COSINE_SUMS;
    Buffer other(sheet.all() * (is_sums ? 1 : 4), sheet.dtype, offset);
    Buffer result(is_sums ? 4 * sheet.all() : kernel.count(), sheet.dtype, offset);
    other.fill(random, 1);
    const Buffer kernel_before = kernel, other_before = other;
    const std::vector<int64_t> call = sheet.call(map);
    const auto length = static_cast<int64_t>(call.size());
    if (lcmulti_cosines(lender, call.data(), length, kernel.data(), other.data(), result.data()) != LCMULTI_OK) {
      return "refused";
    }
    if (!result.canaries_alive()) return "wrote beyond the result";
    if (!(kernel == kernel_before && other == other_before)) return "changed an input";
    const char *wrong = is_sums ? wrong_sums(sheet, kernel, other, result) : wrong_slopes(sheet, kernel, other, result);
    if (wrong) return wrong;
  }
  return nullptr;
}
