// Random geometries for the fuzzer: of any kind, and of the kinds for which there are special kernels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "buffer.h"

// Channels last or first, with a gap after each sample; after a large gap, also one after each element.
inline void lay_out(int64_t *step, const int64_t *size, int64_t axes, int64_t channels, bool first, int64_t gap) {
  int64_t total = first ? 1 : channels;
  for (int64_t a = axes - 1; a >= 0; --a) {
    step[2 + a] = total;
    total *= size[a];
  }
  step[1] = first ? total : 1;
  step[0] = (first ? total * channels : total) + gap;
  if (gap > 3) {  // then no two elements are adjacent
    std::for_each(step, step + axes + 2, [](int64_t &each) { each *= 2; });
  }
}

// Adjacent windows along the last axis, pixels along the others, and few filters: mostly calls for the kernels in
// abutting.cc.
inline void abut(Random &random, lcmulti_geometry &g) {
  const bool nearly = draw(random, 0, 4) == 0;
  g.groups = draw(random, 0, 5) == 0 ? 2 : 1;
  g.channels = g.groups << draw(random, 0, 4);
  g.filters = g.groups * draw(random, 1, 4);
  for (int64_t a = 0; a < g.axes; ++a) {
    const bool last = a + 1 == g.axes;
    g.kernel[a] = g.stride[a] = last ? int64_t{1} << std::max<int64_t>(draw(random, -2, 3), 0) : 1;
    if (last) g.output[a] = draw(random, 1, 40);
    g.dilation[a] = 1;
    g.pad[a] = g.shared[a] = nearly ? draw(random, 0, 1) : 0;
    g.input[a] = std::max<int64_t>(g.output[a] * g.stride[a] - g.pad[a], 1);
    if (last && draw(random, 0, 1)) g.input[a] += draw(random, 0, 2);
  }
}

// Small windows with a stride of 1 along the last axis, few channels and filters: mostly calls for the kernels in
// sliding.cc.
inline void slide(Random &random, lcmulti_geometry &g) {
  g.groups = draw(random, 1, 2);
  g.channels = g.groups * draw(random, 1, 2);
  g.filters = g.groups * draw(random, 1, 3);
  for (int64_t a = 0; a < g.axes; ++a) {
    const bool last = a + 1 == g.axes;
    g.kernel[a] = draw(random, 1, draw(random, 0, 3) == 0 ? 8 : 3);
    g.stride[a] = last ? 1 : draw(random, 1, 2);
    if (last) g.output[a] = draw(random, 1, 70);
    g.shared[a] = 0;
    const int64_t span = (g.output[a] - 1) * g.stride[a] + (g.kernel[a] - 1) * g.dilation[a] + 1;
    g.input[a] = std::max<int64_t>(span - g.pad[a] - draw(random, -2, 3), 1);
  }
}

// Depthwise layers, whose channels are groups with few filters each: with one, mostly calls for the kernels in
// depthwise.cc.
inline void go_deep(Random &random, lcmulti_geometry &g) {
  g.groups = g.channels = draw(random, 2, 40);
  g.filters = g.groups * draw(random, 1, 4);
  if (draw(random, 0, 2)) {
    g.filters = g.groups;
    std::fill_n(g.shared, g.axes, 0);
  }
}

inline lcmulti_geometry random_geometry(Random &random) {
  lcmulti_geometry g{};
  static const bool halves = std::strcmp(lcmulti_isa(), "amx") == 0 || std::strcmp(lcmulti_isa(), "avx512bf16") == 0;
  g.dtype = halves ? int64_t{LCMULTI_BFLOAT16} : draw(random, 0, 3);  // these instruction sets differ in bfloat16 alone
  g.threads = draw(random, 0, 3);
  g.axes = draw(random, 1, 4);
  constexpr int64_t batches[] = {0, 1, 2, 3, 5, 8, 9, 16, 17, 33, 64, 65, 130};
  g.batch = batches[draw(random, 0, g.axes > 2 ? 7 : 12)];
  g.groups = draw(random, 0, 3) == 0 ? draw(random, 2, 3) : 1;
  g.channels = g.groups * draw(random, 1, draw(random, 0, 4) == 0 ? 20 : 4);
  constexpr int64_t filters[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 32, 33, 64, 81};
  g.filters = g.groups * filters[draw(random, 0, 14)];
  for (int64_t a = 0; a < g.axes; ++a) {
    g.kernel[a] = draw(random, 1, g.axes > 2 ? 2 : 4);
    g.stride[a] = draw(random, 1, 4);
    g.dilation[a] = draw(random, 1, 3);
    g.pad[a] = draw(random, 0, 3);
    g.output[a] = draw(random, 1, g.axes == 1 ? 40 : g.axes == 2 ? 7 : 3);
    // As much input as the windows read, without the padding on both sides, and some more that they do not read.
    const int64_t span = (g.output[a] - 1) * g.stride[a] + (g.kernel[a] - 1) * g.dilation[a] + 1;
    g.input[a] = std::max<int64_t>(span - g.pad[a] - draw(random, -2, 3), 1);
    g.shared[a] = draw(random, 0, 4) == 0;
  }
  const int64_t kind = draw(random, 0, 6);
  if (kind == 0) abut(random, g);
  if (kind == 1) slide(random, g);
  if (kind == 2) go_deep(random, g);
  const bool first = draw(random, 0, 1), as_well = draw(random, 0, 3) ? first : !first;
  lay_out(g.x_step, g.input, g.axes, g.channels, first, draw(random, 0, 4) * 3 % 5);
  lay_out(g.dy_step, g.output, g.axes, g.filters, as_well, draw(random, 0, 4) * 3 % 5);
  return g;
}
