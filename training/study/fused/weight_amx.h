// The products of a linear layer's weight by AMX, a unit that multiplies tiles of bfloat16 and adds
// in float32.
//
// Each number is split into two bfloat16, the nearest one and the rest, which together have 16 of
// its 24 bits. A product is then three: nearest · nearest, nearest · rest and rest · nearest
// (Henry, Tang, Heinecke: Leveraging the bfloat16 Artificial Intelligence Datatype For
// Higher-Precision Computations, arXiv 1904.06376).

#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "transpose.h"
#include "vectors.h"

namespace fused {

constexpr int kTile = 16;          // rows of a tile, and its numbers a row, or pairs of bfloat16
constexpr int kDepth = 2 * kTile;  // of a product of two tiles
constexpr int kPairs = kTile * kTile;  // of a tile

// A factor of a product, in tiles of pairs that are neighbours along its depth: [its rows or
// columns / kTile, depth / kDepth, nearest and rest, kTile, kTile]. Of a left factor, a tile's rows
// are rows; of a right one, they are pairs. So the one becomes the other, of the transposed matrix,
// by transposing each tile.
class Factor {
 public:
  Factor() = default;
  Factor(int outer, int depth) : memory_(size_t(up(outer, kTile)) * up(depth, kDepth)) {}

  float* pairs() { return memory_.data(); }
  const float* pairs() const { return memory_.data(); }

  // x [rows, columns], as a left factor.
  void split_left(int rows, int columns, const float* x) {
    float* to = pairs();
    for (int i = 0; i < rows; i += kTile)
      for (int j = 0; j < columns; j += kDepth, to += 2 * kPairs)
        for (int r = 0; r < kTile; ++r) {
          const float* from = x + (i + r) * columns + j;
          const bool there = i + r < rows;
          const Halves halves(there ? _mm512_loadu_ps(from) : __m512{},
                              there ? _mm512_loadu_ps(from + kTile) : __m512{});
          _mm512_store_si512(to + r * kTile, halves.nearest);
          _mm512_store_si512(to + r * kTile + kPairs, halves.rest);
        }
  }

  // x [rows, columns], as a right factor.
  void split_right(int rows, int columns, const float* x) {
    const __m512i places = alternate();
    float* to = pairs();
    for (int j = 0; j < columns; j += kTile)
      for (int i = 0; i < rows; i += kDepth, to += 2 * kPairs)
        for (int r = 0; r < kTile; ++r) {
          const int row = i + 2 * r;
          const float* from = x + row * columns + j;
          const Halves halves(row < rows ? _mm512_loadu_ps(from) : __m512{},
                              row + 1 < rows ? _mm512_loadu_ps(from + columns) : __m512{});
          _mm512_store_si512(to + r * kTile, _mm512_permutexvar_epi16(places, halves.nearest));
          _mm512_store_si512(to + r * kTile + kPairs,
                             _mm512_permutexvar_epi16(places, halves.rest));
        }
  }

  // `other`, which has `outer` rows or columns and that depth, transposed to the other side.
  void turn(int outer, int depth, const Factor& other) {
    const int64_t all = int64_t{up(outer, kTile)} * up(depth, kDepth);
    for (int64_t at = 0; at < all; at += kPairs)
      transpose(kTile, kTile, other.pairs() + at, kTile, pairs() + at, kTile);
  }

  static int64_t up(int count, int unit) { return (count + unit - 1) / unit * unit; }

 private:
  struct Halves {  // of 16 and 16 numbers
    __m512i nearest, rest;

    Halves(__m512 a, __m512 b) {
      nearest = (__m512i)_mm512_cvtne2ps_pbh(b, a);
      const __m512 rest_a = a - widened(_mm512_castsi512_si256(nearest));
      const __m512 rest_b = b - widened(_mm512_extracti64x4_epi64(nearest, 1));
      rest = (__m512i)_mm512_cvtne2ps_pbh(rest_b, rest_a);
    }

    static __m512 widened(__m256i halves) {
      return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
    }
  };

  // Places of bfloat16: one of the first 16, one of the second.
  static __m512i alternate() {
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(kTile));
    return _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
  }

  Memory memory_;
};

// The eight tiles, all of 16 rows, as long as this lives.
class Tiles {
 public:
  Tiles() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } shape;
    for (int tile = 0; tile < 8; ++tile) shape.row_bytes[tile] = 64, shape.rows[tile] = kTile;
    meet_memory();
    _tile_loadconfig(&shape);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  // The compiler does not know that tiles read and write memory.
  static void meet_memory() { __asm__ volatile("" ::: "memory"); }
};

