// Which keys the rows of a tile look at. Part of kernel.cc: compiled once for each instruction
// set, private to each.
#pragma once

#include <stdint.h>

#include "kernel.h"
#include "kernel_vectors.h"

namespace crisp {
namespace CRISP_ISA {
namespace {

// The panels of keys of which some row of a tile sees some key.
struct Panels {
  int32_t* number;   // panel p holds keys [p kPanel, (p + 1) kPanel); ascending
  int32_t* partial;  // whether some row does not see all of them
  int64_t count;
};

// What each row of a tile sees: keys in sight by their position, of those in kept blocks.
struct Sight {
  VisibleKeys by_position[kMaxTileRows];
  bool same_for_all;           // all rows see the same
  const int32_t* kept_blocks;  // whether each block is kept; null where all are
  int64_t block_size;
};

bool sees(const Sight& sight, int64_t row, int64_t key) {
  const VisibleKeys& visible = sight.by_position[row];
  return (key < visible.globals_end || (key >= visible.begin && key < visible.end)) &&
         (sight.kept_blocks == nullptr || sight.kept_blocks[key / sight.block_size] != 0);
}

// Which of kLanes keys a row sees, as a mask.
Ints seen_lanes(const Sight& sight, int64_t row, int64_t first_key) {
  Ints seen = {};
  if (sight.kept_blocks == nullptr) {
    const VisibleKeys& visible = sight.by_position[row];
    const Ints key = lane_numbers() + static_cast<int32_t>(first_key);
    seen =
        (key < static_cast<int32_t>(visible.globals_end)) |
        ((key >= static_cast<int32_t>(visible.begin)) & (key < static_cast<int32_t>(visible.end)));
  } else {
    for (int64_t lane = 0; lane < kLanes; ++lane) seen[lane] = -sees(sight, row, first_key + lane);
  }
  return seen;
}

void add_panel(Panels& panels, int64_t number, bool partial) {
  panels.number[panels.count] = static_cast<int32_t>(number);
  panels.partial[panels.count] = partial;
  ++panels.count;
}

void list_all(int64_t length, Panels& panels) {
  panels.count = 0;
  for (int64_t key = 0; key < length; key += kPanel) {
    add_panel(panels, key / kPanel, key + kPanel > length);
  }
}

// By position: leading keys, and one range of keys for all rows together.
void list_visible(const Sight& sight, int64_t rows, Panels& panels) {
  VisibleKeys any = sight.by_position[0];   // what some row sees
  VisibleKeys each = sight.by_position[0];  // what all rows see
  for (int64_t row = 1; row < rows; ++row) {
    const VisibleKeys& one = sight.by_position[row];
    if (one.globals_end > any.globals_end) any.globals_end = one.globals_end;
    if (one.globals_end < each.globals_end) each.globals_end = one.globals_end;
    if (one.begin < any.begin) any.begin = one.begin;
    if (one.begin > each.begin) each.begin = one.begin;
    if (one.end > any.end) any.end = one.end;
    if (one.end < each.end) each.end = one.end;
  }
  const auto add = [&](int64_t begin, int64_t end) {
    for (int64_t key = begin; key < end; key += kPanel) {
      const bool whole =
          key + kPanel <= each.globals_end || (key >= each.begin && key + kPanel <= each.end);
      add_panel(panels, key / kPanel, !whole);
    }
  };
  panels.count = 0;
  const int64_t globals_end = round_up(any.globals_end, kPanel);
  const int64_t begin = any.begin / kPanel * kPanel;
  add(0, globals_end);
  add(begin > globals_end ? begin : globals_end, round_up(any.end, kPanel));
}

// The kept blocks of a sequence.
void list_kept(const int32_t* kept_blocks, int64_t block_size, int64_t length, Panels& panels) {
  panels.count = 0;
  int64_t block = 0;  // of the panel's first key
  for (int64_t key = 0; key < length; key += kPanel) {
    while (key - block * block_size >= block_size) ++block;
    const int64_t end = key + kPanel < length ? key + kPanel : length;
    bool some = false;
    bool whole = end == key + kPanel;
    for (int64_t other = block; other * block_size < end; ++other) {
      some |= kept_blocks[other] != 0;
      whole &= kept_blocks[other] != 0;
    }
    if (some) add_panel(panels, key / kPanel, !whole);
  }
}

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
