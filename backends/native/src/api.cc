// The plain C interface, and the choice of instruction set.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels.h"
#include "pool.h"

namespace lcmulti {
namespace {

const Kernels &choose() {
  const char *wish = std::getenv("LCMULTI_NATIVE_ISA");
  const auto allowed = [wish](const Kernels &each) { return wish == nullptr || std::strcmp(wish, each.name) == 0; };
#if defined(LCMULTI_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && allowed(avx512::kernels)) {
    return avx512::kernels;
  }
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  // A wish for what this processor lacks, or for nothing there is, gets the next best.
  if (has_avx2 && (wish == nullptr || std::strcmp(wish, plain::kernels.name) != 0)) return avx2::kernels;
  return plain::kernels;
#elif defined(LCMULTI_NEON)
  return wish != nullptr && std::strcmp(wish, plain::kernels.name) == 0 ? plain::kernels : neon::kernels;
#else
  (void)allowed;
  return plain::kernels;
#endif
}

const Kernels &chosen() {
  static const Kernels &kernels = choose();
  return kernels;
}

}  // namespace
}  // namespace lcmulti

using namespace lcmulti;

extern "C" {

int lcmulti_compute(const lcmulti_geometry *given, int map, const void *a, const void *b, void *result) {
  Geometry geometry{};
  if (const int status = check(*given, geometry)) return status;
  if (map < LCMULTI_FORWARD || map > LCMULTI_KERNEL_GRAD) return LCMULTI_INVALID;
  return chosen().compute(geometry, map, a, b, result);
}

int64_t lcmulti_workspace(const lcmulti_geometry *given, int map) {
  Geometry geometry{};
  if (const int status = check(*given, geometry)) return -status;
  if (map < LCMULTI_FORWARD || map > LCMULTI_KERNEL_GRAD) return -LCMULTI_INVALID;
  const int64_t each = chosen().workspace(geometry, map);
  if (each > kMostBytes) return -LCMULTI_TOO_LARGE;
  return each * (geometry.threads > 0 ? geometry.threads : pool_threads());
}

int64_t lcmulti_threads(void) { return pool_threads(); }

const char *lcmulti_isa(void) { return chosen().name; }

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
