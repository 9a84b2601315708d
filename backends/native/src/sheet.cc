// Reads what lcmulti_cosines is asked for.
#include <algorithm>

#include "neighbours.h"
#include "plan.h"

namespace lcmulti {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 46;

// Whether a range and the one `move` further are in `size` elements.
bool fits(int64_t from, int64_t to, int64_t move, int64_t size) {
  return from >= 0 && from <= to && to <= size && move >= -from && move <= size - to;
}

}  // namespace

bool read(const int64_t *call, int64_t length, Sheet &sheet) {
  const int64_t *at = call, *const end = call + length;
  if (end - at < 8) return false;
  sheet.map = at[0], sheet.dtype = at[1];
  sheet.rows = at[3], sheet.columns = at[4], sheet.weights = at[5], sheet.filters = at[6];
  const int64_t links = at[7];
  if (sheet.map != LCMULTI_COSINE_SUMS && sheet.map != LCMULTI_COSINE_SLOPES) return false;
  if ((sheet.dtype != LCMULTI_FLOAT32 && sheet.dtype != LCMULTI_FLOAT64) || at[2] < 0 || links < 0) return false;
  sheet.threads = std::min(at[2] > 0 ? at[2] : lcmulti_threads(), kMostThreads);
  int64_t elements = 1;
  for (const int64_t size : {sheet.rows, sheet.columns, sheet.weights, sheet.filters}) {
    if (size < 1 || size > kMostElements / elements) return false;
    elements *= size;
  }
  at += 8;
  for (int64_t l = 0; l < links; ++l) {
    if (end - at < 9) return false;
    const Link link{{at[0], at[1]}, {at[2], at[3]}, at[4], at[5], at[6], at[7], at[8], at + 9};
    at += 9;
    if (link.length < 0 || link.length > end - at || link.length > sheet.filters - link.filter) return false;
    if (!fits(link.rows[0], link.rows[1], link.down, sheet.rows) ||
        !fits(link.columns[0], link.columns[1], link.right, sheet.columns) ||
        !fits(link.filter, link.filter + link.length, link.shift, sheet.filters)) {
      return false;
    }
    at += link.length;
    sheet.links.push_back(link);
  }
  return at == end;
}

}  // namespace lcmulti
