// Random problems for crisp::SparseAttention, solved by the kernel and by the scalar reference.
#pragma once

#include <string>
#include <vector>

#include "sparse_attention.h"

namespace crisp {

#ifdef CRISP_SANITIZE
constexpr bool kSlow = true;  // some ten times slower: leave the largest out
#else
constexpr bool kSlow = false;
#endif

struct Solution {
  std::vector<float> context;
  std::vector<float> received;
};

struct Problem {
  std::vector<int32_t> cu_seqlens;
  int64_t num_heads;
  int64_t head_size;
  Pattern pattern;
  std::vector<float> qkv;
  Queries queries = Queries::kAll;
  bool bf16 = false;

  int64_t hidden() const { return num_heads * head_size; }
  int64_t tokens() const { return cu_seqlens.back(); }
  int64_t sequences() const { return static_cast<int64_t>(cu_seqlens.size()) - 1; }
  bool first_only() const { return queries == Queries::kFirst; }
  int64_t context_rows() const { return first_only() ? sequences() : tokens(); }
  float& q(int64_t token, int64_t head, int64_t d) { return at(token, 0, head, d); }
  float& k(int64_t token, int64_t head, int64_t d) { return at(token, 1, head, d); }
  float& v(int64_t token, int64_t head, int64_t d) { return at(token, 2, head, d); }

 private:
  float& at(int64_t token, int64_t part, int64_t head, int64_t d) {
    return qkv[static_cast<size_t>((token * 3 + part) * hidden() + head * head_size + d)];
  }
};

// Standard normal values.
Problem random_problem(const std::vector<int64_t>& lengths, int64_t num_heads, int64_t head_size,
                       const Pattern& pattern);

// Integers from -2 to 2 in q and k: dot products are exact, so that every instruction set sees the
// same ties, of which there are many.
Problem integer_problem(const std::vector<int64_t>& lengths, int64_t num_heads, int64_t head_size,
                        const Pattern& pattern);

Pattern dense();
Pattern topk_by_density(int64_t num, int64_t den);
Pattern topk_by_number(int64_t k);
Pattern band(int64_t window, int64_t globals);
Pattern block(int64_t size, int64_t globals);
Pattern blocktopk_by_density(int64_t size, int64_t num, int64_t den);
Pattern blocktopk_by_number(int64_t size, int64_t k);

// Of every kind, at the edges of texts of `length` tokens; and a few of every kind.
std::vector<Pattern> patterns_for(int64_t length);
std::vector<Pattern> few_patterns();

Problem first_only(Problem problem);
std::string text_of(const Problem& problem);

std::vector<Isa> supported_isas();

Solution solve(const Problem& problem, Isa isa, bool with_received = true);
Solution solve_by_reference(const Problem& problem);

// Checks that `solution` is `expected` to `tolerance`, NaN for NaN; says where not.
// Rows of which top-k may rightly keep another key, or their block another block, because the
// scores at the threshold differ by less than rounding does, are left out of the comparison, and
// must be few.
void check_same(const Problem& problem, const Solution& solution, const Solution& expected,
                double tolerance = 2e-5);

}  // namespace crisp
