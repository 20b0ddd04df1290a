// crisp::PruneTokens, free of any runtime's types: which tokens live on. The rule is that of
// training/pruning.py; source: PoWER-BERT, arXiv 2001.08950.
//
//   received             [T]      attention that each live token received: its importance
//   cu_seqlens           [B + 1]  offsets of the live tokens
//   original_cu_seqlens  [B + 1]  offsets before anything was pruned: they say the lengths L
//   kept                 [T']     which live tokens stay, ascending
//   kept_cu_seqlens      [B + 1]  their offsets
//
// Of a sequence of L tokens
//     L                                    where L <= floor
//     floor + ceil(keep · (L - floor))     elsewhere
// stay, or all that still live, if fewer: the first, [CLS], and those of highest importance. Of
// equal ones the earlier stays; NaN counts as the highest.
#pragma once

#include <stdint.h>

#include <vector>

namespace crisp {

struct PruneRule {
  int64_t keep_num = 1;
  int64_t keep_den = 1;
  int64_t floor = 1;
};

// Throws std::invalid_argument, naming the attribute, where a number is out of range.
void check_prune_rule(const PruneRule& rule);

// Throws std::invalid_argument where a sequence has more live tokens than it had at first. Both
// offsets have been checked, and are of the same `batch`.
void check_original_lengths(const int32_t* cu_seqlens, const int32_t* original_cu_seqlens,
                            int64_t batch);

// How many tokens of a sequence stay that had `length` tokens at first.
int64_t kept_tokens(const PruneRule& rule, int64_t length);

struct KeptTokens {
  std::vector<int64_t> kept;
  std::vector<int32_t> cu_seqlens;
};

// Both offsets have been checked, and against each other.
KeptTokens prune_tokens(const PruneRule& rule, const float* received, const int32_t* cu_seqlens,
                        const int32_t* original_cu_seqlens, int64_t batch);

}  // namespace crisp
