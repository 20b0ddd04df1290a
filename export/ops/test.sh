#!/bin/sh
# Builds the C++ tests and runs them twice: optimised, and under AddressSanitizer and UBSan.
#
# Needs a C++17 compiler, CMake and doctest (Debian: apt-get install doctest-dev); not ONNX Runtime.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:$here/../../.venv/bin
jobs=$(nproc 2>/dev/null || echo 1)
for kind in release sanitize; do
    build=$here/build/tests-$kind
    [ $kind = sanitize ] && sanitize=ON || sanitize=OFF
    cmake -S "$here" -B "$build" -DCRISP_TESTS=ON -DCRISP_LIBRARY=OFF -DCRISP_SANITIZE=$sanitize \
        >/dev/null
    cmake --build "$build" --parallel "$jobs"
    ctest --test-dir "$build" --output-on-failure
done
