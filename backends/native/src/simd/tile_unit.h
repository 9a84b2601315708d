// The matrix unit for bfloat16 (AMX). One instruction adds 32 products to each of 16 x 16 sums, eight times as
// many as the vector units in the same time.
#pragma once

#include <algorithm>

#include "products.h"
#include "vector.h"

namespace lcmulti::LCMULTI_ISA {

constexpr int64_t kTile = 16;  // rows of a tile, and its columns: sums, or pairs of factors
constexpr int64_t kDeep = 2 * kTile;

inline int64_t whole_tiles(int64_t count, int64_t tile = kTile) { return (count + tile - 1) / tile * tile; }

#if defined(__AMX_BF16__)
constexpr bool kHasTiles = true;

// The unit, for one task of one thread. Tiles 0 and 1 hold sums, 2 holds rows of a, 3 and 4 hold columns of b.
// Tiles 5, 6 and 7 hold sums and rows for the rest of a matrix that has fewer than 16 rows.
class TileUnit {
 public:
  TileUnit() = default;
  TileUnit(const TileUnit &) = delete;
  TileUnit &operator=(const TileUnit &) = delete;
  // Releases the tiles, so that a switch of threads need not save them.
  ~TileUnit() {
    if (pairs_ > 0) _tile_release();
  }

  // c[i][j] = or += sum over k of a[i][k] * b[k][j], where b holds pairs of adjacent k. `pairs` of them (16, or
  // all if there are fewer) are multiplied at once, `deep` times. Columns are whole tiles; strides between rows
  // are in bytes.
  void multiply(const void *a, int64_t a_step, const void *b, int64_t b_step, float *c, int64_t c_step, int64_t rows,
                int64_t columns, int64_t pairs, int64_t deep, bool add) {
    const int64_t rest = rows % kTile;
    configure(rest == 0 ? rest_ : rest, pairs);
    asm volatile("" ::: "memory");  // the compiler does not know what the unit reads and writes
    for (int64_t j = 0; j < columns; j += 2 * kTile) {
      const bool two = columns - j > kTile;
      const auto *right = static_cast<const char *>(b) + j * sizeof(Pair);
      const auto *left = static_cast<const char *>(a);
      auto *sums = reinterpret_cast<char *>(c + j);
      for (int64_t i = rows; i >= kTile; i -= kTile, left += kTile * a_step, sums += kTile * c_step) {
        whole_block(left, a_step, right, b_step, sums, c_step, deep, two, add);
      }
      if (rest > 0) rest_block(left, a_step, right, b_step, sums, c_step, deep, two, add);
    }
    asm volatile("" ::: "memory");
  }

 private:
  int64_t rest_ = kTile, pairs_ = 0;

  // This takes as long as ten products, so it is done only if something changes.
  void configure(int64_t rest, int64_t pairs) {
    if (rest == rest_ && pairs == pairs_) return;
    rest_ = rest, pairs_ = pairs;
    struct alignas(64) {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } tiles;
    for (int i = 0; i < 8; ++i) {
      const bool factor_a = i == 2 || i == 7, factor_b = i == 3 || i == 4;
      tiles.bytes[i] = static_cast<uint16_t>(factor_a ? pairs * sizeof(Pair) : kTile * sizeof(float));
      tiles.rows[i] = static_cast<uint8_t>(factor_b ? pairs : i < 5 ? kTile : rest);
    }
    asm volatile("" ::"r"(&tiles) : "memory");
    _tile_loadconfig(&tiles);
  }

// Two functions that differ only in the numbers of tiles, which are part of instructions.
#define LCMULTI_BLOCK(name, SUMS, MORE, ROWS)                                                                  \
  static void name(const char *a, int64_t a_step, const char *b, int64_t b_step, char *c, int64_t c_step,      \
                   int64_t deep, bool two, bool add) {                                                         \
    if (add) {                                                                                                 \
      _tile_loadd(SUMS, c, c_step);                                                                            \
      if (two) _tile_loadd(MORE, c + 64, c_step);                                                              \
    } else {                                                                                                   \
      _tile_zero(SUMS);                                                                                        \
      _tile_zero(MORE);                                                                                        \
    }                                                                                                          \
    for (; deep > 0; --deep, a += 64, b += kTile * b_step) {                                                   \
      _tile_loadd(ROWS, a, a_step);                                                                            \
      _tile_loadd(3, b, b_step);                                                                               \
      _tile_dpbf16ps(SUMS, ROWS, 3);                                                                           \
      if (two) {                                                                                               \
        _tile_loadd(4, b + 64, b_step);                                                                        \
        _tile_dpbf16ps(MORE, ROWS, 4);                                                                         \
      }                                                                                                        \
    }                                                                                                          \
    _tile_stored(SUMS, c, c_step);                                                                             \
    if (two) _tile_stored(MORE, c + 64, c_step);                                                               \
  }
  LCMULTI_BLOCK(whole_block, 0, 1, 2)
  LCMULTI_BLOCK(rest_block, 5, 6, 7)
#undef LCMULTI_BLOCK
};
#elif LCMULTI_EMULATED >= 3
constexpr bool kHasTiles = true;
struct TileUnit {
  void multiply(const void *a, int64_t a_step, const void *b, int64_t b_step, float *c, int64_t c_step, int64_t rows,
                int64_t columns, int64_t pairs, int64_t deep, bool add) {
    for (int64_t i = 0; i < rows; ++i, c += c_step / 4) {
      for (int64_t j = 0; j < columns; j += kTile) {
        Vector<float, kTile> sum = {};
        if (add) sum = load<float, kTile>(c + j);
        for (int64_t k = 0; k < deep * pairs; ++k) {
          const auto *left = reinterpret_cast<const Pair *>(static_cast<const char *>(a) + i * a_step) + k;
          const auto *right = reinterpret_cast<const Pair *>(static_cast<const char *>(b) + k * b_step) + j;
          sum = multiply_add(sum, spread<Vector<Pair, kTile>>(load<Pair, 1>(left)[0]), load<Pair, kTile>(right));
        }
        store(c + j, sum);
      }
    }
  }
};
#else
constexpr bool kHasTiles = false;
struct TileUnit {
  template <class... Arguments>
  void multiply(Arguments...) {}
};
#endif

}  // namespace lcmulti::LCMULTI_ISA
