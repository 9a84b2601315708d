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
    if (size_ > 4 * kBoxBytes) memory_.reset(), size_ = 0;
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
    // Less work than it takes to wake a thread.
    const double work = static_cast<double>(g.batch) * static_cast<double>(product(g.output, g.axes)) *
                        static_cast<double>(g.terms) * static_cast<double>(g.filters_per_group) * 1.0;
    const int64_t threads = work * static_cast<double>(g.groups) < 2e5 ? 1 : g.threads;
    const auto trimmed = [](auto &&task) {
      return [task](int64_t i) {
        task(i);
        scratch.trim();
      };
    };
    switch (map_) {
      case LCMULTI_FORWARD:
        return parallel_for(grid_.tasks, threads, trimmed([this](int64_t i) { forward(grid_.at(i)); }));
      case LCMULTI_INPUT_GRAD:
        return parallel_for(grid_.tasks, threads, trimmed([this](int64_t i) { input_grad(grid_.at(i)); }));
      default: {
        split_kernel();
        return parallel_for(owners_.tasks * parts_, threads,
                            trimmed([this](int64_t i) { kernel_grad(owners_.at(i / parts_), i % parts_); }));
      }
    }
  }

 private:
  const Geometry &g;
  int map_;
  Grid grid_;
  const D *a_ = nullptr, *b_ = nullptr;
  D *result_ = nullptr;
  // Of kernel_grad: boxes of positions with weights of their own, the boxes that share each, and
  // the parts a window is cut into where there would be too few tasks.
  Grid owners_, sharers_;
  int64_t parts_ = 1;

  // Samples at once: enough to reuse a weight from its register, no more than the batch asks for.
  int most_lanes() const {
    int lanes = kShort;
    while (lanes < 4 * kVL && lanes < g.batch) lanes *= 2;
    return lanes;
  }

  // body(chunk, vector length, vectors) for all samples.
  template <class Body>
  void for_chunks(Body &&body) const {
    for (int64_t first = 0; first < g.batch;) {
      const int64_t left = g.batch - first;
      int lanes = kShort;
      while (lanes < 4 * kVL && lanes < left) lanes *= 2;
      // Three quarters full is worth a pass; else a smaller one and the rest after it.
      if (lanes > kVL && left < lanes && 4 * left < 3 * lanes) lanes /= 2;
      const Chunk chunk{first, std::min<int64_t>(left, lanes), lanes};
      using std::integral_constant;
      if (lanes == 4 * kVL) {
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
      for (; i < count; ++i) room[i] = load_wide<A, kVL>(weights + i, 1)[0];
      return room;
    } else {
      return weights;
    }
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

  // Where the window of output `at` of a box starts in the inputs the box sees.
  int64_t window(const Index &at, const Index &seen) const {
    int64_t start = 0;
    for (int a = 0; a < g.axes; ++a) start = start * seen[a] + at[a] * g.stride[a];
    return start * g.channels;
  }

  Source<D> inputs() const { return {a_, g.x_step, g.input, g.channels, static_cast<int>(g.axes)}; }
  Source<D> outputs(const D *dy) const { return {dy, g.dy_step, g.output, g.filters, static_cast<int>(g.axes)}; }

  // Weights to fetch while those at `weights` are in use; the same again after the last.
  const A *next_weights(const A *weights) const {
    if constexpr (kWidens) return weights;
    const int64_t at = weights - reinterpret_cast<const A *>(b_) + g.terms * g.filters;
    return at < g.weights ? weights + g.terms * g.filters : weights;
  }

  void forward(const Box &box) {
    const Box seen = seen_by(g, box);
    const int64_t positions = product(box.n.data(), g.axes), lanes = most_lanes();
    char *memory = scratch.take(workspace());
    A *x = part<A>(memory, product(seen.n.data(), g.axes) * g.channels * lanes);
    A *y = part<A>(memory, positions * g.filters * lanes);
    A *room = reinterpret_cast<A *>(memory);
    const std::vector<Run> window_runs = runs(seen.n);
    for_chunks([&](const Chunk &chunk, auto vl, auto nv) {
      constexpr int VL = vl, NV = nv;
      using T = Tiles<A, VL, NV>;
      gather_box<A, VL>(inputs(), seen, chunk, x);
      A *out = y;
      for (Odometer o(box.n.data(), static_cast<int>(g.axes)); !o.done; o.next()) {
        Index position{};
        for (int a = 0; a < g.axes; ++a) position[a] = box.lo[a] + o.at[a];
        const A *w = widened(b_ + weights_at(position), room);
        const A *ahead = next_weights(w);
        const A *in = x + window(o.at, seen.n) * chunk.padded;
        for (int64_t group = 0; group < g.groups; ++group) {
          in_tiles(g.filters_per_group, T::kMost, [&](int64_t first, int64_t rows) {
            T::kForward[rows - 1](window_runs.data(), static_cast<int64_t>(window_runs.size()), in, w + first,
                                  g.filters, out + first * chunk.padded, ahead);
            ahead += rows * g.terms;
          });
          in += g.channels_per_group * chunk.padded;
          w += g.filters_per_group;
          out += g.filters_per_group * chunk.padded;
        }
      }
      scatter_box<A, VL>(y, box, chunk, result_, g.output, g.filters, static_cast<int>(g.axes));
    });
  }

  void input_grad(const Box &box) {
    const Box seers = seers_of(g, box);
    const int axes = static_cast<int>(g.axes), last = g.last();
    const int64_t lanes = most_lanes(), positions = product(box.n.data(), axes);
    char *memory = scratch.take(workspace());
    A *dx = part<A>(memory, positions * g.channels * lanes);
    A *dy = part<A>(memory, product(seers.n.data(), axes) * g.filters * lanes);
    A *room = reinterpret_cast<A *>(memory);
    const bool whole = g.rows_are_runs();
    for_chunks([&](const Chunk &chunk, auto vl, auto nv) {
      constexpr int VL = vl, NV = nv;
      using T = Tiles<A, VL, NV>;
      std::memset(dx, 0, sizeof(A) * positions * g.channels * chunk.padded);
      gather_box<A, VL>(outputs(a_), seers, chunk, dy);
      const A *above = dy;
      for (Odometer o(seers.n.data(), axes); !o.done; o.next(), above += g.filters * chunk.padded) {
        // The taps with which this output sees into the box: a range along each axis.
        Index position{}, tap_lo{}, taps{}, first{};
        for (int a = 0; a < axes; ++a) {
          position[a] = seers.lo[a] + o.at[a];
          const int64_t start = position[a] * g.stride[a] - g.pad[a] - box.lo[a], d = g.dilation[a];
          tap_lo[a] = start >= 0 ? 0 : (-start + d - 1) / d;
          const int64_t room_left = box.n[a] - 1 - start;
          const int64_t tap_hi = room_left < 0 ? -1 : std::min(room_left / d, g.kernel[a] - 1);
          taps[a] = tap_hi - tap_lo[a] + 1;
          first[a] = start + tap_lo[a] * d;
        }
        Odometer tap(taps.data(), axes);
        if (tap.done) continue;
        const A *w = widened(b_ + weights_at(position), room);
        const A *ahead = next_weights(w);
        const int64_t length = g.channels_per_group * (whole ? taps[last] : 1);
        if (whole) tap.axes = last, tap.done = false;
        for (; !tap.done; tap.next()) {
          int64_t at = 0, row = 0;
          for (int a = 0; a < axes; ++a) {
            at = at * box.n[a] + first[a] + tap.at[a] * g.dilation[a];
            row = row * g.kernel[a] + tap_lo[a] + tap.at[a];
          }
          row *= g.channels_per_group;
          for (int64_t group = 0; group < g.groups; ++group) {
            A *to = dx + (at * g.channels + group * g.channels_per_group) * chunk.padded;
            const A *from = w + row * g.filters + group * g.filters_per_group;
            in_tiles(length, T::kMost, [&](int64_t k, int64_t rows) {
              T::kInput[rows - 1](above + group * g.filters_per_group * chunk.padded, from + k * g.filters,
                                  g.filters, g.filters_per_group, to + k * chunk.padded,
                                  ahead + (row + k) * g.filters);
            });
          }
        }
      }
      scatter_box<A, VL>(dx, box, chunk, result_, g.input, g.channels, axes);
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

  void kernel_grad(const Box &owner, int64_t piece) {
    const int axes = static_cast<int>(g.axes);
    const int64_t lanes = most_lanes(), filters = g.filters_per_group;
    const bool few = filters < kFewFilters;
    const int64_t pitch = (filters + kVL - 1) / kVL * kVL;
    const int64_t row_lo = g.terms * piece / parts_, row_hi = g.terms * (piece + 1) / parts_;
    // Weights at the owner's positions: summed in place, or beside them in a wider type.
    Index owned{};
    for (int a = 0; a < axes; ++a) owned[a] = g.shared[a] ? 1 : owner.n[a];
    const int64_t rows = row_hi - row_lo, each = rows * g.filters, owners = product(owned.data(), axes);
    char *memory = scratch.take(workspace() + 4096);
    A *sums = kWidens ? part<A>(memory, owners * each) : nullptr;
    char *const rest = memory;
    const auto sums_at = [&](const Index &at) -> A * {
      if constexpr (kWidens) {
        int64_t index = 0;
        for (int a = 0; a < axes; ++a) index = index * owned[a] + (g.shared[a] ? 0 : at[a]);
        return sums + index * each;
      } else {
        Index position{};
        for (int a = 0; a < axes; ++a) position[a] = g.shared[a] ? 0 : owner.lo[a] + at[a];
        return result_ + weights_at(position) + row_lo * g.filters;
      }
    };
    // Several contributions to one element are added to zeros.
    const bool shared = g.any_shared() || g.batch == 0;
    if (shared) {
      for (Odometer o(owned.data(), axes); !o.done; o.next()) std::memset(sums_at(o.at), 0, sizeof(A) * each);
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
      std::vector<Run> window_runs = runs(seen.n);
      clip(window_runs, row_lo, row_hi);
      for_chunks([&](const Chunk &chunk, auto vl, auto nv) {
        constexpr int VL = vl, NV = nv;
        gather_box<A, VL>(inputs(), seen, chunk, x);
        if (few) {
          gather_box<A, VL>(outputs(b_), box, chunk, dy);
        } else {
          gather_filters(box, chunk, pitch, dy);
        }
        const Leave leave = shared || chunk.first > 0 ? Leave::kAdd : Leave::kStore;
        const A *above = dy;
        for (Odometer o(box.n.data(), axes); !o.done; o.next()) {
          const A *in = x + window(o.at, seen.n) * chunk.padded;
          A *to = sums_at(o.at);
          for (int64_t group = 0; group < g.groups; ++group) {
            for (const Run &run : window_runs) {
              const A *xs = in + run.input * chunk.padded;
              A *rows_of = to + run.weights * g.filters;
              if (few) {
                few_filters<VL, NV>(xs, run.length, above, rows_of, leave);
              } else {
                many_filters(xs, run.length, chunk, above, pitch, rows_of, leave);
              }
            }
            in += g.channels_per_group * chunk.padded;
            to += filters;
            above += few ? filters * chunk.padded : pitch * chunk.count;
          }
        }
      });
    }
    if constexpr (kWidens) {
      for (Odometer o(owned.data(), axes); !o.done; o.next()) {
        Index position{};
        for (int a = 0; a < axes; ++a) position[a] = g.shared[a] ? 0 : owner.lo[a] + o.at[a];
        const A *from = sums_at(o.at);
        D *to = result_ + weights_at(position) + row_lo * g.filters;
        int64_t k = 0;
        for (; k + kVL <= each; k += kVL) store_narrow<D, kVL, A>(to + k, load<A, kVL>(from + k));
        for (; k < each; ++k) {
          store_narrow<D, kVL, A>(to + k, load_wide<A, kVL>(from + k, 1), 1);
        }
      }
    }
  }

  // Filters that waste more than half of a vector's lanes are summed over samples instead.
  static constexpr int kFewFilters = std::min(kVL / 2 + 1, 8);

  static void clip(std::vector<Run> &runs, int64_t lo, int64_t hi, int64_t channels) {
    std::vector<Run> kept;
    for (const Run &run : runs) {
      const int64_t first = std::max(run.weights, lo), end = std::min(run.weights + run.length, hi);
      if (first < end) kept.push_back({run.input + (first - run.weights), first - lo, end - first});
    }
    runs.swap(kept);
    (void)channels;
  }
  static void clip(std::vector<Run> &runs, int64_t lo, int64_t hi) { clip(runs, lo, hi, 0); }

  // (position, group, sample, filter), whole vectors of filters.
  void gather_filters(const Box &box, const Chunk &chunk, int64_t pitch, A *to) const {
    const int axes = static_cast<int>(g.axes);
    const int64_t filters = g.filters_per_group, step = g.dy_step[1];
    for (Odometer o(box.n.data(), axes); !o.done; o.next()) {
      const D *from = b_ + chunk.first * g.dy_step[0];
      for (int a = 0; a < axes; ++a) from += (box.lo[a] + o.at[a]) * g.dy_step[2 + a];
      for (int64_t group = 0; group < g.groups; ++group, from += filters * step) {
        for (int64_t n = 0; n < chunk.count; ++n, to += pitch) {
          const D *row = from + n * g.dy_step[0];
          int64_t f = 0;
          if (step == 1) {
            for (; f + kVL <= filters; f += kVL) store(to + f, load_wide<A, kVL>(row + f));
            if (f < filters) store(to + f, load_wide<A, kVL>(row + f, filters - f));
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

  template <int FV>
  void vectors_of_filters(const A *x, int64_t length, const Chunk &chunk, const A *dy, int64_t pitch, A *to,
                          int64_t tail, Leave leave) const {
    using T = KernelTiles<A, kVL, FV>;
    in_tiles(length, T::kMost, [&](int64_t k, int64_t rows) {
      T::kKernel[rows - 1](x + k * chunk.padded, chunk.padded, dy, pitch, chunk.count, to + k * g.filters,
                           g.filters, tail, leave);
    });
  }

  void many_filters(const A *x, int64_t length, const Chunk &chunk, const A *dy, int64_t pitch, A *to,
                    Leave leave) const {
    for (int64_t f = 0; f < g.filters_per_group;) {
      const int64_t left = g.filters_per_group - f, vectors = (left + kVL - 1) / kVL;
      const int64_t taken = vectors >= 4 ? 4 : vectors >= 2 ? 2 : 1;
      const int64_t tail = std::min<int64_t>(left - (taken - 1) * kVL, kVL);
      if (taken == 4) {
        vectors_of_filters<4>(x, length, chunk, dy + f, pitch, to + f, tail, leave);
      } else if (taken == 2) {
        vectors_of_filters<2>(x, length, chunk, dy + f, pitch, to + f, tail, leave);
      } else {
        vectors_of_filters<1>(x, length, chunk, dy + f, pitch, to + f, tail, leave);
      }
      f += taken * kVL;
    }
  }

  template <int VL, int NV>
  void few_filters(const A *x, int64_t length, const A *dy, A *to, Leave leave) const {
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
