// SparseAttention's block programs (cuda/) on the host, against the scalar reference: the whole
// logic of the kernels, with the threads of a phase in random order. block_program.h says what that
// shows and what it does not.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>

#include "cuda/operators.h"
#include "problem.h"

namespace crisp {
namespace {

// Memory as a call allocates it: exactly as large as asked for, and never zero by chance.
struct HostDevice {
  std::vector<std::vector<char>> memory;
  cuda::Device device{nullptr, nullptr, [this](size_t bytes) -> void* {
                        memory.emplace_back(bytes, static_cast<char>(0xff));
                        return memory.back().data();
                      }};
};

template <class T>
std::vector<T> converted(const std::vector<float>& values) {
  std::vector<T> result;
  for (const float value : values) result.push_back(cuda::from_float<T>(value));
  return result;
}

// As `solve`, by the block programs with tensors of T.
template <class T>
Solution solve_by_programs(const Problem& problem, bool with_received) {
  const std::vector<T> qkv = converted<T>(problem.qkv);
  std::vector<T> context(static_cast<size_t>(problem.context_rows() * problem.hidden()),
                         cuda::from_float<T>(12345.0f));
  Solution solution;
  solution.received.assign(with_received ? static_cast<size_t>(problem.tokens()) : 0, 12345.0f);
  HostDevice host;
  cuda::Attention call{};
  call.precision = sizeof(T) == 2 ? cuda::Precision::kHalf : cuda::Precision::kFloat;
  call.qkv = qkv.data();
  call.cu_seqlens = problem.cu_seqlens.data();
  call.batch = problem.sequences();
  call.num_heads = problem.num_heads;
  call.head_size = problem.head_size;
  call.pattern = problem.pattern;
  call.queries = problem.queries;
  call.context = context.data();
  call.received = with_received ? solution.received.data() : nullptr;
  cuda::sparse_attention(host.device, call);
  for (const T value : context) solution.context.push_back(cuda::to_float(value));
  return solution;
}

Problem rounded_to_half(Problem problem) {
  for (float& value : problem.qkv) value = cuda::to_float(cuda::from_float<cuda::Half>(value));
  return problem;
}

// Probabilities and context are rounded to 11 bits: 2^-11 of each of them.
constexpr double kHalfTolerance = 2e-3;

void check_programs(const Problem& problem) {
  CAPTURE(text_of(problem));
  const Solution expected = solve_by_reference(problem);
  const Problem rounded = rounded_to_half(problem);
  const Solution expected_of_rounded = solve_by_reference(rounded);
  for (const bool with_received : {true, false}) {
    CAPTURE(with_received);
    check_same(problem, solve_by_programs<float>(problem, with_received), expected);
    check_same(rounded, solve_by_programs<cuda::Half>(rounded, with_received), expected_of_rounded,
               kHalfTolerance);
  }
}

void check_both_queries(const Problem& problem) {
  check_programs(problem);
  check_programs(first_only(problem));
}

TEST_CASE("cuda: lengths around tiles, every pattern") {
  for (const int64_t length : {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129}) {
    if (kSlow && length != 17 && length != 65) continue;
    for (const Pattern& pattern : patterns_for(length)) {
      check_both_queries(random_problem({length}, 2, 8, pattern));
      if (length % 16 == 1) check_both_queries(integer_problem({length}, 1, 32, pattern));
    }
  }
}

TEST_CASE("cuda: long sequences") {
  for (const Pattern& pattern :
       {dense(), topk_by_density(1, 5), band(65, 3), block(64, 1), blocktopk_by_number(64, 4)}) {
    check_both_queries(random_problem({kSlow ? 200 : 320}, 1, 16, pattern));
  }
  if (kSlow) return;
  check_programs(random_problem({1500}, 1, 4, topk_by_number(64)));  // fewer rows at a time
}

TEST_CASE("cuda: rows so long that few fit into shared memory") {
  if (kSlow) return;
  check_programs(first_only(random_problem({5000}, 1, 8, topk_by_number(9))));
  check_programs(first_only(random_problem({9000, 3}, 1, 8, dense())));
}

TEST_CASE("cuda: a sequence that no shared memory holds is refused") {
  const Problem problem = first_only(random_problem({30000}, 1, 8, dense()));
  CHECK_THROWS_AS(solve_by_programs<float>(problem, true), std::invalid_argument);
}

TEST_CASE("cuda: heads of every width") {
  for (const int64_t head_size : {1, 7, 20, 33, 64, 65, 128}) {
    for (const Pattern& pattern : {dense(), topk_by_number(7), blocktopk_by_number(8, 2)}) {
      check_both_queries(random_problem({70, 3}, 2, head_size, pattern));
    }
  }
  CHECK_THROWS_AS(solve_by_programs<float>(random_problem({3}, 1, 129, dense()), true),
                  std::invalid_argument);
}

TEST_CASE("cuda: batches of mixed lengths, empty sequences among them") {
  for (const Pattern& pattern : patterns_for(30)) {
    check_both_queries(random_problem({5, 1, 33, 0, 66, 2}, 2, 32, pattern));
    check_both_queries(integer_problem({0, 17, 0, 0, 130, 1, 0}, 3, 20, pattern));
  }
}

TEST_CASE("cuda: more sequences than a launch has room for") {
  const std::vector<int64_t> lengths(kSlow ? 130 : 300, 3);
  for (const Pattern& pattern : {dense(), topk_by_number(2), blocktopk_by_number(1, 1)}) {
    check_both_queries(random_problem(lengths, 1, 8, pattern));
  }
}

TEST_CASE("cuda: no tokens, no sequences") {
  check_both_queries(random_problem({}, 2, 32, dense()));
  check_both_queries(random_problem({0, 0}, 2, 32, topk_by_number(2)));
}

TEST_CASE("cuda: random problems") {
  std::mt19937 random(5);
  const auto draw = [&random](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int trial = 0; trial < (kSlow ? 15 : 30); ++trial) {
    std::vector<int64_t> lengths;
    for (int64_t i = draw(1, 4); i > 0; --i) lengths.push_back(draw(0, 150));
    const int64_t den = draw(1, 40);
    const std::vector<Pattern> patterns = {dense(),
                                           topk_by_density(draw(1, den), den),
                                           topk_by_number(draw(1, 160)),
                                           band(2 * draw(0, 90) + 1, draw(0, 5)),
                                           block(draw(1, 90), draw(0, 5)),
                                           blocktopk_by_density(draw(1, 90), draw(1, den), den),
                                           blocktopk_by_number(draw(1, 40), draw(1, 9))};
    const Pattern& pattern = patterns[static_cast<size_t>(draw(0, 6))];
    const int64_t heads = draw(1, 3);
    const int64_t head_size = draw(1, 80);
    check_both_queries(random_problem(lengths, heads, head_size, pattern));
  }
}

TEST_CASE("cuda: non-finite values, as the reference has it") {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const Pattern& pattern : few_patterns()) {
    for (const float value : {std::nanf(""), kInfinity, -kInfinity}) {
      for (const int64_t token : {0, 20, 68}) {
        if (kSlow && token != 20) continue;
        for (const int64_t column : {3, 8 + 3, 16 + 3}) {  // of q, k and v
          Problem problem = integer_problem({69, 5}, 2, 4, pattern);
          problem.qkv[static_cast<size_t>(token * 24 + column)] = value;
          CAPTURE(value);
          CAPTURE(token);
          CAPTURE(column);
          check_programs(token == 0 ? first_only(problem) : problem);
        }
      }
      Problem problem = integer_problem({1, 40}, 2, 4, pattern);
      for (float& entry : problem.qkv) entry = value;
      check_both_queries(problem);
    }
  }
}

TEST_CASE("cuda: a run is repeated to the last bit, whatever the order of the threads") {
  for (const Pattern& pattern : {dense(), topk_by_number(7), blocktopk_by_number(8, 2)}) {
    const Problem problem = random_problem({70, 3, 200}, 2, 32, pattern);
    for (const bool with_received : {true, false}) {
      const Solution one = solve_by_programs<cuda::Half>(problem, with_received);
      const Solution other = solve_by_programs<cuda::Half>(problem, with_received);
      CHECK(one.context == other.context);
      CHECK(one.received == other.received);
    }
  }
}

}  // namespace
}  // namespace crisp
