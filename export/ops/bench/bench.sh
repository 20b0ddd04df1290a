#!/bin/sh
# Builds the microbenchmark of SparseAttention and runs it; arguments go to it (--help names them):
#
#   bench.sh --benchmark_filter=dense --benchmark_repetitions=9 --benchmark_enable_random_interleaving
#
# Needs a C++17 compiler, CMake and google-benchmark (Debian: apt-get install libbenchmark-dev); not
# ONNX Runtime.
set -eu
ops=$(cd "$(dirname "$0")/.." && pwd)
PATH=$PATH:$ops/../../.venv/bin
build=$ops/build/bench
cmake -S "$ops" -B "$build" -DCRISP_BENCH=ON -DCRISP_LIBRARY=OFF >/dev/null
cmake --build "$build" --parallel "$(nproc 2>/dev/null || echo 1)" >/dev/null
exec "$build/bench_attention" "$@"
