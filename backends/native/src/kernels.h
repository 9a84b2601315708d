// The interface that the translation units of each instruction set provide.
#pragma once

#include "neighbours.h"
#include "plan.h"

namespace lcmulti {

struct Kernels {
  const char *name;
  // Indexed by map.
  int (*compute[3])(const Geometry &geometry, const void *a, const void *b, void *result);
  int64_t (*workspace)(const Geometry &geometry, int map);  // of one thread
  int (*cosines)(const Sheet &sheet, const void *a, const void *b, void *result);  // null if for bfloat16 alone
};

#define LCMULTI_DECLARE(isa)                                                             \
  namespace isa {                                                                        \
  int forward(const Geometry &geometry, const void *a, const void *b, void *result);     \
  int input_grad(const Geometry &geometry, const void *a, const void *b, void *result);  \
  int kernel_grad(const Geometry &geometry, const void *a, const void *b, void *result); \
  int cosines(const Sheet &sheet, const void *a, const void *b, void *result);           \
  extern const Kernels kernels;                                                          \
  }
LCMULTI_DECLARE(plain)
LCMULTI_DECLARE(neon)
LCMULTI_DECLARE(avx2)
LCMULTI_DECLARE(avx512)
LCMULTI_DECLARE(avx512bf16)
LCMULTI_DECLARE(amx)
#undef LCMULTI_DECLARE

}  // namespace lcmulti
