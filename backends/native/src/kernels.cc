// The three maps, compiled once for each instruction set (LCMULTI_ISA names it).
//
// A task owns a box of what is written. It transposes the part of the input that the box needs,
// so that samples are innermost, walks the windows in place and transposes its result back. What
// it works on stays in the cache; the kernel, or its gradient, streams past once.
#include "kernels.h"

#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "layout.h"
#include "pool.h"
#include "tiles.h"

namespace lcmulti::LCMULTI_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

constexpr int64_t kStreamedBytes = 16 << 20;
constexpr double kSmall = 5e5;

// Memory of one thread, kept from task to task and from call to call.
class Scratch {
 public:
  // At least `bytes`, aligned to a cache line; what it held is lost.
  char *take(size_t bytes) {
    if (bytes > size_) {
      memory_.reset();
      size_ = 0;
      memory_.reset(static_cast<char *>(::operator new(bytes, std::align_val_t{64})));
      size_ = bytes;
    }
    return memory_.get();
  }
  // Gives back what only a large task needed.
  void trim() {
    if (size_ > 8 * kBoxBytes) memory_.reset(), size_ = 0;
  }

 private:
  struct Free {
    void operator()(char *p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<char, Free> memory_;
  size_t size_ = 0;
};

thread_local Scratch scratch;

template <class A>
A *part(char *&memory, int64_t elements) {
  A *result = reinterpret_cast<A *>(memory);
  memory += (elements * static_cast<int64_t>(sizeof(A)) + 63) / 64 * 64;
  return result;
}

// One call in one data type D, summed in A.
template <class D, class A>
class Call {
 public:
  Call(const Geometry &geometry, int map) : g(geometry), map_(map), grid_(make_grid(g, map, most_lanes())) {}

  static constexpr int kVL = kVectorBytes / sizeof(A);
  // Fewer samples than lanes take shorter vectors, of which more fit in a cycle.
  static constexpr int kShort = std::max<int>(kVL / 2, 16 / sizeof(A));
  static constexpr bool kWidens = !std::is_same_v<D, A>;

  int64_t workspace() const {
    return scratch_bytes(g, map_, Box{{}, grid_.box}, most_lanes()) + 4096;
  }

  bool run(const void *a, const void *b, void *result) {
    a_ = static_cast<const D *>(a);
    b_ = static_cast<const D *>(b);
    result_ = static_cast<D *>(result);
    // What is far larger than the caches will not be found in them.
    streamed_ = g.written(map_) * g.item > kStreamedBytes;
    // Less work than it takes to wake a thread.
    const double products = static_cast<double>(g.batch * product(g.output, g.axes)) * static_cast<double>(g.terms) *
                            static_cast<double>(g.filters);
    const int64_t threads = products < kSmall ? 1 : g.threads;
    const auto tasks = [&](int64_t count, auto &&task) {
      return parallel_for(count, threads, [task](int64_t i) {
        task(i);
        end_streams();
        scratch.trim();
      });
    };
    if constexpr (kHasPairs && std::is_same_v<D, bfloat16>) {
      if (pairs()) return run_in<Pair>(tasks);
    }
    return run_in<A>(tasks);
  }

 private:
  const Geometry &g;
  int map_;
  Grid grid_;
  const D *a_ = nullptr, *b_ = nullptr;
  D *result_ = nullptr;
  bool streamed_ = false;
  // Of kernel_grad: boxes of positions with weights of their own, the boxes that share each, and
  // the parts a window is cut into where there would be too few tasks.
  Grid owners_, sharers_;
  int64_t parts_ = 1;

  template <class E, class Tasks>
  bool run_in(Tasks &&tasks) {
    if (map_ == LCMULTI_FORWARD) return tasks(grid_.tasks, [this](int64_t i) { forward<E>(grid_.at(i)); });
    if (map_ == LCMULTI_INPUT_GRAD) return tasks(grid_.tasks, [this](int64_t i) { input_grad<E>(grid_.at(i)); });
    split_kernel();
    return tasks(owners_.tasks * parts_,
                 [this](int64_t i) { kernel_grad<E>(owners_.at(i / parts_), i % parts_); });
  }

  static uintptr_t address(const D *p) { return reinterpret_cast<uintptr_t>(p); }

