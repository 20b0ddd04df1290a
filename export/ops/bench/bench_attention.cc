// How long crisp::SparseAttention takes, against the arithmetic alone: one thread, one sequence, 12
// heads of 32, the instruction set that the processor (or CRISP_ISA) chooses. bench.sh runs it.
// Times are of the thread, so that others on the same core disturb them least.
//
//   row_ns    nanoseconds a query row and head
//   dense_ns  the least that dense attention could take: its 2 x 2 n d operations a row and head,
//   at
//             the peak of multiply-adds that this program measures first
//   ideal     dense_ns / row_ns: above 1 where a pattern computes less than dense attention does
#include <benchmark/benchmark.h>

#include <cstdio>
#include <random>
#include <vector>

#include "measuring.h"
#include "sparse_attention.h"

namespace crisp {
namespace {

constexpr int64_t kHeads = 12;
constexpr int64_t kHeadSize = 32;

// ---------------------------------------------------------------- the operator

Pattern dense() { return {}; }

Pattern topk() {
  Pattern pattern;
  pattern.kind = PatternKind::kTopK;
  pattern.density_num = 1;
  pattern.density_den = 5;
  return pattern;
}

Pattern blocktopk() {
  Pattern pattern;
  pattern.kind = PatternKind::kBlockTopK;
  pattern.size = 64;
  pattern.density_num = 1;
  pattern.density_den = 8;
  return pattern;
}

void attend(benchmark::State& state, const Pattern& pattern, Queries queries, bool with_received,
            bool bf16, Isa isa, double peak) {
  const int64_t length = state.range(0);
  const int64_t hidden = kHeads * kHeadSize;
  std::vector<float> qkv(static_cast<size_t>(length * 3 * hidden));
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  for (float& value : qkv) value = normal(generator);
  std::vector<float> context(static_cast<size_t>(length * hidden));
  std::vector<float> received(static_cast<size_t>(length));
  const int32_t cu_seqlens[] = {0, static_cast<int32_t>(length)};
  Operands operands{};
  operands.qkv = qkv.data();
  operands.cu_seqlens = cu_seqlens;
  operands.batch = 1;
  operands.num_heads = kHeads;
  operands.head_size = kHeadSize;
  operands.pattern = pattern;
  operands.queries = queries;
  operands.context = context.data();
  operands.received = with_received ? received.data() : nullptr;
  operands.bf16 = bf16;
  const auto serially = [](size_t tasks, const std::function<void(size_t)>& task) {
    for (size_t i = 0; i < tasks; ++i) task(i);
  };
  const double begin = thread_ns();
  for (auto _ : state) {
    sparse_attention(operands, isa, serially);
    benchmark::ClobberMemory();
  }
  const double rows = static_cast<double>(queries == Queries::kFirst ? kHeads : kHeads * length);
  const double row_ns = (thread_ns() - begin) / static_cast<double>(state.iterations()) / rows;
  const double dense_ns = 4.0 * static_cast<double>(length * kHeadSize) / peak;
  state.counters["row_ns"] = row_ns;
  state.counters["dense_ns"] = dense_ns;
  state.counters["ideal"] = dense_ns / row_ns;
}

void register_all(Isa isa, double peak) {
  const auto add = [&](const char* name, const Pattern& pattern, Queries queries, bool received,
                       bool bf16 = false) {
    benchmark::RegisterBenchmark(name, attend, pattern, queries, received, bf16, isa, peak)
        ->ArgName("n")
        ->Arg(25)
        ->Arg(128)
        ->Arg(512)
        ->Arg(1024)
        ->Arg(2048)
        ->Arg(4096)
        ->Unit(benchmark::kMicrosecond);
  };
  add("dense", dense(), Queries::kAll, false);
  add("dense_received", dense(), Queries::kAll, true);
  add("topk_0.2", topk(), Queries::kAll, false);
  add("blocktopk_64_0.125", blocktopk(), Queries::kAll, false);
  add("blocktopk_64_0.125_received", blocktopk(), Queries::kAll, true);
  add("dense_first", dense(), Queries::kFirst, false);
  if (isa < Isa::kAvx512Bf16) return;
  add("dense_bf16", dense(), Queries::kAll, false, true);
  add("blocktopk_64_0.125_bf16", blocktopk(), Queries::kAll, false, true);
  add("dense_first_bf16", dense(), Queries::kFirst, false, true);
}

}  // namespace
}  // namespace crisp

int main(int argc, char** argv) {
  const crisp::Isa isa = crisp::choose_isa();
  const double peak = crisp::peak_of(isa);
  std::printf("%s, %.1f GFLOP/s of multiply-adds on one core\n", crisp::name_of(isa), peak);
  crisp::register_all(isa, peak);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
