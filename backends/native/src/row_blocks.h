// Rows of pixels, cut into blocks whose weights stay in the cache while all samples pass.
#pragma once

#include <cstring>

#include "pool.h"
#include "scratch.h"
#include "vector.h"

namespace lcmulti {

// Weights of a block: with the inputs of some samples they stay in the second-level cache.
constexpr int64_t kBlockBytes = 64 << 10;

// A block is some groups of positions along the last axis. What is written may be written twice, with the
// same sums: the last group of a block overlaps the one before it rather than be a smaller one.
struct RowBlocks {
  int64_t run, column;     // elements of x and of y from one position to the next
  int64_t group;           // positions of a group
  int64_t positions;       // of a row
  int64_t beyond;          // elements of x after a row's last window
  int64_t bytes;           // of the weights of a group
  int64_t most;            // groups of a block; one more in the last of a row
  int64_t groups, blocks;  // of a row
  int64_t tasks;
  int outer;               // axes that count rows

  RowBlocks(const Geometry &g, int64_t each_run, int64_t each_column, int64_t in_group, int64_t group_bytes)
      : run(each_run), column(each_column), group(in_group), positions(g.output[g.last()]), bytes(group_bytes) {
    const int last = g.last();
    beyond = (g.input[last] - positions * g.stride[last]) * (run / g.stride[last]);
    // Rows that lie one after the other are one.
    for (outer = last; outer > 0 && beyond == 0; positions *= g.output[--outer]) {
      if (g.x_step[1 + outer] != positions * run || g.dy_step[1 + outer] != positions * column) break;
    }
    const int64_t rows = product(g.output, outer);
    groups = positions / group;
    most = std::clamp<int64_t>(groups * rows / (4 * g.threads), 1, std::max<int64_t>(kBlockBytes / bytes, 1));
    blocks = (groups + most - 1) / most;
    tasks = rows * blocks;
  }

  int64_t workspace() const { return (most + 1) * bytes; }
  int64_t threads(const Geometry &g) const {
    return static_cast<double>(g.batch) * static_cast<double>(g.weights) < kSmall ? 1 : g.threads;
  }

  struct Block {
    int64_t x, y, position;  // the first of each
    int64_t count;           // positions
    bool last;               // of its row
  };

  Block at(const Geometry &g, int64_t task) const {
    int64_t row = task / blocks;
    const int64_t number = task % blocks, lo = groups * number / blocks * group;
    const bool last = number + 1 == blocks;
    Block result{lo * run, lo * column, row * positions + lo, 0, last};
    result.count = (last ? positions : groups * (number + 1) / blocks * group) - lo;
    for (int a = outer - 1; a >= 0; --a) {
      result.x += row % g.output[a] * g.x_step[2 + a];
      result.y += row % g.output[a] * g.dy_step[2 + a];
      row /= g.output[a];
    }
    return result;
  }

  // body(first position in the block, number) for each group.
  template <class Body>
  void for_groups(int64_t count, Body &&body) const {
    for (int64_t first = 0, i = 0; first < count; first += group, ++i) body(std::min(first, count - group), i);
  }
};

// Whether windows hold one position along an axis, each another.
inline bool is_pixels(const Geometry &g, int axis) {
  return g.kernel[axis] == 1 && g.stride[axis] == 1 && g.pad[axis] == 0 && g.output[axis] == g.input[axis];
}

}  // namespace lcmulti

namespace lcmulti::LCMULTI_ISA {

// A call whose tasks are such blocks. Of a group, its weights or their gradients lie in scratch, a vector of
// elements for each of one position's.
template <class D, class A>
class InBlocks {
 protected:
  static constexpr int VL = kVectorBytes / sizeof(A);
  using V = Vector<A, VL>;

  InBlocks(const Geometry &geometry, const RowBlocks &blocks, int map, const void *a, const void *b, void *result)
      : g(geometry), p(blocks), map_(map), a_(static_cast<const D *>(a)), b_(static_cast<const D *>(b)),
        result_(static_cast<D *>(result)) {}

  // compute(block, for_groups), where for_groups(body) calls body(position, the group's scratch); false if
  // memory ran out.
  template <class Compute>
  bool run_blocks(Compute &&compute) const {
    return parallel_for(p.tasks, p.threads(g), g.lender, [&](int64_t i) {
      const RowBlocks::Block block = p.at(g, i);
      A *const room = reinterpret_cast<A *>(scratch.take(static_cast<size_t>(p.workspace())));
      const int64_t each = p.bytes / static_cast<int64_t>(sizeof(A));
      compute(block, [&](auto &&body) {
        p.for_groups(block.count, [&](int64_t position, int64_t group) { body(position, room + group * each); });
      });
      end_streams();
    });
  }

  template <class Groups>
  void clear(Groups &&for_groups) const {
    for_groups([&](int64_t, A *sums) { std::memset(sums, 0, static_cast<size_t>(p.bytes)); });
  }

  const Geometry &g;
  const RowBlocks p;
  const int map_;
  const D *const a_, *const b_;
  D *const result_;
};

}  // namespace lcmulti::LCMULTI_ISA
