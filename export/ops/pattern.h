// Attention patterns: which keys a query may see, and how many of them, or of their blocks, are
// kept by score.
//
// The rules are those of training/pattern.py, in integers so that every stage agrees exactly.
#pragma once

#include <stdint.h>

namespace crisp {

enum class PatternKind { kDense, kTopK, kBand, kBlock, kBlockTopK };

// Which tokens of a sequence attend: all, or the first alone, which is [CLS].
enum class Queries { kAll, kFirst };

struct Pattern {
  PatternKind kind = PatternKind::kDense;
  int64_t density_num = 0;  // by density: k = max(1, ceil(num * L / den)) keys (top-k), or of
  int64_t density_den = 0;  // N blocks max(1, ceil(num * N / den)) (blocktopk)
  int64_t k = 0;            // by number, where positive: min(k, L) keys, or min(k, N) blocks
  int64_t window = 0;       // band: odd full width
  int64_t size = 0;         // block, blocktopk: consecutive tokens in one block
  int64_t globals = 0;      // band, block: leading tokens that see all and are seen by all
};

// The keys that one query sees by its position: [0, globals_end) and [begin, end), positions within
// the sequence.
struct VisibleKeys {
  int64_t globals_end;
  int64_t begin;
  int64_t end;
};

// Throws std::invalid_argument, naming the attribute, where a number is missing or out of range.
void check_pattern(const Pattern& pattern);

// Keys visible to the query at position `query` of a sequence of `length` tokens; all of them where
// scores alone choose.
VisibleKeys visible_keys(const Pattern& pattern, int64_t query, int64_t length);

// Keys that a top-k query keeps, before ties, in a sequence of `length` tokens; all of them for
// every other pattern.
int64_t kept_keys(const Pattern& pattern, int64_t length);

// blocktopk: the N = ceil(length / size) blocks of a sequence; 0 for every other pattern.
int64_t block_count(const Pattern& pattern, int64_t length);

// blocktopk: key blocks that a query block keeps of `blocks` by score, ties, its own and the first
// one aside.
int64_t kept_blocks(const Pattern& pattern, int64_t blocks);

}  // namespace crisp
