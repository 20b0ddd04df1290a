// Attention of one tile of query rows whose products are of bfloat16, multiplied by AMX. Part of
// kernel.cc, of its compilation for AMX alone.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernel_bf16.h"
#include "tiles.h"

namespace crisp {
namespace CRISP_ISA {
namespace {

constexpr int kTileHeight = 16;  // rows of a tile
static_assert(kTileHeight <= kMaxTileRows, "scratch memory is too small");

// Scores [panels][kTileHeight][kPanel] of the rows with every panel that is looked at. Panels take
// turns with two pairs of tiles: a product takes longer to come out than to go in.
void score_keys_bf16(const Tile& tile, const uint16_t* queries) {
  const uint16_t* const keys = reinterpret_cast<const uint16_t*>(tile.packed.keys);
  const int64_t depths = tile.head_size / kTileDepth;
  constexpr int64_t kStride = kPanel * sizeof(float);
  tiles_meet_memory();
  _tile_loadd(4, queries, kTileBytes);
  if (depths > 1) _tile_loadd(5, queries + kTileSize, kTileBytes);
#define CRISP_SCORE_PANEL(first, second)                                                     \
  do {                                                                                       \
    const uint16_t* const panel = keys + tile.panels.number[slot] * kPanel * tile.head_size; \
    float* const scores = tile.scores + slot * kTileHeight * kPanel;                         \
    _tile_zero(first);                                                                       \
    _tile_zero(second);                                                                      \
    _tile_loadd(6, panel, kTileBytes);                                                       \
    _tile_dpbf16ps(first, 4, 6);                                                             \
    _tile_loadd(7, panel + depths * kTileSize, kTileBytes);                                  \
    _tile_dpbf16ps(second, 4, 7);                                                            \
    if (depths > 1) {                                                                        \
      _tile_loadd(6, panel + kTileSize, kTileBytes);                                         \
      _tile_dpbf16ps(first, 5, 6);                                                           \
      _tile_loadd(7, panel + 3 * kTileSize, kTileBytes);                                     \
      _tile_dpbf16ps(second, 5, 7);                                                          \
    }                                                                                        \
    _tile_stored(first, scores, kStride);                                                    \
    _tile_stored(second, scores + kLanes, kStride);                                          \
  } while (false)
  for (int64_t slot = 0; slot < tile.panels.count; ++slot) {
    CRISP_SCORE_PANEL(0, 1);
    if (++slot == tile.panels.count) break;
    CRISP_SCORE_PANEL(2, 3);
  }
#undef CRISP_SCORE_PANEL
  tiles_meet_memory();
}

// Adds numerators x values to the sums. They are tiles 0 and 1, of 16 columns each, and 2 and 3:
// the next columns, or of heads of 32 the sums of every other panel.
void weigh_values_bf16(const Tile& tile, const uint16_t* numerators, int64_t slot, int64_t count) {
  const uint16_t* const values = reinterpret_cast<const uint16_t*>(tile.packed.values);
  const int64_t panel_size = kPanel * tile.head_size;
  const auto panel_of = [&](int64_t i) {
    return values + tile.panels.number[slot + i] * panel_size;
  };
  tiles_meet_memory();
  for (int64_t i = 0; i < count; ++i) {
    _tile_loadd(4, numerators + i * kTileSize, kTileBytes);
    _tile_loadd(6, panel_of(i), kTileBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, panel_of(i) + kTileSize, kTileBytes);
    _tile_dpbf16ps(1, 4, 7);
    const uint16_t* other = panel_of(i) + 2 * kTileSize;
    if (tile.head_size == kTileDepth) {
      if (++i == count) break;
      other = panel_of(i);
      _tile_loadd(4, numerators + i * kTileSize, kTileBytes);
    }
    _tile_loadd(6, other, kTileBytes);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(7, other + kTileSize, kTileBytes);
    _tile_dpbf16ps(3, 4, 7);
  }
  tiles_meet_memory();
}

void store_sums(const Tile& tile) {
  alignas(64) float parts[2 * kTileHeight * kPanel];
  constexpr int64_t kStride = kPanel * sizeof(float);
  constexpr int64_t kPart = kTileHeight * kPanel;
  _tile_stored(0, parts, kStride);
  _tile_stored(1, parts + kLanes, kStride);
  _tile_stored(2, parts + kPart, kStride);
  _tile_stored(3, parts + kPart + kLanes, kStride);
  tiles_meet_memory();
  for (int64_t row = 0; row < kTileHeight; ++row) {
    float* const sums = tile.sums + row * tile.packed.value_stride;
    for (int64_t lane = 0; lane < kPanel; lane += kLanes) {
      const Floats first = load(parts + row * kPanel + lane);
      const Floats second = load(parts + kPart + row * kPanel + lane);
      if (tile.head_size == kTileDepth) {
        store(sums + lane, first + second);
      } else {
        store(sums + lane, first);
        store(sums + kPanel + lane, second);
      }
    }
  }
}

// attend_tile() for up to 16 rows, where all values are finite.
void attend_tile_bf16(const Tile& tile, int64_t rows) {
  // All tiles are whole: rows that are not there are zeros, or of no interest.
  const TileConfiguration tiles({16, 16, 16, 16, 16, 16, 16, 16});
  const Exp exp(1.0f / __builtin_sqrtf(static_cast<float>(tile.head_size)));
  alignas(64) uint16_t queries[kMostDepths * kTileSize] = {};
  alignas(64) uint16_t numerators_bf16[kPanelsAtOnce * kTileSize];
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t d = 0; d < tile.head_size; d += kTileDepth) {
      const float* const query = tile.queries + row * tile.query_stride + d;
      store_bf16(queries + d * kTileHeight + row * kTileDepth, load(query), load(query + kLanes));
    }
  }
  score_keys_bf16(tile, queries);

