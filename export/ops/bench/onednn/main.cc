// Times linear layers over oneDNN on request: reads a request a line, answers with a line of JSON.
//
//   matmul|conv  fp32|static|tensor|rows  127|64  qkv|out|ffn1|ffn2|ffn  ROWS THREADS SECONDS
//   peak  fp32|int8|int16  SECONDS
//
// 127 and 64 are the largest magnitude of the int8 weights: up to 64 no sum of two products
// saturates at 16 bits on processors without VNNI, with 127 it may.
//
// Answers {"ms": [...], "operations": ..., "implementation": "...", "error": ...}, one time for
// each run within SECONDS, or {"problem": "..."}. What was asked for once stays prepared, so that
// requests can alternate with those to another engine: see ../bench_linears_ort.py.
#include <omp.h>
#include <time.h>

#include <cstdio>
#include <iostream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <tuple>

#include "blocks.h"
#include "peaks.h"

namespace {

using namespace linears;
// On one thread the time that the processor spent on it: others who use it count for little.
double milliseconds(bool of_this_thread) {
  timespec time;
  clock_gettime(of_this_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return 1e3 * static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_nsec);
}

struct Prepared {
  std::unique_ptr<Block> block;
  double error = 0.0;
};

template <typename Run>
std::string times(double seconds, int threads, const Run& run) {
  std::ostringstream text;
  const double end = milliseconds(false) + 1e3 * seconds;
  do {
    const double begin = milliseconds(threads == 1);
    run();
    text << (text.tellp() == 0 ? "" : ", ") << milliseconds(threads == 1) - begin;
  } while (milliseconds(false) < end);
  return text.str();
}

template <typename Value>
Value choose(const std::string& word, const std::map<std::string, Value>& values) {
  const auto found = values.find(word);
  if (found == values.end()) throw std::invalid_argument("not understood: " + word);
  return found->second;
}

std::string answer(const std::string& line) {
  static std::map<std::string, Prepared> prepared;
  const std::invalid_argument bad("not understood: " + line);
  std::istringstream words(line);
  std::ostringstream json;
  std::string backend, precision, block;
  int64_t rows = 0;
  int weight_steps = 0, threads = 0;
  double seconds = 0.0;
  words >> backend >> precision;
  if (backend == "peak") {
    const Peak peak = choose<Peak>(
        precision, {{"fp32", Peak::kFloat32}, {"int8", Peak::kInt8}, {"int16", Peak::kInt16}});
    double operations = 0.0;
    if (!(words >> seconds)) throw bad;
    const std::string ms = times(seconds, 1, [&] { operations = run_peak(peak, 1000000); });
    json << "{\"ms\": [" << ms << "], \"operations\": " << operations << "}";
    return json.str();
  }
  words >> weight_steps >> block >> rows >> threads >> seconds;
  if (!words || weight_steps < 1 || weight_steps > 127 || rows < 1 || threads < 1) throw bad;
  omp_set_num_threads(threads);  // before the primitive is made: it is made for a number of threads
  std::ostringstream key;
  key << backend << precision << weight_steps << block << rows << '/' << threads;
  Prepared& entry = prepared[key.str()];
  if (entry.block == nullptr) {
    entry.block = make_block(
        {choose<Backend>(backend, {{"matmul", Backend::kMatmul}, {"conv", Backend::kConvolution}}),
         choose<Precision>(precision, {{"fp32", Precision::kFloat32},
                                       {"static", Precision::kStatic},
                                       {"tensor", Precision::kTensor},
                                       {"rows", Precision::kRows}}),
         weight_steps, block, rows, threads});
    entry.error = entry.block->error();
  }
  json << "{\"ms\": [" << times(seconds, threads, [&] { entry.block->run(); })
       << "], \"operations\": " << entry.block->operations() << ", \"implementation\": \""
       << entry.block->implementation() << "\", \"error\": " << entry.error << "}";
  return json.str();
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    try {
      std::cout << answer(line) << std::endl;
    } catch (const std::exception& problem) {
      std::cout << "{\"problem\": \"" << problem.what() << "\"}" << std::endl;
    }
  }
  return 0;
}
