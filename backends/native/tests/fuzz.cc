// Compares random geometries with a direct evaluation in double precision, with canaries around every buffer.
//
//     fuzz [SECONDS [SEED]]
//
// It also calls the pool from several threads at once, and in a forked child. `nox -s sanitize` builds it with
// sanitizers.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "buffer.h"
#include "geometries.h"
#include "lcmulti_native.h"
#include "sheets.h"

namespace {

int64_t product(const int64_t *n, int64_t count) {
  int64_t total = 1;
  for (int64_t i = 0; i < count; ++i) total *= n[i];
  return total;
}

struct Walk {
  int64_t at[LCMULTI_MAX_AXES] = {};
  bool next(const int64_t *n, int64_t axes) {
    for (int64_t a = axes - 1; a >= 0; --a) {
      if (++at[a] < n[a]) return true;
      at[a] = 0;
    }
    return false;
  }
};

// Calls term(x index, kernel index, y index) for each product.
template <class Term>
void each_term(const lcmulti_geometry &g, Term &&term) {
  const int64_t cg = g.channels / g.groups, fg = g.filters / g.groups;
  for (int64_t n = 0; n < g.batch; ++n) {
    Walk o;
    do {
      Walk t;
      do {
        int64_t x = n * g.x_step[0], y = n * g.dy_step[0], w = 0;
        bool within = true;
        for (int64_t a = 0; a < g.axes; ++a) {
          const int64_t i = o.at[a] * g.stride[a] + t.at[a] * g.dilation[a] - g.pad[a];
          within &= i >= 0 && i < g.input[a];
          x += i * g.x_step[2 + a];
          y += o.at[a] * g.dy_step[2 + a];
          w = g.shared[a] ? w : w * g.output[a] + o.at[a];
        }
        for (int64_t a = 0; a < g.axes; ++a) w = w * g.kernel[a] + t.at[a];
        if (!within) continue;
        for (int64_t f = 0; f < g.filters; ++f) {
          for (int64_t c = 0; c < cg; ++c) {
            const int64_t channel = f / fg * cg + c;
            term(x + channel * g.x_step[1], (w * cg + c) * g.filters + f, y + f * g.dy_step[1]);
          }
        }
      } while (t.next(g.kernel, g.axes));
    } while (o.next(g.output, g.axes));
  }
}

int64_t span(const int64_t *step, const int64_t *size, int64_t axes, int64_t batch, int64_t channels) {
  int64_t last = (channels - 1) * step[1] + 1 + std::max<int64_t>(batch - 1, 0) * step[0];
  for (int64_t a = 0; a < axes; ++a) last += (size[a] - 1) * step[2 + a];
  return batch == 0 ? 0 : last;
}

// The elements of a buffer that belong to the array.
std::vector<bool> belonging(const int64_t *step, const int64_t *size, int64_t axes, int64_t batch, int64_t channels) {
  std::vector<bool> result(static_cast<size_t>(span(step, size, axes, batch, channels)));
  for (int64_t n = 0; n < batch; ++n) {
    Walk at;
    do {
      for (int64_t c = 0; c < channels; ++c) {
        int64_t i = n * step[0] + c * step[1];
        for (int64_t a = 0; a < axes; ++a) i += at.at[a] * step[2 + a];
        result[static_cast<size_t>(i)] = true;
      }
    } while (at.next(size, axes));
  }
  return result;
}

// Lends threads, as a caller of the kernels may.
void lend(void (*work)(void *), void *data, unsigned threads, unsigned) {
  std::vector<std::thread> others;
  for (unsigned i = 1; i < threads; ++i) others.emplace_back(work, data);
  work(data);
  for (auto &each : others) each.join();
}

const char *fault(const lcmulti_geometry &g, Random &random) {
  int64_t positions = 1;
  for (int64_t a = 0; a < g.axes; ++a) positions *= g.shared[a] ? 1 : g.output[a];
  const int64_t weights = positions * product(g.kernel, g.axes) * g.channels / g.groups * g.filters;
  const auto offset = static_cast<size_t>(draw(random, 0, 3));
  Buffer x(span(g.x_step, g.input, g.axes, g.batch, g.channels), g.dtype, offset);
  Buffer kernel(weights, g.dtype, offset);
  Buffer dy(span(g.dy_step, g.output, g.axes, g.batch, g.filters), g.dtype, offset);
  // Products of small factors leave the matrix unit, and those of pairs, for float32.
  const double small = g.dtype == LCMULTI_BFLOAT16 && draw(random, 0, 7) == 0 ? 0x1p-66 : 1;
  x.fill(random, small), kernel.fill(random, small), dy.fill(random, small);
  const lcmulti_parallel lender = draw(random, 0, 3) == 0 ? lend : nullptr;
  const Buffer x_before = x, kernel_before = kernel, dy_before = dy;
  for (int map = LCMULTI_FORWARD; map <= LCMULTI_KERNEL_GRAD; ++map) {
    const std::vector<bool> written =
        map == LCMULTI_FORWARD      ? belonging(g.dy_step, g.output, g.axes, g.batch, g.filters)
        : map == LCMULTI_INPUT_GRAD ? belonging(g.x_step, g.input, g.axes, g.batch, g.channels)
                                    : std::vector<bool>(static_cast<size_t>(weights), true);
    const auto count = static_cast<int64_t>(written.size());
    Buffer result(count, g.dtype, offset);
    std::vector<double> expected(static_cast<size_t>(count), 0.0);
    each_term(g, [&](int64_t xi, int64_t w, int64_t yi) {
      if (map == LCMULTI_FORWARD) expected[static_cast<size_t>(yi)] += x.get(xi) * kernel.get(w);
      if (map == LCMULTI_INPUT_GRAD) expected[static_cast<size_t>(xi)] += dy.get(yi) * kernel.get(w);
      if (map == LCMULTI_KERNEL_GRAD) expected[static_cast<size_t>(w)] += x.get(xi) * dy.get(yi);
    });
    void *a = map == LCMULTI_INPUT_GRAD ? dy.data() : x.data();
    void *b = map == LCMULTI_KERNEL_GRAD ? dy.data() : kernel.data();
    if (lcmulti_compute_on(lender, &g, map, a, b, result.data()) != LCMULTI_OK) return "refused";
    if (!result.canaries_alive()) return "wrote beyond the result";
    if (!(x == x_before && kernel == kernel_before && dy == dy_before)) return "changed an input";
    // Sums are exact in float32 and float64; a half type rounds once.
    const double unit = g.dtype == LCMULTI_BFLOAT16 ? 0x1p-8 : g.dtype == LCMULTI_FLOAT16 ? 0x1p-11 : 0;
    for (int64_t i = 0; i < count; ++i) {
      if (!written[static_cast<size_t>(i)]) {
        if (!result.untouched(i)) return "wrote between the result's elements";
        continue;
      }
      const double e = expected[static_cast<size_t>(i)];
      if (!(std::abs(result.get(i) - e) <= unit * std::abs(e))) return "a wrong number";
    }
  }
  return nullptr;
}

void show(const lcmulti_geometry &g) {
  const auto *fields = reinterpret_cast<const int64_t *>(&g);
  for (size_t i = 0; i < sizeof g / sizeof *fields; ++i) {
    std::fprintf(stderr, "%lld ", static_cast<long long>(fields[i]));
  }
  std::fputs("\n", stderr);
}

bool search(double seconds, uint64_t seed, int64_t *tried) {
  const auto start = std::chrono::steady_clock::now();
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds) {
    Random random(seed++);
    ++*tried;
    if (draw(random, 0, 7) == 0) {
      if (const char *what = sheet_fault(random, draw(random, 0, 3) == 0 ? lend : nullptr)) {
        std::fprintf(stderr, "seed %llu: a sheet: %s\n", static_cast<unsigned long long>(seed - 1), what);
        return false;
      }
      continue;
    }
    const lcmulti_geometry g = random_geometry(random);
    if (const char *what = fault(g, random)) {
      std::fprintf(stderr, "seed %llu: %s\n", static_cast<unsigned long long>(seed - 1), what);
      show(g);
      return false;
    }
  }
  return true;
}

