// The plain C interface, and the choice of instruction set.
#include <cstdlib>
#include <cstring>

#include "kernels.h"
#include "pool.h"

namespace lcmulti {
namespace {

const Kernels &choose() {
  const char *wish = std::getenv("LCMULTI_NATIVE_ISA");
  // The best there is, or from the one that is wished for down.
  bool allowed = wish == nullptr;
  const auto take = [&](const Kernels &each, bool supported) {
    allowed |= wish != nullptr && std::strcmp(wish, each.name) == 0;
    return allowed && supported;
  };
#if defined(LCMULTI_X86)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (take(avx512bf16::kernels, avx512 && __builtin_cpu_supports("avx512bf16"))) return avx512bf16::kernels;
  if (take(avx512::kernels, avx512)) return avx512::kernels;
  if (take(avx2::kernels, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return avx2::kernels;
#elif defined(LCMULTI_NEON)
  if (take(neon::kernels, true)) return neon::kernels;
#endif
  take(plain::kernels, true);
  return plain::kernels;
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