  float highest[kTileHeight];
  float threshold[kTileHeight];
  Floats sum_lanes[kTileHeight];
  const bool has_threshold = tile.top_k && tile.rows.kept < tile.rows.length;
  for (int64_t slot = 0; slot < tile.panels.count; ++slot) {
    if (!tile.panels.partial[slot]) continue;
    hide_unseen<kTileHeight>(tile.sight, tile.panels.number[slot] * kPanel,
                             tile.scores + slot * kTileHeight * kPanel);
  }
  for (int64_t row = 0; row < rows; ++row) {
    Floats first = all(-kInfinity);
    Floats second = first;
    for (int64_t slot = 0; slot < tile.panels.count; ++slot) {
      const float* const scores = tile.scores + (slot * kTileHeight + row) * kPanel;
      first = larger(load(scores), first);
      second = larger(load(scores + kLanes), second);
    }
    highest[row] = maximum_of(larger(first, second));
    threshold[row] =
        has_threshold ? threshold_of<kTileHeight>(tile, row, highest[row]) : -kInfinity;
    sum_lanes[row] = Floats{};
  }

  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t slot = 0; slot < tile.panels.count; slot += kPanelsAtOnce) {
    const int64_t left = tile.panels.count - slot;
    const int64_t count = left < kPanelsAtOnce ? left : kPanelsAtOnce;
    float* const scores = tile.scores + slot * kTileHeight * kPanel;
    for (int64_t row = 0; row < rows; ++row) {
      float* const from = scores + row * kPanel;
      sum_lanes[row] = has_threshold
                           ? numerators<kTileHeight, true>(from, count, highest[row],
                                                           threshold[row], exp, sum_lanes[row])
                           : numerators<kTileHeight, false>(from, count, highest[row], 0.0f, exp,
                                                            sum_lanes[row]);
      for (int64_t i = 0; i < count; ++i) {
        const float* const own = from + i * kTileHeight * kPanel;
        store_bf16(numerators_bf16 + i * kTileSize + row * kTileDepth, load(own),
                   load(own + kLanes));
      }
    }
    weigh_values_bf16(tile, numerators_bf16, slot, count);
  }
  store_sums(tile);
  finish_tile<kTileHeight>(tile, sum_lanes, rows);
}

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
