#!/bin/sh
# Builds the microbenchmarks and runs one, `attention` or `rows`; arguments go to it (--help names
# them):
#
#   bench.sh attention --benchmark_filter=dense --benchmark_repetitions=9 \
#       --benchmark_enable_random_interleaving
#
# Needs a C++17 compiler, CMake and google-benchmark (Debian: apt-get install libbenchmark-dev); not
# ONNX Runtime.
set -eu
case ${1:-} in attention | rows) ;; *)
    echo "usage: bench.sh attention|rows [OPTIONS]" >&2
    exit 2
    ;;
esac
name=bench_$1
shift
ops=$(cd "$(dirname "$0")/.." && pwd)
PATH=$PATH:$ops/../../.venv/bin
build=$ops/build/bench
cmake -S "$ops" -B "$build" -DCRISP_BENCH=ON -DCRISP_LIBRARY=OFF >/dev/null
cmake --build "$build" --parallel "$(nproc 2>/dev/null || echo 1)" >/dev/null
exec "$build/$name" "$@"
