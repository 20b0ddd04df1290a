// Which keys a query sees, as predicates of positions in the sequence: pattern.h on the device.
//
// Tiles without a visible pair are skipped. Whether a tile has one follows from the arguments and
// from the blocks chosen before the kernel began, so that all threads of a block agree on it.
#pragma once

#include "block_program.h"
#include "pattern.h"

namespace crisp {
namespace cuda {

struct Visible {
  PatternKind kind;
  int32_t reach;    // band: half its width
  int32_t size;     // block, blocktopk
  int32_t globals;  // band, block
  // blocktopk: a bit for each block of keys, [heads, blocks of all sequences, words]; null where
  // every block is chosen.
  const uint32_t* chosen;
  int32_t words;
  int32_t blocks;  // of all sequences
};

// Of one head of one sequence.
class VisibleHere {
 public:
  CRISP_HD VisibleHere(const Visible& rules, int head, int first_block, int length)
      : rules_(rules),
        chosen_(rules.chosen == nullptr
                    ? nullptr
                    : rules.chosen +
                          (static_cast<int64_t>(head) * rules.blocks + first_block) * rules.words),
        length_(length) {}

  CRISP_HD bool pair(int query, int key) const {
    if (query >= length_ || key >= length_) return false;
    switch (rules_.kind) {
      case PatternKind::kBand:
        return query < rules_.globals || key < rules_.globals ||
               (query - key <= rules_.reach && key - query <= rules_.reach);
      case PatternKind::kBlock:
        return query < rules_.globals || key < rules_.globals ||
               query / rules_.size == key / rules_.size;
      case PatternKind::kBlockTopK:
        return chosen_ == nullptr || query == 0 ||
               is_chosen(query / rules_.size, key / rules_.size);
      default:
        return true;
    }
  }

  // Whether any query of [query, query_end) sees any key of [key, key_end), none of them empty.
  CRISP_HD bool any(int query, int query_end, int key, int key_end) const {
    switch (rules_.kind) {
      case PatternKind::kBand:
        return query < rules_.globals || key < rules_.globals ||
               (query - (key_end - 1) <= rules_.reach && key - (query_end - 1) <= rules_.reach);
      case PatternKind::kBlock:
        return query < rules_.globals || key < rules_.globals ||
               (query / rules_.size <= (key_end - 1) / rules_.size &&
                key / rules_.size <= (query_end - 1) / rules_.size);
      case PatternKind::kBlockTopK:
        return chosen_ == nullptr || query == 0 || any_chosen(query, query_end, key, key_end);
      default:
        return true;
    }
  }

 private:
  CRISP_HD bool is_chosen(int query_block, int key_block) const {
    const uint32_t word =
        chosen_[static_cast<int64_t>(query_block) * rules_.words + key_block / 32];
    return word >> (key_block % 32) & 1u;
  }

  CRISP_HD bool any_chosen(int query, int query_end, int key, int key_end) const {
    for (int q = query / rules_.size; q <= (query_end - 1) / rules_.size; ++q) {
      for (int k = key / rules_.size; k <= (key_end - 1) / rules_.size; ++k) {
        if (is_chosen(q, k)) return true;
      }
    }
    return false;
  }

  const Visible& rules_;
  const uint32_t* chosen_;
  int length_;
};

}  // namespace cuda
}  // namespace crisp