  // Whether the sums may go by pairs.
  bool pairs() const {
    if (map_ == LCMULTI_KERNEL_GRAD) return !few_filters() && g.dy_step[1] == 1;
    if (few_samples() || g.groups > 1 || address(a_) % 4 || address(b_) % 4) return false;
    return map_ == LCMULTI_FORWARD ? can_pair(g.channels, g.x_step, g.axes) : can_pair(g.filters, g.dy_step, g.axes);
  }

  // Samples at once: enough to reuse a weight from its register, no more than the batch asks for.
  int most_lanes() const {
    if (map_ == LCMULTI_INPUT_GRAD && few_samples()) return static_cast<int>(std::max<int64_t>(g.batch, 1));
    int lanes = kShort;
    while (lanes < limit_of_lanes() && lanes < g.batch) lanes *= 2;
    return lanes;
  }

  // Filters that would leave half of a vector's lanes idle are no lanes.
  static constexpr int kFewFilters = std::min(kVL / 2 + 1, 8);
  bool few_filters() const { return g.filters_per_group < kFewFilters; }
  // Samples too few for lanes, and filters that fill them.
  bool few_samples() const {
    return g.batch <= std::min<int64_t>(kFewSamples, kShort) && g.groups == 1 && g.filters % kVL == 0;
  }

  // Where samples are summed, not lanes, as many as spare sums from being stored and fetched.
  int limit_of_lanes() const { return map_ == LCMULTI_KERNEL_GRAD && !few_filters() ? 8 * kVL : 4 * kVL; }

  // body(chunk, vector length, vectors) for all samples.
  template <class Body>
  void for_chunks(Body &&body) const {
    for (int64_t first = 0; first < g.batch;) {
      const int64_t left = g.batch - first;
      int lanes = kShort;
      while (lanes < limit_of_lanes() && lanes < left) lanes *= 2;
      // Three quarters full is worth a pass; else a smaller one, and the rest after it.
      if (lanes > kVL && left < lanes && 4 * left < 3 * lanes) lanes /= 2;
      const Chunk chunk{first, std::min<int64_t>(left, lanes), lanes};
      using std::integral_constant;
      if (lanes >= 4 * kVL) {
        body(chunk, integral_constant<int, kVL>{}, integral_constant<int, 4>{});
      } else if (lanes == 2 * kVL) {
        body(chunk, integral_constant<int, kVL>{}, integral_constant<int, 2>{});
      } else if (lanes == kVL) {
        body(chunk, integral_constant<int, kVL>{}, integral_constant<int, 1>{});
      } else {
        body(chunk, integral_constant<int, kShort>{}, integral_constant<int, 1>{});
      }
      first += chunk.count;
    }
  }

  int64_t weights_at(const Index &position) const {
    int64_t at = 0;
    for (int a = 0; a < g.axes; ++a) at += position[a] * g.weights_step[a];
    return at;
  }

  // The weights of one position as they are summed.
  const A *widened(const D *weights, A *room) const {
    if constexpr (kWidens) {
      const int64_t count = g.terms * g.filters;
      int64_t i = 0;
      for (; i + kVL <= count; i += kVL) store(room + i, load_wide<A, kVL>(weights + i));
      for (; i < count; ++i) room[i] = load_first<A, kVL>(weights + i, 1)[0];
      return room;
    } else {
      return weights;
    }
  }

  // The weights of one position as pairs of neighbouring rows, (row / 2, filter).
  const Pair *paired(const D *weights, Pair *room) const {
    const auto *bits = reinterpret_cast<const uint16_t *>(weights);
    for (int64_t k = 0; k < g.terms; k += 2, bits += 2 * g.filters, room += g.filters) {
      int64_t f = 0;
      for (; f + kVL <= g.filters; f += kVL) store(room + f, pairs_of<kVL>(bits + f, bits + g.filters + f));
      for (; f < g.filters; ++f) room[f] = bits[f] | static_cast<Pair>(bits[g.filters + f]) << 16;
    }
    return room - g.terms / 2 * g.filters;
  }

  template <class E>
  const E *weights(const D *from, void *room) const {
    if constexpr (std::is_same_v<E, Pair>) {
      return paired(from, static_cast<Pair *>(room));
    } else {
      return widened(from, static_cast<A *>(room));
    }
  }

