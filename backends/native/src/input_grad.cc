// The input's gradient. A task owns a box of inputs and gathers from every output whose window reaches it, so
// that no two tasks write to the same place.
#include "choose.h"

namespace lcmulti::LCMULTI_ISA {

// `input_row_tile` for one sample and all filters.
template <class D, class A, int MAP>
void Call<D, A, MAP>::input_rows(const A *dy, const D *w, int64_t rows, A *dx) const {
  // Prefetches the same part of the next window, unless it is too large to stay in the cache.
  const int64_t window = g.terms * g.filters, ahead = window <= kFarthest ? window : kFarAhead;
  for (int64_t f = 0; f < g.filters;) {
    const int64_t vectors = (g.filters - f) / kVL;
    const auto tile = vectors >= 4   ? &input_row_tile<A, kVL, 4, D>
                      : vectors >= 2 ? &input_row_tile<A, kVL, 2, D>
                                     : &input_row_tile<A, kVL, 1, D>;
    tile(dy + f, w + f, g.filters, rows, dx, ahead);
    f += (vectors >= 4 ? 4 : vectors >= 2 ? 2 : 1) * kVL;
  }
}

// For the matrix unit: a box of dy, in any memory order, as pairs of filters, (position, filter / 2, sample).
template <class D, class A, int MAP>
template <int VL>
void Call<D, A, MAP>::turn_pairs(const Box &seers, const Chunk &chunk, Pair *to, uint16_t *turned) const {
  const int64_t deep = deep_filters(), lanes = chunk.padded;
  if (deep == g.filters && address(a_) % 4 == 0 && can_pair(g.filters, g.dy_step, g.axes)) {
    return gather_pairs<VL>(a_, g.dy_step, g.output, g.filters, seers, chunk, to);
  }
  const Source<uint16_t> bits{reinterpret_cast<const uint16_t *>(a_), g.dy_step, g.output, g.filters,
                              static_cast<int>(g.axes)};
  gather_box<uint16_t, VL>(bits, seers, chunk, turned);
  constexpr uint16_t none[VL] = {};
  for (int64_t i = product(seers.n.data(), g.axes); i > 0; --i, turned += g.filters * lanes) {
    for (int64_t f = 0; f < deep; f += 2, to += lanes) {
      const uint16_t *row = turned + f * lanes;
      for (int64_t n = 0; n < lanes; n += VL) {
        store(to + n, pairs_of<VL>(f < g.filters ? row + n : none, f + 1 < g.filters ? row + lanes + n : none));
      }
    }
  }
}

// For the matrix unit: the weights of one position, with zeros after the last filter to fill its tiles.
template <class D, class A, int MAP>
const uint16_t *Call<D, A, MAP>::deep_weights(const D *stored, uint16_t *room) const {
  const auto *bits = reinterpret_cast<const uint16_t *>(stored);
  const int64_t deep = deep_filters();
  if (deep == g.filters) return bits;
  for (int64_t k = 0; k < g.terms; ++k) {
    copy_row(bits + k * g.filters, g.filters, room + k * deep);
    for (int64_t f = g.filters; f < deep; ++f) room[k * deep + f] = 0;
  }
  return room;
}

template <class D, class A, int MAP>
template <class E>
void Call<D, A, MAP>::input_grad(const Box &box) {
  constexpr int64_t per = std::is_same_v<E, Pair> ? 2 : 1;
  const int64_t deep = deep_filters(), filters = (kTiled ? deep : g.filters) / per;
  const int64_t of_group = g.filters_per_group / per;
  const Box seers = seers_of(g, box);
  const int axes = static_cast<int>(g.axes), last = g.last();
  const int64_t lanes = most_lanes(), positions = product(box.n.data(), axes);
  char *memory = scratch.take(workspace());
  A *dx = part<A>(memory, positions * g.channels * lanes);
  A *dy = part<A>(memory, product(seers.n.data(), axes) * filters * lanes);
  uint16_t *turned = reinterpret_cast<uint16_t *>(memory);
  A *room = reinterpret_cast<A *>(memory);
  const bool whole = g.rows_are_runs(), few = few_samples();
  E *const panel = reinterpret_cast<E *>(dy);
  TileUnit unit;
  [[maybe_unused]] Smallest of_a(smallest_a_), of_b(smallest_b_);
  for_chunks([&](const Chunk &chunk, auto vl, auto nv) {
    [[maybe_unused]] constexpr int VL = vl, NV = nv;
    using T = Tiles<E, VL, NV>;
    std::memset(dx, 0, sizeof(A) * positions * g.channels * (few ? chunk.count : chunk.padded));
    if constexpr (kTiled) {
      turn_pairs<VL>(seers, chunk, panel, turned);
    } else if constexpr (per == 2) {
      gather_pairs<VL>(a_, g.dy_step, g.output, g.filters, seers, chunk, panel);
    } else if (few) {
      gather_filters<A, kVL>(outputs(a_), g.groups, seers, chunk, g.filters, dy);
    } else {
      gather_box<A, VL>(outputs(a_), seers, chunk, dy);
    }
    if constexpr (per == 2) of_a.see(panel, product(seers.n.data(), axes) * per * filters * chunk.padded);
    const E *above = panel;
    for (Odometer o(seers.n.data(), axes); !o.done; o.next(), above += filters * (few ? chunk.count : chunk.padded)) {
      // The taps of this output that read inputs of the box: a range along each axis.
      Index position{}, tap_lo{}, taps{}, first{};
      for (int a = 0; a < axes; ++a) {
        position[a] = seers.lo[a] + o.at[a];
        const int64_t start = position[a] * g.stride[a] - g.pad[a] - box.lo[a], d = g.dilation[a];
        const auto over = [d](int64_t length) { return d == 1 ? length : length / d; };
        tap_lo[a] = start >= 0 ? 0 : over(-start + d - 1);
        const int64_t room_left = box.n[a] - 1 - start;
        const int64_t tap_hi = room_left < 0 ? -1 : std::min(over(room_left), g.kernel[a] - 1);
        taps[a] = tap_hi - tap_lo[a] + 1;
        first[a] = start + tap_lo[a] * d;
      }
      Odometer tap(taps.data(), axes);
      if (tap.done) continue;
      const D *stored = b_ + weights_at(g, position);
      [[maybe_unused]] const uint16_t *tile_rows = nullptr;
      if constexpr (kTiled) tile_rows = deep_weights(stored, turned);
      const E *w;
      if constexpr (per == 2) {
        w = reinterpret_cast<const E *>(stored);  // pairs of filters are adjacent already
      } else {
        w = few && kWidens ? nullptr : widened(stored, room);  // rows are widened when they are read
      }
      const E *ahead = next_weights(w);
      const int64_t length = g.channels_per_group * (whole ? taps[last] : 1);
      if (whole) tap.axes = last, tap.done = false;
      for (; !tap.done; tap.next()) {
        int64_t at = 0, row = 0;
        for (int a = 0; a < axes; ++a) {
          at = at * box.n[a] + first[a] + tap.at[a] * g.dilation[a];
          row = row * g.kernel[a] + tap_lo[a] + tap.at[a];
        }
        row *= g.channels_per_group;
        if constexpr (per == 2) of_b.see(stored + row * g.filters, length * g.filters);
        if constexpr (kTiled) {
          A *const to = dx + at * g.channels * chunk.padded;
          unit.multiply(tile_rows + row * deep, 2 * deep, above, 4 * chunk.padded, to, 4 * chunk.padded, length,
                        chunk.padded, std::min(deep / 2, kTile), (deep + kDeep - 1) / kDeep, true);
        } else {
          if constexpr (per == 1) {
            if (few) {  // dx is (sample, position, channel), dy (position, sample, filter)
              for (int64_t k = 0; k < length; k += kVL) {
                for (int64_t n = 0; n < chunk.count; ++n) {
                  A *to = dx + (n * positions + at) * g.channels + k;
                  input_rows(above + n * filters, stored + (row + k) * filters, length - k, to);
                }
              }
              continue;
            }
          }
          for (int64_t group = 0; group < g.groups; ++group) {
            A *to = dx + (at * g.channels + group * g.channels_per_group) * chunk.padded;
            const E *from = w + row * filters + group * of_group;
            in_tiles(length, T::kMost, [&](int64_t k, int64_t rows) {
              T::kInput[rows - 1](above + group * of_group * chunk.padded, from + k * filters, filters, of_group,
                                  to + k * chunk.padded, ahead + (row + k) * filters);
            });
          }
        }
      }
    }
    if (few) return write_rows<A, kVL>(dx, box, g.batch, target());
    scatter_box<A, VL>(dx, box, chunk, target(), streamed_);
  });
}

int input_grad(const Geometry &g, const void *a, const void *b, void *result) {
  return compute<LCMULTI_INPUT_GRAD>(g, a, b, result);
}

}  // namespace lcmulti::LCMULTI_ISA
