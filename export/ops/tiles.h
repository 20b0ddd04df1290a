// The tiles of AMX, configured as long as an object lives. Part of kernel.cc and row_kernel.cc, of
// their compilations for AMX alone.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace crisp {
namespace CRISP_ISA {
namespace {

constexpr int64_t kTileBytes = 64;  // of a row

// The compiler does not know that tiles read and write memory: all of it, before and after.
void tiles_meet_memory() { __asm__ volatile("" ::: "memory"); }

class TileConfiguration {
 public:
  // Eight tiles with so many rows each, 16 at most.
  explicit TileConfiguration(const int64_t (&rows)[8]) {
    struct alignas(64) {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int tile = 0; tile < 8; ++tile) {
      config.row_bytes[tile] = kTileBytes;
      config.rows[tile] = static_cast<uint8_t>(rows[tile]);
    }
    tiles_meet_memory();
    _tile_loadconfig(&config);
  }
  ~TileConfiguration() { _tile_release(); }
  TileConfiguration(const TileConfiguration&) = delete;
  TileConfiguration& operator=(const TileConfiguration&) = delete;
};

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
