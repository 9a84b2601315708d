// The plain C interface, and the choice of instruction set.
#include <cstdlib>
#include <cstring>
#include <exception>

#if defined(LCMULTI_X86)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels.h"
#include "pool.h"

namespace lcmulti {
namespace {

constexpr int64_t kLargeResult = 4 << 20;

#if defined(LCMULTI_X86)
// Whether the processor converts float16. Older versions of Clang's __builtin_cpu_supports do not know it.
[[maybe_unused]] bool has_f16c() {
  constexpr unsigned kF16C = 1u << 29;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & kF16C);
}

// Whether the processor has matrix tiles for bfloat16, and the system lets this process use them. The process
// must ask, because the tiles make the state of a thread too large for some signal stacks.
bool may_use_tiles() {
#if defined(LCMULTI_EMULATE)
  return true;
#elif defined(__linux__) && defined(SYS_arch_prctl)
  constexpr unsigned kTilesAndBfloat16 = 1u << 24 | 1u << 22;
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kTilesAndBfloat16) != kTilesAndBfloat16) return false;
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}
#endif

// Some instruction sets differ from an earlier one only in bfloat16.
const Kernels &choose([[maybe_unused]] bool bfloat16) {
  const char *wish = std::getenv("LCMULTI_NATIVE_ISA");
  // The best one, or the best that is not better than the one asked for.
  bool allowed = wish == nullptr;
  const auto take = [&](const Kernels &each, bool supported) {
    allowed |= wish != nullptr && std::strcmp(wish, each.name) == 0;
    return allowed && supported;
  };
#if defined(LCMULTI_X86)
#if defined(LCMULTI_EMULATE)
  const bool avx2 = true, avx512 = true, pairs = true;
#else
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool pairs = avx512 && __builtin_cpu_supports("avx512bf16");
#endif
  if (take(amx::kernels, bfloat16 && pairs) && may_use_tiles()) return amx::kernels;
  if (take(avx512bf16::kernels, bfloat16 && pairs)) return avx512bf16::kernels;
  if (take(avx512::kernels, avx512)) return avx512::kernels;
  if (take(avx2::kernels, avx2)) return avx2::kernels;
#elif defined(LCMULTI_NEON)
  if (take(neon::kernels, true)) return neon::kernels;
#endif
  take(plain::kernels, true);
  return plain::kernels;
}

// A large result is mostly new memory. With large pages, the system provides it with far fewer page faults.
void want_large_pages(void *data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = 4096;
  if (bytes < kLargeResult) return;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / kPage * kPage;
  madvise(reinterpret_cast<void *>(first), last - first, MADV_HUGEPAGE);  // a hint: it may fail
#else
  (void)data, (void)bytes;
#endif
}

const Kernels &chosen(int64_t dtype) {
  if (dtype == LCMULTI_BFLOAT16) {
    static const Kernels &kernels = choose(true);
    return kernels;
  }
  static const Kernels &kernels = choose(false);
  return kernels;
}

}  // namespace
}  // namespace lcmulti

using namespace lcmulti;

extern "C" {

int lcmulti_compute(const lcmulti_geometry *given, int map, const void *a, const void *b, void *result) {
  return lcmulti_compute_on(nullptr, given, map, a, b, result);
}

int lcmulti_compute_on(lcmulti_parallel parallel, const lcmulti_geometry *given, int map, const void *a, const void *b,
                       void *result) {
  Geometry geometry{};
  if (const int status = check(*given, geometry)) return status;
  geometry.lender = parallel;
  if (map < LCMULTI_FORWARD || map > LCMULTI_KERNEL_GRAD) return LCMULTI_INVALID;
  want_large_pages(result, geometry.written(map) * geometry.item);
  try {
    return chosen(geometry.dtype).compute[map](geometry, a, b, result);
  } catch (const std::exception &) {  // a C function has none
    return LCMULTI_NO_MEMORY;
  }
}

int lcmulti_cosines(lcmulti_parallel parallel, const int64_t *call, int64_t length, const void *a, const void *b,
                    void *result) {
  try {
    Sheet sheet;
    if (!read(call, length, sheet)) return LCMULTI_INVALID;
    sheet.lender = parallel;
    if (sheet.map == LCMULTI_COSINE_SLOPES) want_large_pages(result, sheet.elements() * sheet.item());
    return chosen(sheet.dtype).cosines(sheet, a, b, result);
  } catch (const std::exception &) {
    return LCMULTI_NO_MEMORY;
  }
}

int64_t lcmulti_workspace(const lcmulti_geometry *given, int map) {
  Geometry geometry{};
  if (const int status = check(*given, geometry)) return -status;
  if (map < LCMULTI_FORWARD || map > LCMULTI_KERNEL_GRAD) return -LCMULTI_INVALID;
  const int64_t each = chosen(geometry.dtype).workspace(geometry, map);
  if (each > kMostBytes) return -LCMULTI_TOO_LARGE;
  return each * geometry.threads;
}

int64_t lcmulti_threads(void) { return pool_threads(); }

const char *lcmulti_isa(void) { return chosen(LCMULTI_BFLOAT16).name; }

const char *lcmulti_status_text(int status) {
  switch (status) {
    case LCMULTI_OK: return "done";
    case LCMULTI_INVALID: return "a geometry that cannot be";
    case LCMULTI_TOO_LARGE: return "one window is more than fits in a core's scratch memory";
    case LCMULTI_NO_MEMORY: return "out of memory";
    default: return "unknown status";
  }
}

int64_t lcmulti_geometry_size(void) { return static_cast<int64_t>(sizeof(lcmulti_geometry)); }
}