  // Whether pairs of neighbouring channels (filters) may be read as one element.
  static bool can_pair(int64_t channels, const int64_t *step, int64_t axes) {
    bool can = kHasPairs && std::is_same_v<D, bfloat16> && channels % 2 == 0 && step[1] == 1;
    for (int64_t i = 0; i < axes + 2; ++i) can &= i == 1 || step[i] % 2 == 0;
    return can;
  }

  // gather_box of pairs: an element of four bytes in place of each two.
  template <int VL>
  void gather_pairs(const D *data, const int64_t *step, const int64_t *size, int64_t channels, const Box &box,
                    const Chunk &chunk, Pair *to) const {
    int64_t halved[kAxes + 2];
    for (int i = 0; i < g.axes + 2; ++i) halved[i] = i == 1 ? 1 : step[i] / 2;
    const Source<Pair> source{reinterpret_cast<const Pair *>(data), halved, size, channels / 2,
                              static_cast<int>(g.axes)};
    gather_box<Pair, VL>(source, box, chunk, to);
  }

  // Runs of a window in a box of inputs of `size`: input offsets in positions * channels.
  std::vector<Run> runs(const Index &size) const {
    std::vector<Run> result;
    const int last = g.last();
    for (Odometer tap(g.kernel, g.rows_are_runs() ? last : last + 1); !tap.done; tap.next()) {
      int64_t input = 0, row = 0;
      for (int a = 0; a <= last; ++a) {
        input = input * size[a] + tap.at[a] * g.dilation[a];
        row = row * g.kernel[a] + tap.at[a];
      }
      const int64_t length = g.channels_per_group * (g.rows_are_runs() ? g.kernel[last] : 1);
      result.push_back({input * g.channels, row * g.channels_per_group, length});
    }
    return result;
  }

  // body(weights, start) for each output position of a box, in order: the offsets of its weights
  // in the kernel, and of its window in the `seen` inputs, in positions * channels.
  template <class Body>
  LCMULTI_INLINE void for_positions(const Box &box, const Index &seen, Body &&body) const {
    const int last = g.last();
    for (Odometer outer(box.n.data(), last); !outer.done; outer.next()) {
      int64_t weights = box.lo[last] * g.weights_step[last], start = 0;
      for (int a = 0; a < last; ++a) {
        weights += (box.lo[a] + outer.at[a]) * g.weights_step[a];
        start = (start + outer.at[a] * g.stride[a]) * seen[a + 1];
      }
      start *= g.channels;
      for (int64_t i = 0; i < box.n[last]; ++i) {
        body(weights, start);
        weights += g.weights_step[last];
        start += g.stride[last] * g.channels;
      }
    }
  }

  Source<D> inputs() const { return {a_, g.x_step, g.input, g.channels, static_cast<int>(g.axes)}; }
  Source<D> outputs(const D *dy) const { return {dy, g.dy_step, g.output, g.filters, static_cast<int>(g.axes)}; }

  // Weights to fetch while those at `weights` are in use; the same again after the last.
  template <class E>
  const E *next_weights(const E *weights) const {
    if constexpr (kWidens) {
      return weights;
    } else {
      const int64_t at = weights - b_ + g.terms * g.filters;
      return at < g.weights ? weights + g.terms * g.filters : weights;
    }
  }