// c [rows, columns] = start + left · right; columns a multiple of two tiles. Start has a row every
// `start_row` numbers, 0 for one row for all; null: nothing. Rows of c up to whole tiles are
// written.
inline void multiply(int rows, int columns, int depth, const Factor& left, const Factor& right,
                     float* c, const float* start, int64_t start_row) {
  const int64_t strip = kTile * Factor::up(depth, kDepth);  // the tiles of kTile rows or columns
  constexpr int kRowBytes = kTile * sizeof(float);
  Tiles::meet_memory();
  for (int i = 0; i < rows; i += 2 * kTile) {
    const bool two = i + kTile < rows;  // else the second row of tiles is the first one again
    const float* const above = left.pairs() + i / kTile * strip;
    const float* const below = above + (two ? strip : 0);
    for (int j = 0; j < columns; j += 2 * kTile) {
      // Tiles 0 to 3 are sums, 4 and 5 of the left factor, 6 and 7 of the right one.
      if (start) {
        const float* const first = start + i * start_row + j;
        const float* const second = first + (two ? kTile * start_row : 0);
        _tile_loadd(0, first, start_row * sizeof(float));
        _tile_loadd(1, first + kTile, start_row * sizeof(float));
        _tile_loadd(2, second, start_row * sizeof(float));
        _tile_loadd(3, second + kTile, start_row * sizeof(float));
      } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
      }
      const float* const near = right.pairs() + j / kTile * strip;
      const float* const far = near + strip;
#define FUSED_MULTIPLY     \
  _tile_dpbf16ps(0, 4, 6); \
  _tile_dpbf16ps(1, 4, 7); \
  _tile_dpbf16ps(2, 5, 6); \
  _tile_dpbf16ps(3, 5, 7)
      for (int64_t k = 0; k < strip; k += 2 * kPairs) {
        _tile_loadd(4, above + k, kRowBytes);
        _tile_loadd(5, below + k, kRowBytes);
        _tile_loadd(6, near + k + kPairs, kRowBytes);
        _tile_loadd(7, far + k + kPairs, kRowBytes);
        FUSED_MULTIPLY;
        _tile_loadd(6, near + k, kRowBytes);
        _tile_loadd(7, far + k, kRowBytes);
        FUSED_MULTIPLY;
        _tile_loadd(4, above + k + kPairs, kRowBytes);
        _tile_loadd(5, below + k + kPairs, kRowBytes);
        FUSED_MULTIPLY;
      }
#undef FUSED_MULTIPLY
      float* const to = c + i * columns + j;
      _tile_stored(0, to, columns * sizeof(float));
      _tile_stored(1, to + kTile, columns * sizeof(float));
      if (two) {
        _tile_stored(2, to + kTile * columns, columns * sizeof(float));
        _tile_stored(3, to + kTile * columns + kTile, columns * sizeof(float));
      }
    }
  }
  Tiles::meet_memory();
}

struct Scratch {  // what the products of `rows` rows need beside their factors
  Factor left, right, turned;
  Scratch(int rows, int narrow, int wide)
      : left(rows, wide), right(wide, rows), turned(narrow, rows) {}
};

class Weight {  // [inputs, outputs]
 public:
  // To be called whenever the values have changed.
  void prepare(int inputs, int outputs, const float* values, bool learns) {
    inputs_ = inputs, outputs_ = outputs;
    right_ = Factor(outputs, inputs);
    right_.split_right(inputs, outputs, values);
    if (!learns) return;
    Factor left(inputs, outputs);
    left.split_left(inputs, outputs, values);
    turned_ = Factor(inputs, outputs);
    turned_.turn(inputs, outputs, left);
  }

  // y [rows, outputs] = x · weight + bias
  void forward(int rows, const float* x, const float* bias, float* y, Scratch& scratch) const {
    scratch.left.split_left(rows, inputs_, x);
    multiply(rows, outputs_, inputs_, scratch.left, right_, y, bias, 0);
  }

  // dx [rows, inputs] = dy · weightᵀ
  void backward(int rows, const float* dy, float* dx, Scratch& scratch) const {
    scratch.left.split_left(rows, outputs_, dy);
    multiply(rows, inputs_, outputs_, scratch.left, turned_, dx, nullptr, 0);
  }

  // gradient [inputs, outputs] += xᵀ · dy
  void add_gradient(int rows, const float* x, const float* dy, float* gradient,
                    Scratch& scratch) const {
    scratch.right.split_right(rows, inputs_, x);
    scratch.turned.turn(inputs_, rows, scratch.right);
    scratch.right.split_right(rows, outputs_, dy);
    multiply(inputs_, outputs_, rows, scratch.turned, scratch.right, gradient, gradient, outputs_);
  }

 private:
  int inputs_ = 0, outputs_ = 0;
  Factor right_, turned_;
};

}  // namespace fused
