// Cosines of filters that are neighbours on a sheet, and their gradient: lcmulti_cosines.
//
// Both go over the kernel once. A filter is a column of its position's matrix (weights, filters), so filters are
// the lanes of vectors, and a neighbour is the same memory at a distance.
#include "neighbours.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels.h"
#include "pool.h"
#include "simd/vector.h"

namespace lcmulti::LCMULTI_ISA {
namespace {

// Added to squared lengths: the cosine of a filter of zeros is 0, and so is its gradient.
template <class D>
constexpr D kTiny = static_cast<D>(1e-24);
constexpr int64_t kFewElements = 1 << 15;  // of a kernel that one thread computes
constexpr int64_t kBlockBytes = 16 << 10;  // of weights, which are read once for each neighbour

template <class D>
class Neighbours {
 public:
  explicit Neighbours(const Sheet &sheet) : s(sheet), block_(s.weights * s.filters) {
    for (const Link &link : s.links) {
      weights_.emplace_back(link.length);
      for (int64_t i = 0; i < link.length; ++i) weights_.back()[i] = static_cast<D>(link.weight(i));
    }
  }

  bool sums(const D *kernel, const D *bias, D *result) {
    read_ends(kernel);
    lengths_.resize(s.positions() * s.filters), scales_.resize(lengths_.size());
    for (const Link &link : s.links) products_.emplace_back(link.products());
    return with_lanes([&](auto lanes) {
      return each_part([&](int64_t first, int64_t end) { multiply<lanes>(first, end, bias); });
    }) && each_part([&](int64_t first, int64_t end) { add_up(first, end, result); });
  }

  bool slopes(const D *array, const D *sums, D *result) {
    read_ends(array);
    return with_lanes([&](auto lanes) {
      return each_part([&](int64_t first, int64_t end) { slopes<lanes>(first, end, sums, result); });
    });
  }

 private:
  // A link from one of its ends: the first of `length` filters there, the position of their neighbours, which are
  // `shift` filters further, and the first of the products of both.
  struct Side {
    size_t link;
    int64_t other, filter, length, shift;
    size_t product;
  };

  const Sheet &s;
  const int64_t block_;
  const D *array_ = nullptr;
  // Vectors of shifted filters begin before, and end after, the weights of a position. So the first and the last
  // position are read from copies with room around.
  std::vector<D> first_, last_;
  std::vector<std::vector<D>> weights_, products_;  // of each link
  std::vector<D> lengths_, scales_;                 // of each filter: its squared length, one over its length

  void read_ends(const D *array) {
    array_ = array;
    const auto copy = [this](const D *from, std::vector<D> &to) {
      to.assign(block_ + 2 * s.filters, D{0});
      std::copy(from, from + block_, to.begin() + s.filters);
    };
    copy(array, first_);
    copy(array + (s.positions() - 1) * block_, last_);
  }

  const D *kernel(int64_t at) const {
    if (at == 0) return first_.data() + s.filters;
    if (at == s.positions() - 1) return last_.data() + s.filters;
    return array_ + at * block_;
  }

  // Calls task(first, end) for ranges of positions.
  template <class Task>
  bool each_part(Task &&task) const {
    const int64_t threads = s.elements() < kFewElements ? 1 : s.threads;
    const int64_t count = std::min(s.positions(), threads == 1 ? 1 : 8 * threads);
    return parallel_for(count, threads, s.lender, [&](int64_t part) {
      task(s.positions() * part / count, s.positions() * (part + 1) / count);
    });
  }

  // Calls body(lanes) with as many lanes as a vector has, or fewer if there are fewer filters.
  template <class Body>
  bool with_lanes(Body &&body) const {
    constexpr int most = kVectorBytes / sizeof(D);
    if (s.filters >= most) return body(std::integral_constant<int, most>{});
    if constexpr (most > 4) {
      if (s.filters >= 4) return body(std::integral_constant<int, 4>{});
    }
    return body(std::integral_constant<int, 1>{});
  }

  // Calls body(from) with the first filter of each vector that has some of these. The last vector of all filters
  // overlaps the one before, so that it does not end too late.
  template <int VL, class Body>
  void each_vector(int64_t filter, int64_t length, Body &&body) const {
    for (int64_t v = 0; v < s.filters; v += VL) {
      const int64_t from = std::min(v, s.filters - VL);
      if (from < filter + length && filter < from + VL) body(from);
    }
  }