  // In elements E: those of the sums, or pairs of bfloat16.
  template <class E>
  void forward(const Box &box) {
    constexpr int64_t per = std::is_same_v<E, Pair> ? 2 : 1;
    const Box seen = seen_by(g, box);
    const int64_t positions = product(box.n.data(), g.axes), lanes = most_lanes();
    char *memory = scratch.take(workspace());
    A *x = part<A>(memory, product(seen.n.data(), g.axes) * g.channels * lanes);
    A *y = part<A>(memory, positions * g.filters * lanes);
    A *room = reinterpret_cast<A *>(memory);
    std::vector<Run> window_runs = runs(seen.n);
    if (few_samples()) return forward_rows(box, seen, window_runs, x, y, room);
    for (Run &run : window_runs) run = {run.input / per, run.weights / per, run.length / per};
    E *const panel = reinterpret_cast<E *>(x);
    for_chunks([&](const Chunk &chunk, auto vl, auto nv) {
      constexpr int VL = vl, NV = nv;
      using T = Tiles<E, VL, NV>;
      if constexpr (per == 2) {
        gather_pairs<VL>(a_, g.x_step, g.input, g.channels, seen, chunk, panel);
      } else {
        gather_box<A, VL>(inputs(), seen, chunk, x);
      }
      A *out = y;
      for_positions(box, seen.n, [&](int64_t at, int64_t start) {
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
      scatter_box<A, VL>(y, box, chunk, result_, g.output, g.filters, static_cast<int>(g.axes), streamed_);
    });
  }

  // `forward` of few samples: y is (sample, position, filter).
  void forward_rows(const Box &box, const Box &seen, const std::vector<Run> &window_runs, A *x, A *y,
                    A *room) const {
    const Chunk chunk{0, g.batch, kShort};
    const int64_t pitch = product(box.n.data(), g.axes) * g.filters;
    gather_box<A, kShort>(inputs(), seen, chunk, x);
    A *out = y;
    for_positions(box, seen.n, [&](int64_t at, int64_t start) {
      const A *w = widened(b_ + at, room);
      const A *in = x + start * kShort;
      for (int64_t f = 0; f < g.filters;) {
        const int64_t vectors = (g.filters - f) / kVL;
        with_samples([&](auto samples) {
          const auto tile = vectors >= 4   ? &forward_row_tile<A, kVL, samples, 4>
                            : vectors >= 2 ? &forward_row_tile<A, kVL, samples, 2>
                                           : &forward_row_tile<A, kVL, samples, 1>;
          tile(window_runs.data(), static_cast<int64_t>(window_runs.size()), in, kShort, w + f, g.filters, out + f,
               pitch);
        });
        f += (vectors >= 4 ? 4 : vectors >= 2 ? 2 : 1) * kVL;
      }
      out += g.filters;
    });
    write_rows(y, box, g.output, g.filters);
  }

  template <class Use>
  void with_samples(Use &&use) const {
    using std::integral_constant;
    switch (g.batch) {
      case 1: return use(integral_constant<int, 1>{});
      case 2: return use(integral_constant<int, 2>{});
      case 3: return use(integral_constant<int, 3>{});
      case 4: return use(integral_constant<int, 4>{});
      default: return;
    }
  }

  // Writes a box that lies as the array does, (sample, position, channel).
  void write_rows(const A *from, const Box &box, const int64_t *size, int64_t channels) const {
    const int last = g.last();
    const int64_t run = box.n[last] * channels;
    for (int64_t n = 0; n < g.batch; ++n) {
      for (Odometer outer(box.n.data(), last); !outer.done; outer.next(), from += run) {
        int64_t at = n;
        for (int a = 0; a < last; ++a) at = at * size[a] + box.lo[a] + outer.at[a];
        D *to = result_ + (at * size[last] + box.lo[last]) * channels;
        for (int64_t i = 0; i < run; i += kVL) {
          if (run - i >= kVL) {
            store_narrow<D, kVL, A>(to + i, load<A, kVL>(from + i), false);
          } else {
            store_first<D, kVL, A>(to + i, load_first<A, kVL>(from + i, run - i), run - i);
          }
        }
      }
    }
  }

  template <class E>
  void input_grad(const Box &box) {
    constexpr int64_t per = std::is_same_v<E, Pair> ? 2 : 1;
    const int64_t filters = g.filters / per, of_group = g.filters_per_group / per;
    const Box seers = seers_of(g, box);
    const int axes = static_cast<int>(g.axes), last = g.last();
    const int64_t lanes = most_lanes(), positions = product(box.n.data(), axes);
    char *memory = scratch.take(workspace());
    A *dx = part<A>(memory, positions * g.channels * lanes);
    A *dy = part<A>(memory, product(seers.n.data(), axes) * g.filters * lanes);
    A *room = reinterpret_cast<A *>(memory);
    const bool whole = g.rows_are_runs(), few = few_samples();
    E *const panel = reinterpret_cast<E *>(dy);
    for_chunks([&](const Chunk &chunk, auto vl, auto nv) {
      constexpr int VL = vl, NV = nv;
      using T = Tiles<E, VL, NV>;
      std::memset(dx, 0, sizeof(A) * positions * g.channels * (few ? chunk.count : chunk.padded));
      if constexpr (per == 2) {
        gather_pairs<VL>(a_, g.dy_step, g.output, g.filters, seers, chunk, panel);
      } else if (few) {
        gather_filters(a_, seers, chunk, g.filters, dy);
      } else {
        gather_box<A, VL>(outputs(a_), seers, chunk, dy);
      }
      const E *above = panel;
      for (Odometer o(seers.n.data(), axes); !o.done; o.next(), above += filters * (few ? chunk.count : chunk.padded)) {
        // The taps with which this output sees into the box: a range along each axis.
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
        const D *stored = b_ + weights_at(position);
        const E *w;
        if constexpr (per == 2) {
          w = reinterpret_cast<const E *>(stored);  // pairs of filters are neighbours already
        } else {
          w = widened(stored, room);
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
          if constexpr (per == 1) {
            if (few) {  // dx is (sample, position, channel), dy (position, sample, filter)
              for (int64_t k = 0; k < length; k += kVL) {
                for (int64_t n = 0; n < chunk.count; ++n) {
                  input_row_tile<A, kVL>(above + n * filters, w + (row + k) * filters, filters, length - k,
                                         dx + (n * positions + at) * g.channels + k);
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
      if (few) return write_rows(dx, box, g.input, g.channels);
      scatter_box<A, VL>(dx, box, chunk, result_, g.input, g.channels, axes, streamed_);
    });
  }

  void split_kernel() {
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

  template <class E>
  void kernel_grad(const Box &owner, int64_t piece) {
    constexpr int64_t per = std::is_same_v<E, Pair> ? 2 : 1;  // samples in an element
    const int axes = static_cast<int>(g.axes);
    const int64_t lanes = most_lanes(), filters = g.filters_per_group;
    const bool few = few_filters();
    const int64_t pitch = (filters + kVL - 1) / kVL * kVL;
    const int64_t row_lo = g.terms * piece / parts_, row_hi = g.terms * (piece + 1) / parts_;
    // Weights at the owner's positions: summed in place, or beside them in a wider type.
    Box owned = owner;
    for (int a = 0; a < axes; ++a) {
      if (g.shared[a]) owned.lo[a] = 0, owned.n[a] = 1;
    }
    const int64_t each = (row_hi - row_lo) * g.filters, owners = product(owned.n.data(), axes);
    char *memory = scratch.take(workspace() + 4096);
    A *sums = kWidens ? part<A>(memory, owners * each) : nullptr;
    char *const rest = memory;
    // Of position `at` of the owner's, in order.
    const auto sums_at = [&](int64_t at, int64_t weights) -> A * {
      if constexpr (kWidens) {
        return sums + at * each;
      } else {
        return result_ + weights + row_lo * g.filters;
      }
    };
    const Index nothing_seen{};
    const auto for_owned = [&](auto &&body) {
      int64_t at = 0;
      for_positions(owned, nothing_seen, [&](int64_t weights, int64_t) { body(sums_at(at++, weights), weights); });
    };
    // Several contributions to one element are added to zeros.
    const bool shared_axes = g.any_shared(), shared = shared_axes || g.batch == 0;
    if (shared) {
      for_owned([&](A *to, int64_t) { std::memset(to, 0, sizeof(A) * each); });
    }
    for (int64_t i = 0; i < sharers_.tasks; ++i) {
      Box box = sharers_.at(i);
      for (int a = 0; a < axes; ++a) {
        if (!g.shared[a]) box.lo[a] = owner.lo[a], box.n[a] = owner.n[a];
      }
      const Box seen = seen_by(g, box);
      const int64_t positions = product(box.n.data(), axes);
      memory = rest;
      A *x = part<A>(memory, product(seen.n.data(), axes) * g.channels * lanes);
      A *dy = part<A>(memory, positions * g.groups * pitch * lanes);
      A *turned = reinterpret_cast<A *>(memory);
      std::vector<Run> window_runs = runs(seen.n);
      clip(window_runs, row_lo, row_hi);
      for_chunks([&](const Chunk &chunk, auto vl, auto nv) {
        constexpr int VL = vl;
        [[maybe_unused]] constexpr int NV = nv;
        if constexpr (per == 2) {
          const Source<uint16_t> bits{reinterpret_cast<const uint16_t *>(a_), g.x_step, g.input, g.channels, axes};
          gather_box<uint16_t, VL>(bits, seen, chunk, reinterpret_cast<uint16_t *>(x));
          gather_filter_pairs(box, chunk, pitch, reinterpret_cast<Pair *>(dy));
        } else if (few) {
          gather_box<A, VL>(inputs(), seen, chunk, x);
          gather_box<A, VL>(outputs(b_), box, chunk, dy);
        } else {
          gather_box<A, VL>(inputs(), seen, chunk, x);
          if (g.dy_step[1] == 1) {
            gather_filters(b_, box, chunk, pitch, dy);
          } else {
            gather_box<A, VL>(outputs(b_), box, chunk, turned);
            if (pitch != filters) std::memset(dy, 0, sizeof(A) * positions * g.groups * pitch * chunk.count);
            for (int64_t i = 0; i < positions * g.groups; ++i) {
              scatter<A, VL>(turned + i * filters * chunk.padded, chunk.padded, filters, chunk.count,
                             dy + i * pitch * chunk.count, pitch, false);
            }
          }
        }
        const Leave leave = shared || chunk.first > 0 ? Leave::kAdd
                            : streamed_ && !kWidens && chunk.count == g.batch ? Leave::kStream
                                                                  : Leave::kStore;
        const int64_t lanes_of = chunk.padded / per, samples = (chunk.count + per - 1) / per;
        const E *above = reinterpret_cast<const E *>(dy);
        int64_t position = 0;
        for_positions(box, seen.n, [&](int64_t weights, int64_t start) {
          const E *in = reinterpret_cast<const E *>(x) + start * lanes_of;
          A *to = sums_at(shared_axes ? owned_index(box, owned, position) : position, weights);
          ++position;
          for (int64_t group = 0; group < g.groups; ++group) {
            for (const Run &run : window_runs) {
              const E *xs = in + run.input * lanes_of;
              A *rows_of = to + run.weights * g.filters;
              if constexpr (per == 1) {
                if (few) {
                  sums_over_samples<VL, NV>(xs, run.length, above, rows_of, leave);
                  continue;
                }
              }
              many_filters(xs, run.length, lanes_of, samples, above, pitch, rows_of, leave);
            }
            in += g.channels_per_group * lanes_of;
            to += filters;
            above += few ? filters * lanes_of : pitch * samples;
          }
        });
      });
    }
    if constexpr (kWidens) {
      for_owned([&](const A *from, int64_t weights) {
        D *to = result_ + weights + row_lo * g.filters;
        int64_t k = 0;
        for (; k + kVL <= each; k += kVL) store_narrow<D, kVL, A>(to + k, load<A, kVL>(from + k), false);
        if (k < each) store_first<D, kVL, A>(to + k, load_first<A, kVL>(from + k, each - k), each - k);
      });
    }
  }

  // Which of the `owned` positions the one at index `at` of a box has its weights from.
  int64_t owned_index(const Box &box, const Box &owned, int64_t at) const {
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

  static void clip(std::vector<Run> &runs, int64_t lo, int64_t hi) {
    std::vector<Run> kept;
    for (const Run &run : runs) {
      const int64_t first = std::max(run.weights, lo), end = std::min(run.weights + run.length, hi);
      if (first < end) kept.push_back({run.input + (first - run.weights), first - lo, end - first});
    }
    runs.swap(kept);
  }

  // (position, group, sample, filter), whole vectors of filters.
  void gather_filters(const D *source, const Box &box, const Chunk &chunk, int64_t pitch, A *to) const {
    const int axes = static_cast<int>(g.axes);
    const int64_t filters = g.filters_per_group, step = g.dy_step[1];
    for (Odometer o(box.n.data(), axes); !o.done; o.next()) {
      const D *from = source + chunk.first * g.dy_step[0];
      for (int a = 0; a < axes; ++a) from += (box.lo[a] + o.at[a]) * g.dy_step[2 + a];
      for (int64_t group = 0; group < g.groups; ++group, from += filters * step) {
        for (int64_t n = 0; n < chunk.count; ++n, to += pitch) {
          const D *row = from + n * g.dy_step[0];
          int64_t f = 0;
          if (step == 1) {
            for (; f + kVL <= filters; f += kVL) store(to + f, load_wide<A, kVL>(row + f));
            if (f < filters) store(to + f, load_first<A, kVL>(row + f, filters - f));
          } else {
            for (; f < filters; f += kVL) {
              D some[kVL] = {};
              for (int64_t i = 0; i < std::min<int64_t>(kVL, filters - f); ++i) some[i] = row[(f + i) * step];
              store(to + f, load_wide<A, kVL>(some));
            }
          }
        }
      }
    }
  }

  // The same as pairs of neighbouring samples, (position, group, sample / 2, filter).
  void gather_filter_pairs(const Box &box, const Chunk &chunk, int64_t pitch, Pair *to) const {
    const int axes = static_cast<int>(g.axes);
    const int64_t filters = g.filters_per_group, step = g.dy_step[1];
    const auto *bits = reinterpret_cast<const uint16_t *>(b_) + chunk.first * g.dy_step[0];
    for (Odometer o(box.n.data(), axes); !o.done; o.next()) {
      const uint16_t *from = bits;
      for (int a = 0; a < axes; ++a) from += (box.lo[a] + o.at[a]) * g.dy_step[2 + a];
      for (int64_t group = 0; group < g.groups; ++group, from += filters * step) {
        for (int64_t n = 0; n < chunk.count; n += 2, to += pitch) {
          const uint16_t *row = from + n * g.dy_step[0], *after = row + g.dy_step[0];
          const bool two = n + 1 < chunk.count;
          int64_t f = 0;
          for (; two && step == 1 && f + kVL <= filters; f += kVL) store(to + f, pairs_of<kVL>(row + f, after + f));
          for (; f < pitch; ++f) {
            to[f] = f >= filters ? 0 : row[f * step] | (two ? static_cast<Pair>(after[f * step]) << 16 : 0);
          }
        }
      }
    }
  }

  template <int FV, class E>
  void vectors_of_filters(const E *x, int64_t length, int64_t lanes, int64_t samples, const E *dy, int64_t pitch,
                          A *to, int64_t tail, Leave leave) const {
    using T = KernelTiles<E, kVL, FV>;
    in_tiles(length, T::kMost, [&](int64_t k, int64_t rows) {
      T::kKernel[rows - 1](x + k * lanes, lanes, dy, pitch, samples, to + k * g.filters, g.filters, tail, leave);
    });
  }

  template <class E>
  void many_filters(const E *x, int64_t length, int64_t lanes, int64_t samples, const E *dy, int64_t pitch, A *to,
                    Leave leave) const {
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

  template <int VL, int NV>
  void sums_over_samples(const A *x, int64_t length, const A *dy, A *to, Leave leave) const {
    const int64_t filters = g.filters_per_group;
    constexpr int lanes = VL * NV;
    int64_t f = 0;
    const auto take = [&](auto count) {
      constexpr int kCount = count;
      if constexpr (kCount <= VL) {
        for (; f + kCount <= filters; f += kCount) {
          for (int64_t k = 0; k < length; k += VL / kCount) {
            small_kernel_tile<A, VL, NV, kCount>(x + k * lanes, dy + f * lanes, length - k, to + k * g.filters + f,
                                                 g.filters, leave);
          }
        }
      }
    };
    take(std::integral_constant<int, 4>{});
    take(std::integral_constant<int, 2>{});
    take(std::integral_constant<int, 1>{});
  }
};

template <class Use>
auto with_types(const Geometry &g, Use &&use) {
  switch (g.dtype) {
    case LCMULTI_FLOAT64: return use(double{}, double{});
    case LCMULTI_BFLOAT16: return use(bfloat16{}, float{});
    case LCMULTI_FLOAT16: return use(float16{}, float{});
    default: return use(float{}, float{});
  }
}

int64_t workspace(const Geometry &g, int map) {
  return with_types(g, [&](auto d, auto a) { return Call<decltype(d), decltype(a)>(g, map).workspace(); });
}

int compute(const Geometry &g, int map, const void *a, const void *b, void *result) {
  return with_types(g, [&](auto d, auto wide) -> int {
    Call<decltype(d), decltype(wide)> call(g, map);
    if (call.workspace() > kMostBytes) return LCMULTI_TOO_LARGE;
    return call.run(a, b, result) ? LCMULTI_OK : LCMULTI_NO_MEMORY;
  });
}

}  // namespace

#define LCMULTI_TEXT_(x) #x
#define LCMULTI_TEXT(x) LCMULTI_TEXT_(x)
extern const Kernels kernels{LCMULTI_TEXT(LCMULTI_ISA), compute, workspace};

}  // namespace lcmulti::LCMULTI_ISA