// Geometries with random fields must be accepted or refused, without undefined behaviour. Nothing is computed.
void hostile(uint64_t seed) {
  Random random(seed);
  constexpr int64_t odd[] = {0, -1, 1, 2, 7, int64_t{1} << 31, int64_t{1} << 62, INT64_MIN, INT64_MAX};
  for (int i = 0; i < 20000; ++i) {
    lcmulti_geometry g = random_geometry(random);
    auto *fields = reinterpret_cast<int64_t *>(&g);
    const int64_t count = static_cast<int64_t>(sizeof g / sizeof *fields) - 2 * (LCMULTI_MAX_AXES + 2);
    for (int64_t n = draw(random, 1, 3); n > 0; --n) fields[draw(random, 0, count - 1)] = odd[draw(random, 0, 8)];
    for (int map = -1; map <= 3; ++map) lcmulti_workspace(&g, map);
  }
}

// The same for descriptions of sheets: what is refused is not computed, so no array is needed.
bool hostile_sheets(uint64_t seed) {
  Random random(seed);
  for (int i = 0; i < 20000; ++i) {
    std::vector<int64_t> call = RandomSheet(random).call(static_cast<int>(draw(random, 0, 1)));
    constexpr int64_t wrong[] = {-1, int64_t{1} << 62, INT64_MIN, INT64_MAX};
    const int64_t last = static_cast<int64_t>(call.size()) - 1;
    if (draw(random, 0, 1)) {
      call.resize(static_cast<size_t>(draw(random, 0, last)));
    } else {
      constexpr int64_t sizes[] = {0, 3, 4, 5, 6, 7};
      call[static_cast<size_t>(sizes[draw(random, 0, 5)])] = wrong[draw(random, 0, 3)];
    }
    if (lcmulti_cosines(nullptr, call.data(), static_cast<int64_t>(call.size()), nullptr, nullptr, nullptr) !=
        LCMULTI_INVALID) {
      std::fprintf(stderr, "a sheet that is none was not refused\n");
      return false;
    }
  }
  return true;
}

}  // namespace

int main(int argc, char **argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 10;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  const char *wish = std::getenv("LCMULTI_NATIVE_ISA");
  if (wish != nullptr && std::strcmp(wish, lcmulti_isa()) != 0) {
    std::printf("%s: not on this processor\n", wish);
    return 0;
  }
  hostile(seed);
  if (!hostile_sheets(seed)) return 1;
  int64_t tried[4] = {};
  bool good[4] = {};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&, i] { good[i] = search(seconds / 2, seed + 1000000u * i, &tried[i]); });
  }
  for (auto &caller : callers) caller.join();
  bool all = good[0] && good[1] && good[2] && good[3];
#if !defined(__SANITIZE_THREAD__)  // it does not support a fork of a program with threads
  const pid_t child = fork();
  if (child == 0) {
    int64_t more = 0;
    std::_Exit(search(seconds / 2, seed + 7, &more) && more > 0 ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  all = all && status == 0;
#endif
  std::printf("%s: %lld geometries, %s\n", lcmulti_isa(),
              static_cast<long long>(tried[0] + tried[1] + tried[2] + tried[3]), all ? "all right" : "FAULTS");
  return all ? 0 : 1;
}