  // Calls body(side) for each link whose first filters are at a position; with `both`, also for the second ones.
  template <class Body>
  void each_side(int64_t at, bool both, Body &&body) const {
    const int64_t row = at / s.columns, column = at % s.columns;
    for (size_t l = 0; l < s.links.size(); ++l) {
      const Link &link = s.links[l];
      const int64_t move = link.down * s.columns + link.right;
      if (link.has(row, column)) {
        body(Side{l, at + move, link.filter, link.length, link.shift, link.product(row, column)});
      }
      if (both && link.has(row - link.down, column - link.right)) {
        body(Side{l, at - move, link.filter + link.shift, link.length, -link.shift,
                  link.product(row - link.down, column - link.right)});
      }
    }
  }

  // The sums over the weights of the products of two vectors of filters, a few weights at a time.
  template <int VL>
  struct Product {
    const D *a, *b;
    Vector<D, VL> sum;

    void add(int64_t weights, int64_t pitch) {
      Vector<D, VL> even{}, odd{};
      for (int64_t w = 1; w < weights; w += 2, a += 2 * pitch, b += 2 * pitch) {
        even += load<D, VL>(a) * load<D, VL>(b);
        odd += load<D, VL>(a + pitch) * load<D, VL>(b + pitch);
      }
      if (weights % 2) even += load<D, VL>(a) * load<D, VL>(b), a += pitch, b += pitch;
      sum += even + odd;
    }
  };

  // The squared lengths of the filters, and their products with their neighbours.
  template <int VL>
  void multiply(int64_t first, int64_t end, const D *bias) {
    std::vector<Product<VL>> products;
    std::vector<D> found(s.filters);
    const int64_t rows = std::max<int64_t>(kBlockBytes / (s.filters * static_cast<int64_t>(sizeof(D))), 2) / 2 * 2;
    for (int64_t at = first; at < end; ++at) {
      const D *own = kernel(at), *own_bias = bias + at * s.filters;
      const auto with = [&](const D *other) {
        return [&products, own, other](int64_t from) {
          products.push_back(Product<VL>{own + from, other + from, Vector<D, VL>{}});
        };
      };
      products.clear();
      each_vector<VL>(0, s.filters, with(own));
      each_side(at, false, [&](const Side &side) {
        each_vector<VL>(side.filter, side.length, with(kernel(side.other) + side.shift));
      });
      for (int64_t w = 0; w < s.weights; w += rows) {
        for (Product<VL> &each : products) each.add(std::min(rows, s.weights - w), s.filters);
      }
      auto product = products.begin();
      const auto take = [&](int64_t from) { store(found.data() + from, (product++)->sum); };
      each_vector<VL>(0, s.filters, take);
      D *lengths = lengths_.data() + at * s.filters, *scales = scales_.data() + at * s.filters;
      for (int64_t f = 0; f < s.filters; ++f) {
        lengths[f] = found[f] + own_bias[f] * own_bias[f];
        const D inverse = 1 / std::sqrt(lengths[f] + kTiny<D>);
        scales[f] = lengths[f] * inverse * inverse * inverse;
      }
      each_side(at, false, [&](const Side &side) {
        each_vector<VL>(side.filter, side.length, take);
        const D *mine = own_bias + side.filter, *other = bias + side.other * s.filters + side.filter + side.shift;
        D *to = products_[side.link].data() + side.product;
        for (int64_t i = 0; i < side.length; ++i) to[i] = found[side.filter + i] + mine[i] * other[i];
      });
    }
  }

  // From these, what the gradient of each filter is made of, and the sum of its cosines.
  void add_up(int64_t first, int64_t end, D *result) const {
    const int64_t size = s.positions() * s.filters;
    std::vector<D> along(s.filters);
    for (int64_t at = first; at < end; ++at) {
      std::fill(along.begin(), along.end(), D{0});
      each_side(at, true, [&](const Side &side) {
        const D *products = products_[side.link].data() + side.product, *weights = weights_[side.link].data();
        const D *scales = scales_.data() + side.other * s.filters + side.filter + side.shift;
        D *to = along.data() + side.filter;
        for (int64_t i = 0; i < side.length; ++i) to[i] += weights[i] * products[i] * scales[i];
      });
      const D *lengths = lengths_.data() + at * s.filters, *scales = scales_.data() + at * s.filters;
      D *to = result + at * s.filters;
      for (int64_t f = 0; f < s.filters; ++f) {
        const D inverse = 1 / std::sqrt(lengths[f] + kTiny<D>), share = lengths[f] * inverse * inverse;
        to[f] = to[size + f] = scales[f];
        to[2 * size + f] = along[f] * inverse * inverse * inverse * (3 * share - 2);
        to[3 * size + f] = along[f] * scales[f];
      }
    }
  }

