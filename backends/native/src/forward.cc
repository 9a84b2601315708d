// Forward: a task owns a box of outputs.
#include "forward_tiled.h"
#include "choose.h"

namespace lcmulti::LCMULTI_ISA {

// Counted in elements E: those of the sums, or pairs of bfloat16.
template <class D, class A, int MAP>
template <class E>
void Call<D, A, MAP>::forward(const Box &box) {
  constexpr int64_t per = std::is_same_v<E, Pair> ? 2 : 1;
  const Box seen = seen_by(g, box);
  const int64_t positions = product(box.n.data(), g.axes), lanes = most_lanes();
  char *memory = scratch.take(workspace());
  A *x = part<A>(memory, product(seen.n.data(), g.axes) * g.channels * lanes);
  A *y = part<A>(memory, positions * g.filters * lanes);
  A *room = reinterpret_cast<A *>(memory);
  std::vector<Run> window_runs = runs(g, seen.n);
  if (few_samples()) return forward_rows(box, seen, window_runs, x, y);
  for (Run &run : window_runs) run = {run.input / per, run.weights / per, run.length / per};
  E *const panel = reinterpret_cast<E *>(x);
  [[maybe_unused]] Smallest of_a(smallest_a_), of_b(smallest_b_);
  for_chunks([&](const Chunk &chunk, auto vl, auto nv) {
    constexpr int VL = vl, NV = nv;
    using T = Tiles<E, VL, NV>;
    if constexpr (per == 2) {
      gather_pairs<VL>(a_, g.x_step, g.input, g.channels, seen, chunk, panel);
      of_a.see(panel, product(seen.n.data(), g.axes) * g.channels * chunk.padded);
    } else {
      gather_box<A, VL>(inputs(), seen, chunk, x);
    }
    A *out = y;
    for_positions(g, box, seen.n, [&](int64_t at, int64_t start) {
      if constexpr (per == 2) of_b.see(b_ + at, g.terms * g.filters);
      const E *w = weights<E>(b_ + at, room);
      const E *ahead = next_weights(w);
      const E *in = panel + start / per * chunk.padded;
      for (int64_t group = 0; group < g.groups; ++group) {
        in_tiles(g.filters_per_group, T::kMost, [&](int64_t first, int64_t rows) {
          T::kForward[rows - 1](window_runs.data(), static_cast<int64_t>(window_runs.size()), in, w + first,
                                g.filters, out + first * chunk.padded, ahead);
          ahead += rows * (g.terms / per);
        });
        in += g.channels_per_group * chunk.padded;
        w += g.filters_per_group;
        out += g.filters_per_group * chunk.padded;
      }
    });
    scatter_box<A, VL>(y, box, chunk, target(), streamed_);
  });
}

template <class Use>
void with_samples(int64_t batch, Use &&use) {
  using std::integral_constant;
  switch (batch) {
    case 1: return use(integral_constant<int, 1>{});
    case 2: return use(integral_constant<int, 2>{});
    case 3: return use(integral_constant<int, 3>{});
    case 4: return use(integral_constant<int, 4>{});
    default: return;
  }
}

// `forward` for few samples: y is (sample, position, filter).
template <class D, class A, int MAP>
void Call<D, A, MAP>::forward_rows(const Box &box, const Box &seen, const std::vector<Run> &window_runs, A *x,
                                   A *y) const {
  const Chunk chunk{0, g.batch, kShort};
  const int64_t pitch = product(box.n.data(), g.axes) * g.filters;
  gather_box<A, kShort>(inputs(), seen, chunk, x);
  A *out = y;
  for_positions(g, box, seen.n, [&](int64_t at, int64_t start) {
    const D *w = b_ + at;
    const A *in = x + start * kShort;
    for (int64_t f = 0; f < g.filters;) {
      const int64_t vectors = (g.filters - f) / kVL;
      with_samples(g.batch, [&](auto samples) {
        const auto tile = vectors >= 4   ? &forward_row_tile<A, kVL, samples, 4, D>
                          : vectors >= 2 ? &forward_row_tile<A, kVL, samples, 2, D>
                                         : &forward_row_tile<A, kVL, samples, 1, D>;
        tile(window_runs.data(), static_cast<int64_t>(window_runs.size()), in, kShort, w + f, g.filters, out + f,
             pitch);
      });
      f += (vectors >= 4 ? 4 : vectors >= 2 ? 2 : 1) * kVL;
    }
    out += g.filters;
  });
  write_rows<A, kVL>(y, box, g.batch, target());
}

int forward(const Geometry &g, const void *a, const void *b, void *result) {
  return compute<LCMULTI_FORWARD>(g, a, b, result);
}

}  // namespace lcmulti::LCMULTI_ISA
