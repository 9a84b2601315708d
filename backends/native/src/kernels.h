// What each instruction set's translation unit provides.
#pragma once

#include "plan.h"

namespace lcmulti {

struct Kernels {
  const char *name;
  int (*compute)(const Geometry &geometry, int map, const void *a, const void *b, void *result);
  int64_t (*workspace)(const Geometry &geometry, int map);  // of one thread
};

#define LCMULTI_DECLARE(isa) \
  namespace isa {            \
  extern const Kernels kernels; \
  }
LCMULTI_DECLARE(plain)
LCMULTI_DECLARE(neon)
LCMULTI_DECLARE(avx2)
LCMULTI_DECLARE(avx512)
LCMULTI_DECLARE(avx512bf16)
#undef LCMULTI_DECLARE

}  // namespace lcmulti
