// Products of bytes by AMX: tiles of 16 rows × 64 bytes, multiplied by a unit of its own. Part of
// row_kernel.cc, of its compilation for AMX alone.
//
// The sums are the integers that VNNI gives, from the same layout of weights. The unit is so fast
// that what follows a product, GELU above all, takes longer: so the outputs of one panel are
// finished, in vectors, while the unit multiplies the next one.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "row_kernel.h"
#include "tiles.h"

namespace crisp {
namespace CRISP_ISA {
namespace {

constexpr int64_t kTileRows = 16;
static_assert(kBlockRows == 2 * kTileRows, "sums of a block are four tiles");

// Sums of one panel: [kBlockRows][32] int32.
struct alignas(64) PanelSums {
  int32_t sum[kBlockRows][2 * kTileRows];
};

// Tiles 0 to 3 are sums, 4 and 5 inputs, 6 and 7 weights. Where all rows fit into one tile, 2 and 3
// and the input 5 are a second chain of sums, of every other step, since a sum has to wait for the
// one before it.
class Tiles {
 public:
  explicit Tiles(int64_t rows)
      : rows_(rows),
        second_(rows <= kTileRows ? rows : rows - kTileRows),
        first_(rows <= kTileRows ? rows : kTileRows),
        configuration_({first_, first_, second_, second_, first_, second_, kTileRows, kTileRows}) {}

  bool has_two_chains() const { return rows_ <= kTileRows; }

  // sums = x [rows][inputs] · panel [inputs / 4][32][4]; calls meanwhile(step, steps) for each step
  // of 64 inputs. `inputs` must be a multiple of 64.
  template <typename Meanwhile>
  void multiply(const uint8_t* x, int64_t inputs, const int8_t* panel, int64_t ahead,
                PanelSums& sums, const Meanwhile& meanwhile) const {
    tiles_meet_memory();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const int64_t steps = inputs / kTileBytes;
    if (has_two_chains()) {
      for (int64_t step = 0; step < steps; step += 2) {
        load_weights(panel, step, ahead);
        _tile_loadd(4, x + step * kTileBytes, inputs);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        meanwhile(step, steps);
        if (step + 1 == steps) break;
        load_weights(panel, step + 1, ahead);
        _tile_loadd(5, x + (step + 1) * kTileBytes, inputs);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
        meanwhile(step + 1, steps);
      }
    } else {
      for (int64_t step = 0; step < steps; ++step) {
        load_weights(panel, step, ahead);
        _tile_loadd(4, x + step * kTileBytes, inputs);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_loadd(5, x + kTileRows * inputs + step * kTileBytes, inputs);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
        meanwhile(step, steps);
      }
    }
    _tile_stored(0, sums.sum[0], sizeof(sums.sum[0]));
    _tile_stored(1, sums.sum[0] + kTileRows, sizeof(sums.sum[0]));
    _tile_stored(2, sums.sum[kTileRows], sizeof(sums.sum[0]));
    _tile_stored(3, sums.sum[kTileRows] + kTileRows, sizeof(sums.sum[0]));
    tiles_meet_memory();
  }

 private:
  static void load_weights(const int8_t* panel, int64_t step, int64_t ahead) {
    constexpr int64_t kStepBytes = kTileBytes * 2 * kTileRows;
    const int8_t* const from = panel + step * kStepBytes;
#pragma GCC unroll 32
    for (int64_t line = 0; line < kStepBytes; line += kTileBytes) {
      __builtin_prefetch(from + ahead + line, 0, 2);
    }
    _tile_loadd(6, from, 2 * kTileBytes);
    _tile_loadd(7, from + kTileBytes, 2 * kTileBytes);
  }

  int64_t rows_;
  int64_t second_;  // rows of the second tile of sums, and of the first
  int64_t first_;
  TileConfiguration configuration_;
};

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
