// The kernel's gradient. A task owns the weights of a box of outputs, or a part of them.
#include "choose.h"

namespace lcmulti::LCMULTI_ISA {

// The parts of runs with rows lo to hi.
inline void clip(std::vector<Run> &runs, int64_t lo, int64_t hi) {
  std::vector<Run> kept;
  for (const Run &run : runs) {
    const int64_t first = std::max(run.weights, lo), end = std::min(run.weights + run.length, hi);
    if (first < end) kept.push_back({run.input + (first - run.weights), first - lo, end - first});
  }
  runs.swap(kept);
}

template <class D, class A, int MAP>
void Call<D, A, MAP>::split_kernel() {
  owners_ = sharers_ = grid_;
  owners_.tasks = sharers_.tasks = 1;
  for (int a = 0; a < g.axes; ++a) {
    (g.shared[a] ? owners_ : sharers_).counts[a] = 1;
    owners_.tasks *= owners_.counts[a];
    sharers_.tasks *= sharers_.counts[a];
  }
  parts_ = std::clamp<int64_t>(16 / owners_.tasks, 1, g.terms);
  if (sharers_.tasks == 1) parts_ = 1;
}

template <class D, class A, int MAP>
template <class E>
void Call<D, A, MAP>::kernel_grad(const Box &owner, int64_t piece) {
  constexpr int64_t per = std::is_same_v<E, Pair> ? 2 : 1;  // samples in an element
  const int axes = static_cast<int>(g.axes);
  const int64_t lanes = most_lanes(), filters = g.filters_per_group;
  const bool few = few_filters();
  // The groups of a depthwise layer are adjacent, as elsewhere the channels of a run; their sums are taken at once.
  const int64_t together = few && g.channels_per_group == 1 ? g.groups : 1;
  const int64_t pitch = (filters + kVL - 1) / kVL * kVL;
  const int64_t row_lo = g.terms * piece / parts_, row_hi = g.terms * (piece + 1) / parts_;
  // Weights at the owner's positions. They are summed in place, or separately in a wider type.
  Box owned = owner;
  for (int a = 0; a < axes; ++a) {
    if (g.shared[a]) owned.lo[a] = 0, owned.n[a] = 1;
  }
  // Elements from one row of sums to the next; tiles write whole vectors of filters.
  const int64_t sums_row = kTiled ? g.groups * pitch : g.filters;
  const int64_t each = (row_hi - row_lo) * sums_row, owners = product(owned.n.data(), axes);
  char *memory = scratch.take(workspace());
  const bool at_once = kWidens && sums_at_once(g, lanes);
  A *sums = kWidens ? part<A>(memory, at_once ? each : owners * each) : nullptr;
  char *const rest = memory;
  // The sums of the owner's position number `at`.
  const auto sums_at = [&](int64_t at, int64_t weights) -> A * {
    if constexpr (kWidens) {
      return at_once ? sums : sums + at * each;
    } else {
      return result_ + weights + row_lo * g.filters;
    }
  };
  const Index nothing_seen{};
  const auto for_owned = [&](auto &&body) {
    int64_t at = 0;
    for_positions(g, owned, nothing_seen, [&](int64_t weights, int64_t) { body(sums_at(at++, weights), weights); });
  };
  [[maybe_unused]] const auto narrow_sums = [&](const A *from, int64_t weights) {
    D *to = result_ + weights + row_lo * g.filters;
    if (sums_row != g.filters) {
      for (int64_t i = 0; i < each / pitch; ++i, to += filters) write_row<A, kVL>(from + i * pitch, filters, to);
      return;
    }
    int64_t k = 0;
    for (; k + kVL <= each; k += kVL) store_narrow<D, kVL, A>(to + k, load<A, kVL>(from + k), streamed_);
    if (k < each) store_first<D, kVL, A>(to + k, load_first<A, kVL>(from + k, each - k), each - k);
  };
  // If an element has several contributions, they are added to zeros.
  const bool shared_axes = g.any_shared(), shared = shared_axes || g.batch == 0;
  if (shared) {
    for_owned([&](A *to, int64_t) { std::memset(to, 0, sizeof(A) * each); });
  }
  TileUnit unit;
  [[maybe_unused]] Smallest of_a(smallest_a_), of_b(smallest_b_);
  for (int64_t i = 0; i < sharers_.tasks; ++i) {
    Box box = sharers_.at(i);
    for (int a = 0; a < axes; ++a) {
      if (!g.shared[a]) box.lo[a] = owner.lo[a], box.n[a] = owner.n[a];
    }
    const Box seen = seen_by(g, box);
    const int64_t positions = product(box.n.data(), axes);
    memory = rest;
    const int64_t in_one = kTiled ? 2 : 1;  // elements in one that is read
    A *x = part<A>(memory, product(seen.n.data(), axes) * g.channels * lanes / in_one);
    A *dy = part<A>(memory, positions * g.groups * pitch * lanes / in_one);
    std::vector<Run> window_runs = runs(g, seen.n);
    clip(window_runs, row_lo, row_hi);
    for_chunks([&](const Chunk &chunk, auto vl, auto nv) {
      constexpr int VL = vl;
      [[maybe_unused]] constexpr int NV = nv;
      if constexpr (per == 2) {
        const Source<uint16_t> bits{reinterpret_cast<const uint16_t *>(a_), g.x_step, g.input, g.channels, axes};
        const Source<uint16_t> dy_bits{reinterpret_cast<const uint16_t *>(b_), g.dy_step, g.output, g.filters, axes};
        gather_box<uint16_t, VL>(bits, seen, chunk, reinterpret_cast<uint16_t *>(x));
        auto *const dy_pairs = reinterpret_cast<Pair *>(dy);
        if (g.dy_step[1] == 1) {
          gather_filter_pairs<kVL>(dy_bits, g.groups, box, chunk, kTiled ? chunk.padded : (chunk.count + 1) / 2 * 2,
                                   pitch, dy_pairs, of_b);
        } else if constexpr (kTiled) {  // in the others, filters are adjacent
          gather_box<uint16_t, VL>(dy_bits, box, chunk, reinterpret_cast<uint16_t *>(memory));
          const auto *from = reinterpret_cast<const Pair *>(memory);
          const int64_t pairs = chunk.padded / 2;
          of_b.see(from, positions * g.filters * chunk.padded);
          for (int64_t at = 0; at < positions * g.groups; ++at) {
            gather<Pair, kVL>(from + at * filters * pairs, pairs, 1, pairs, filters, dy_pairs + at * pitch * pairs,
                              pitch, static_cast<int>(pitch));
          }
        }
        of_a.see(x, product(seen.n.data(), axes) * g.channels * chunk.padded);
      } else if (few) {
        gather_box<A, VL>(inputs(), seen, chunk, x);
        gather_box<A, VL>(outputs(b_), box, chunk, dy);
      } else {
        gather_box<A, VL>(inputs(), seen, chunk, x);
        if (g.dy_step[1] == 1) {
          gather_filters<A, kVL>(outputs(b_), g.groups, box, chunk, pitch, dy);
        } else {
          turn_filters<A, kVL>(outputs(b_), g.groups, box, chunk, pitch, dy);
        }
      }
      const Leave leave = shared || chunk.first > 0 ? Leave::kAdd
                          : streamed_ && !kWidens && chunk.count == g.batch ? Leave::kStream
                                                                            : Leave::kStore;
      const int64_t lanes_of = chunk.padded / per;
      const int64_t samples = kTiled ? lanes_of : (chunk.count + per - 1) / per;
      const E *above = reinterpret_cast<const E *>(dy);
      int64_t position = 0;
      for_positions(g, box, seen.n, [&](int64_t weights, int64_t start) {
        const E *in = reinterpret_cast<const E *>(x) + start * lanes_of;
        A *to = sums_at(shared_axes ? owned_index(box, owned, position) : position, weights);
        ++position;
        for (int64_t group = 0; group < g.groups; group += together) {
          for (const Run &run : window_runs) {
            const E *xs = in + run.input * lanes_of;
            A *rows_of = to + run.weights * sums_row;
            if constexpr (kTiled) {
              unit.multiply(xs, 4 * lanes_of, above, 4 * pitch, rows_of, 4 * sums_row, run.length, pitch,
                            std::min(lanes_of, kTile), (lanes_of + kTile - 1) / kTile, leave == Leave::kAdd);
            } else {
              if constexpr (per == 1) {
                if (few) {
                  if (together > 1) {
                    sums_over_samples<VL, NV>(xs, together, above, filters * lanes_of, rows_of, filters, leave);
                  } else {
                    sums_over_samples<VL, NV>(xs, run.length, above, 0, rows_of, g.filters, leave);
                  }
                  continue;
                }
              }
              many_filters(xs, run.length, lanes_of, samples, above, pitch, rows_of, leave);
            }
          }
          in += together * g.channels_per_group * lanes_of;
          to += together * (kTiled ? pitch : filters);
          above += together * (few ? filters * lanes_of : pitch * samples);
        }
        if constexpr (kWidens) {
          if (at_once) narrow_sums(sums, weights);
        }
      });
    });
  }
  if constexpr (kWidens) {
    if (!at_once) for_owned(narrow_sums);
  }
}

// The number of the `owned` position whose weights the position at index `at` of a box uses.
template <class D, class A, int MAP>
int64_t Call<D, A, MAP>::owned_index(const Box &box, const Box &owned, int64_t at) const {
  int64_t index = 0, step = 1;
  for (int a = g.last(); a >= 0; --a) {
    if (!g.shared[a]) {
      index += at % box.n[a] * step;
      step *= owned.n[a];
    }
    at /= box.n[a];
  }
  return index;
}

template <class D, class A, int MAP>
template <int FV, class E>
void Call<D, A, MAP>::vectors_of_filters(const E *x, int64_t length, int64_t lanes, int64_t samples, const E *dy,
                                         int64_t pitch, A *to, int64_t tail, Leave leave) const {
  using T = KernelTiles<E, kVL, FV>;
  in_tiles(length, T::kMost, [&](int64_t k, int64_t rows) {
    T::kKernel[rows - 1](x + k * lanes, lanes, dy, pitch, samples, to + k * g.filters, g.filters, tail, leave);
  });
}

template <class D, class A, int MAP>
template <class E>
void Call<D, A, MAP>::many_filters(const E *x, int64_t length, int64_t lanes, int64_t samples, const E *dy,
                                   int64_t pitch, A *to, Leave leave) const {
  for (int64_t f = 0; f < g.filters_per_group;) {
    const int64_t left = g.filters_per_group - f, vectors = (left + kVL - 1) / kVL;
    const int64_t taken = vectors >= 4 ? 4 : vectors >= 2 ? 2 : 1;
    const int64_t tail = std::min<int64_t>(left - (taken - 1) * kVL, kVL);
    if (taken == 4) {
      vectors_of_filters<4>(x, length, lanes, samples, dy + f, pitch, to + f, tail, leave);
    } else if (taken == 2) {
      vectors_of_filters<2>(x, length, lanes, samples, dy + f, pitch, to + f, tail, leave);
    } else {
      vectors_of_filters<1>(x, length, lanes, samples, dy + f, pitch, to + f, tail, leave);
    }
    f += taken * kVL;
  }
}

template <class D, class A, int MAP>
template <int VL, int NV>
void Call<D, A, MAP>::sums_over_samples(const A *x, int64_t length, const A *dy, int64_t dy_step, A *to,
                                        int64_t to_step, Leave leave) const {
  const int64_t filters = g.filters_per_group;
  constexpr int lanes = VL * NV;
  int64_t f = 0;
  const auto take = [&](auto count) {
    constexpr int kCount = count;
    if constexpr (kCount <= VL) {
      for (; f + kCount <= filters; f += kCount) {
        for (int64_t k = 0; k < length; k += VL / kCount) {
          small_kernel_tile<A, VL, NV, kCount>(x + k * lanes, dy + k * dy_step + f * lanes, dy_step, length - k,
                                               to + k * to_step + f, to_step, leave);
        }
      }
    }
  };
  take(std::integral_constant<int, 4>{});
  take(std::integral_constant<int, 2>{});
  take(std::integral_constant<int, 1>{});
}

int kernel_grad(const Geometry &g, const void *a, const void *b, void *result) {
  return compute<LCMULTI_KERNEL_GRAD>(g, a, b, result);
}

}  // namespace lcmulti::LCMULTI_ISA
