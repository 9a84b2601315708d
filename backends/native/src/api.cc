// The plain C interface.
#include <exception>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "instruction_set.h"
#include "pool.h"

namespace lcmulti {
namespace {

constexpr int64_t kLargeResult = 4 << 20;

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
    return kernels_for(geometry.dtype).compute[map](geometry, a, b, result);
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
    return kernels_for(sheet.dtype).cosines(sheet, a, b, result);
  } catch (const std::exception &) {
    return LCMULTI_NO_MEMORY;
  }
}

int64_t lcmulti_workspace(const lcmulti_geometry *given, int map) {
  Geometry geometry{};
  if (const int status = check(*given, geometry)) return -status;
  if (map < LCMULTI_FORWARD || map > LCMULTI_KERNEL_GRAD) return -LCMULTI_INVALID;
  const int64_t each = kernels_for(geometry.dtype).workspace(geometry, map);
  if (each > kMostBytes) return -LCMULTI_TOO_LARGE;
  return each * geometry.threads;
}

int64_t lcmulti_threads(void) { return pool_threads(); }

const char *lcmulti_isa(void) { return kernels_for(LCMULTI_BFLOAT16).name; }

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
