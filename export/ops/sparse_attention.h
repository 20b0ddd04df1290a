// crisp::SparseAttention on packed sequences, free of any runtime's types.
//
//   qkv        [T, 3H]  rows of q (H) | k (H) | v (H), each `num_heads` heads of `head_size`
//   cu_seqlens [B + 1]  offsets of the B sequences: first 0, last T, non-decreasing
//   context    [T, H]   softmax over the kept keys of q.k / sqrt(head_size), times v; where only
//                       the first token of each sequence queries: [B, H], zeros for an empty one
//   received   [T]      optional: probability that a token received, summed over the queries of
//                       its sequence and averaged over heads, so that it sums to the number of
//                       queries per sequence
//
// Pattern blocktopk cuts the L tokens of a sequence into N = ceil(L / size) blocks of consecutive
// ones. For each head, a block of queries scores every block of keys by the dot product of the mean
// query and the mean key, and keeps the k highest with all that tie with the k-th, itself, and the
// first block. Its queries see the keys of the blocks kept; the sequence's first query sees all.
//
// Non-finite input is defined, and never reaches another sequence:
// - A query row of which any visible score is NaN, or whose highest is +inf, or whose scores are
//   all -inf, has NaN as context, as in IEEE softmax, and adds NaN to what every key visible to it
//   received.
// - A key whose probability is zero (dropped, a score of -inf, or below about 1e-38) contributes
//   nothing, not even where its value is inf or NaN.
// - A block of queries of which any block score is NaN keeps every block. An infinite score is the
//   highest, or the lowest, of all.
#pragma once

#include <stdint.h>

#include <functional>
#include <string>
#include <vector>

#include "isa.h"
#include "operands.h"

namespace crisp {

// Calls task(0) ... task(tasks - 1), in any order, on any threads, and returns when all are done.
// A task never throws.
using ParallelFor = std::function<void(size_t tasks, const std::function<void(size_t)>& task)>;

// Throws std::invalid_argument unless the `count` offsets start at 0, never decrease and end at
// `tokens`. Nothing may read through offsets that have not passed this check.
void check_cu_seqlens(const int32_t* cu_seqlens, int64_t count, int64_t tokens);

// Computes `operands.context`, and `operands.received` unless null. The result does not depend on
// how `parallel_for` spreads the tasks. Throws std::bad_alloc where memory is short.
void sparse_attention(const Operands& operands, Isa isa, const ParallelFor& parallel_for);

}  // namespace crisp
