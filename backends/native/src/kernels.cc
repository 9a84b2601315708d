// The kernels of one instruction set, which LCMULTI_ISA names.
#include "kernels.h"

#include "choose.h"

namespace lcmulti::LCMULTI_ISA {

int64_t workspace(const Geometry &g, int map) {
  return map == LCMULTI_FORWARD      ? workspace_of<LCMULTI_FORWARD>(g)
         : map == LCMULTI_INPUT_GRAD ? workspace_of<LCMULTI_INPUT_GRAD>(g)
                                     : workspace_of<LCMULTI_KERNEL_GRAD>(g);
}

#if defined(LCMULTI_BFLOAT16_ALONE)
constexpr auto kCosines = nullptr;
#else
constexpr auto kCosines = cosines;
#endif

#define LCMULTI_TEXT_(x) #x
#define LCMULTI_TEXT(x) LCMULTI_TEXT_(x)
extern const Kernels kernels{LCMULTI_TEXT(LCMULTI_ISA), {forward, input_grad, kernel_grad}, workspace, kCosines};

}  // namespace lcmulti::LCMULTI_ISA