  // One summand of a vector of the gradient, for each weight of its filters.
  struct Term {
    const D *from, *factor;
  };

  // The gradient in the weights of each filter: those of its neighbours, less what goes along its own.
  template <int VL>
  void slopes(int64_t first, int64_t end, const D *sums, D *result) const {
    const int64_t size = s.positions() * s.filters;
    std::vector<D> factors((2 * s.links.size() + 1) * s.filters);
    std::vector<Side> sides;
    std::vector<Term> terms;
    std::vector<int64_t> ends;  // of the terms of each vector
    for (int64_t at = first; at < end; ++at) {
      const D *to = sums + at * s.filters, *along = to + 2 * size;
      std::fill(factors.begin(), factors.end(), D{0});
      for (int64_t f = 0; f < s.filters; ++f) factors[f] = -along[f];
      sides.assign(1, Side{0, at, 0, s.filters, 0, 0});
      each_side(at, true, [&](const Side &side) {
        D *factor = factors.data() + static_cast<int64_t>(sides.size()) * s.filters + side.filter;
        const D *weights = weights_[side.link].data(), *mine = to + side.filter;
        const D *other = sums + size + side.other * s.filters + side.filter + side.shift;
        for (int64_t i = 0; i < side.length; ++i) factor[i] = mine[i] * weights[i] * other[i];
        sides.push_back(side);
      });
      terms.clear(), ends.clear();
      each_vector<VL>(0, s.filters, [&](int64_t from) {
        const D *factor = factors.data() + from;
        for (const Side &side : sides) {
          if (from < side.filter + side.length && side.filter < from + VL) {
            terms.push_back(Term{kernel(side.other) + side.shift + from, factor});
          }
          factor += s.filters;
        }
        ends.push_back(static_cast<int64_t>(terms.size()));
      });
      D *out = result + at * block_;
      int64_t w = 0;
      for (; w + kAtOnce <= s.weights; w += kAtOnce) add_terms<VL, kAtOnce>(terms, ends, w, out);
      for (; w < s.weights; ++w) add_terms<VL, 1>(terms, ends, w, out);
    }
  }

  static constexpr int kAtOnce = 4;

  template <int VL, int N>
  void add_terms(const std::vector<Term> &terms, const std::vector<int64_t> &ends, int64_t w, D *out) const {
    const Term *term = terms.data();
    auto end = ends.begin();
    each_vector<VL>(0, s.filters, [&](int64_t from) {
      Vector<D, VL> sum[N] = {};
      for (const Term *last = terms.data() + *end++; term != last; ++term) {
        const Vector<D, VL> factor = load<D, VL>(term->factor);
        for (int i = 0; i < N; ++i) sum[i] += factor * load<D, VL>(term->from + (w + i) * s.filters);
      }
      for (int i = 0; i < N; ++i) store(out + (w + i) * s.filters + from, sum[i]);
    });
  }
};

template <class D>
bool run(const Sheet &s, const void *a, const void *b, void *result) {
  Neighbours<D> call(s);
  const auto *x = static_cast<const D *>(a), *y = static_cast<const D *>(b);
  auto *to = static_cast<D *>(result);
  return s.map == LCMULTI_COSINE_SUMS ? call.sums(x, y, to) : call.slopes(x, y, to);
}

}  // namespace

int cosines(const Sheet &s, const void *a, const void *b, void *result) {
  const bool done = s.dtype == LCMULTI_FLOAT64 ? run<double>(s, a, b, result) : run<float>(s, a, b, result);
  return done ? LCMULTI_OK : LCMULTI_NO_MEMORY;
}

}  // namespace lcmulti::LCMULTI_ISA
