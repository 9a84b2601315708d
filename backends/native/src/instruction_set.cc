#include "instruction_set.h"

#include <cstdlib>
#include <cstring>

#if defined(LCMULTI_X86)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lcmulti {
namespace {

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

}  // namespace

const Kernels &kernels_for(int64_t dtype) {
  if (dtype == LCMULTI_BFLOAT16) {
    static const Kernels &kernels = choose(true);
    return kernels;
  }
  static const Kernels &kernels = choose(false);
  return kernels;
}

}  // namespace lcmulti
