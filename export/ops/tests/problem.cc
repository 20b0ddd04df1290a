#include "problem.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "reference.h"

namespace crisp {
namespace {

Problem empty_problem(const std::vector<int64_t>& lengths, int64_t num_heads, int64_t head_size,
                      const Pattern& pattern) {
  Problem problem;
  problem.num_heads = num_heads;
  problem.head_size = head_size;
  problem.pattern = pattern;
  problem.cu_seqlens = {0};
  for (const int64_t length : lengths) {
    problem.cu_seqlens.push_back(problem.cu_seqlens.back() + static_cast<int32_t>(length));
  }
  problem.qkv.resize(static_cast<size_t>(problem.tokens() * 3 * problem.hidden()));
  return problem;
}

Operands operands_of(const Problem& problem, Solution& solution, bool with_received) {
  // What is not written must show.
  const float untouched = 12345.0f;
  solution.context.assign(static_cast<size_t>(problem.context_rows() * problem.hidden()),
                          untouched);
  solution.received.assign(with_received ? static_cast<size_t>(problem.tokens()) : 0, untouched);
  Operands operands{};
  operands.qkv = problem.qkv.data();
  operands.cu_seqlens = problem.cu_seqlens.data();
  operands.batch = problem.sequences();
  operands.num_heads = problem.num_heads;
  operands.head_size = problem.head_size;
  operands.pattern = problem.pattern;
  operands.queries = problem.queries;
  operands.bf16 = problem.bf16;
  operands.context = solution.context.data();
  operands.received = with_received ? solution.received.data() : nullptr;
  return operands;
}

bool same(double value, double expected, double tolerance) {
  if (std::isnan(expected) || std::isnan(value)) return std::isnan(expected) == std::isnan(value);
  if (std::isinf(expected) || std::isinf(value)) return value == expected;
  return std::abs(value - expected) <= tolerance * (1 + std::abs(expected));
}

// The mean over consecutive tokens of one head's q (part 0) or k (part 1).
std::vector<double> mean_of(const Problem& problem, int64_t token, int64_t tokens, int64_t head,
                            int64_t part) {
  std::vector<double> mean(static_cast<size_t>(problem.head_size), 0.0);
  for (int64_t t = token; t < token + tokens; ++t) {
    const size_t at = static_cast<size_t>((t * 3 + part) * problem.hidden() +  //
                                          head * problem.head_size);
    for (size_t d = 0; d < mean.size(); ++d) {
      mean[d] += static_cast<double>(problem.qkv[at + d]) / static_cast<double>(tokens);
    }
  }
  return mean;
}

// Whether rounding may decide what this row keeps: keys, or blocks of keys.
bool is_near_tie(const Problem& problem, int64_t first, int64_t length, int64_t head,
                 int64_t query) {
  const Pattern& pattern = problem.pattern;
  const bool by_block = pattern.kind == PatternKind::kBlockTopK;
  const int64_t size = by_block ? pattern.size : 1;
  const int64_t candidates = by_block ? block_count(pattern, length) : length;
  const int64_t kept = by_block ? kept_blocks(pattern, candidates) : kept_keys(pattern, length);
  if (kept >= candidates || (by_block && query == 0)) return false;
  const auto mean_of_block = [&](int64_t block, int64_t part) {
    const int64_t begin = block * size;
    return mean_of(problem, first + begin, std::min(size, length - begin), head, part);
  };
  const std::vector<double> mean_query = mean_of_block(query / size, 0);
  std::vector<double> scores(static_cast<size_t>(candidates), 0.0);
  double largest = 0;
  for (int64_t candidate = 0; candidate < candidates; ++candidate) {
    const std::vector<double> mean_key = mean_of_block(candidate, 1);
    double terms = 0;
    for (size_t d = 0; d < mean_query.size(); ++d) {
      scores[static_cast<size_t>(candidate)] += mean_query[d] * mean_key[d];
      terms += std::abs(mean_query[d] * mean_key[d]);
    }
    largest = std::max(largest, terms);
  }
  std::sort(scores.begin(), scores.end(), std::greater<double>());
  // Exact ties may be broken by rounding too, where means are no whole numbers.
  const double margin = 1e-6 * largest;
  const double threshold = scores[static_cast<size_t>(kept - 1)];
  const auto is_close = [&](double score) { return std::abs(score - threshold) < margin; };
  const auto close = std::count_if(scores.begin(), scores.end(), is_close);
  const auto equal = std::count(scores.begin(), scores.end(), threshold);
  return close > (by_block ? 1 : equal);
}

}  // namespace

Problem random_problem(const std::vector<int64_t>& lengths, int64_t num_heads, int64_t head_size,
                       const Pattern& pattern) {
  Problem problem = empty_problem(lengths, num_heads, head_size, pattern);
  std::mt19937 generator(static_cast<uint32_t>(17 + problem.tokens()));
  std::normal_distribution<float> normal;
  for (float& value : problem.qkv) value = normal(generator);
  return problem;
}

Problem integer_problem(const std::vector<int64_t>& lengths, int64_t num_heads, int64_t head_size,
                        const Pattern& pattern) {
  Problem problem = empty_problem(lengths, num_heads, head_size, pattern);
  std::mt19937 generator(static_cast<uint32_t>(29 + problem.tokens()));
  std::uniform_int_distribution<int> integer(-2, 2);
  for (float& value : problem.qkv) value = static_cast<float>(integer(generator));
  return problem;
}

Pattern dense() { return {}; }

Pattern topk_by_density(int64_t num, int64_t den) {
  Pattern pattern;
  pattern.kind = PatternKind::kTopK;
  pattern.density_num = num;
  pattern.density_den = den;
  return pattern;
}

Pattern topk_by_number(int64_t k) {
  Pattern pattern;
  pattern.kind = PatternKind::kTopK;
  pattern.k = k;
  return pattern;
}

Pattern band(int64_t window, int64_t globals) {
  Pattern pattern;
  pattern.kind = PatternKind::kBand;
  pattern.window = window;
  pattern.globals = globals;
  return pattern;
}

Pattern block(int64_t size, int64_t globals) {
  Pattern pattern;
  pattern.kind = PatternKind::kBlock;
  pattern.size = size;
  pattern.globals = globals;
  return pattern;
}

Pattern blocktopk_by_density(int64_t size, int64_t num, int64_t den) {
  Pattern pattern = topk_by_density(num, den);
  pattern.kind = PatternKind::kBlockTopK;
  pattern.size = size;
  return pattern;
}

Pattern blocktopk_by_number(int64_t size, int64_t k) {
  Pattern pattern = topk_by_number(k);
  pattern.kind = PatternKind::kBlockTopK;
  pattern.size = size;
  return pattern;
}

std::vector<Pattern> patterns_for(int64_t length) {
  return {dense(),
          topk_by_density(1, 5),
          topk_by_density(1, length),
          topk_by_density(1, 1),
          topk_by_number(7),
          band(1, 0),
          band(9, 1),
          band(65, 3),
          block(1, 0),
          block(7, 2),
          block(64, 1),
          blocktopk_by_density(1, 1, 5),
          blocktopk_by_number(4, 2),
          blocktopk_by_density(8, 1, 4),
          blocktopk_by_density(32, 1, 8),
          blocktopk_by_number(64, 2)};
}

std::vector<Pattern> few_patterns() {
  return {dense(),
          topk_by_density(1, 5),
          topk_by_number(3),
          band(9, 1),
          block(8, 2),
          blocktopk_by_number(8, 2),
          blocktopk_by_density(1, 1, 4)};
}

Problem first_only(Problem problem) {
  problem.queries = Queries::kFirst;
  return problem;
}

std::string text_of(const Problem& problem) {
  static const char* const names[] = {"dense", "topk", "band", "block", "blocktopk"};
  const Pattern& pattern = problem.pattern;
  std::string text = names[static_cast<int>(pattern.kind)];
  text += " density " + std::to_string(pattern.density_num) + "/" +
          std::to_string(pattern.density_den) + " k " + std::to_string(pattern.k) + " window " +
          std::to_string(pattern.window) + " size " + std::to_string(pattern.size) + " globals " +
          std::to_string(pattern.globals) +
          (problem.first_only() ? ", first queries alone, " : ", ") +
          std::to_string(problem.num_heads) + " heads of " + std::to_string(problem.head_size) +
          ", cu_seqlens";
  for (const int32_t offset : problem.cu_seqlens) text += " " + std::to_string(offset);
  return text;
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : kEveryIsa) {
    if (is_supported(isa)) isas.push_back(isa);
  }
  return isas;
}

Solution solve(const Problem& problem, Isa isa, bool with_received) {
  Solution solution;
  const Operands operands = operands_of(problem, solution, with_received);
  sparse_attention(operands, isa, [](size_t tasks, const std::function<void(size_t)>& task) {
    for (size_t i = tasks; i-- > 0;) task(i);  // the order must not matter
  });
  return solution;
}

Solution solve_by_reference(const Problem& problem) {
  Solution solution;
  reference_attention(operands_of(problem, solution, true));
  return solution;
}

void check_same(const Problem& problem, const Solution& solution, const Solution& expected,
                double tolerance) {
  REQUIRE(solution.context.size() == expected.context.size());
  int64_t near_ties = 0;
  int64_t wrong = 0;
  for (size_t sequence = 0; sequence + 1 < problem.cu_seqlens.size(); ++sequence) {
    const int64_t first = problem.cu_seqlens[sequence];
    const int64_t length = problem.cu_seqlens[sequence + 1] - first;
    int64_t near_ties_here = 0;
    for (int64_t query = 0; query < (problem.first_only() ? 1 : length); ++query) {
      const int64_t row = problem.first_only() ? static_cast<int64_t>(sequence) : first + query;
      for (int64_t head = 0; head < problem.num_heads; ++head) {
        const size_t at = static_cast<size_t>(row * problem.hidden() + head * problem.head_size);
        bool row_is_same = true;
        for (size_t d = at; d < at + static_cast<size_t>(problem.head_size); ++d) {
          row_is_same &= same(solution.context[d], expected.context[d], tolerance);
        }
        if (row_is_same) continue;
        if (length > 0 && is_near_tie(problem, first, length, head, query)) {
          ++near_ties_here;
        } else if (++wrong == 1) {
          FAIL_CHECK("context of token " << first + query << ", head " << head << " starts with "
                                         << solution.context[at] << ", expected "
                                         << expected.context[at]);
        }
      }
    }
    near_ties += near_ties_here;
    if (solution.received.empty()) continue;
    // Another key kept moves at most its own probability, below 1, from one token to another.
    const double moved =
        static_cast<double>(near_ties_here) / static_cast<double>(problem.num_heads);
    for (size_t token = static_cast<size_t>(first); token < static_cast<size_t>(first + length);
         ++token) {
      if (!same(solution.received[token], expected.received[token], tolerance + moved)) {
        FAIL_CHECK("token " << token << " received " << solution.received[token] << ", expected "
                            << expected.received[token]);
        break;
      }
    }
  }
  CHECK(wrong == 0);
  // One near tie among the scores of blocks concerns every query of a block.
  const int64_t together =
      problem.pattern.kind == PatternKind::kBlockTopK ? problem.pattern.size : 0;
  CHECK(near_ties <= problem.tokens() * problem.num_heads / 50 + together);
}

}  // namespace crisp
