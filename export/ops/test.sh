#!/bin/sh
# Builds the C++ tests and runs them twice: optimised, and under AddressSanitizer and UBSan. Those of
# the CUDA kernels are sanitized with SLOW=1 alone.
#
# Needs a C++17 compiler, CMake and doctest (Debian: apt-get install doctest-dev); not ONNX Runtime.
# Where the cross-compiler for 64-bit Arm is installed (Debian: g++-aarch64-linux-gnu), it compiles
# the kernel for that too.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:$here/../../.venv/bin
[ "${SLOW:-0}" = 1 ] && slow=ON || slow=OFF
jobs=$(nproc 2>/dev/null || echo 1)
for kind in release sanitize; do
    build=$here/build/tests-$kind
    [ $kind = sanitize ] && sanitize=ON || sanitize=OFF
    cmake -S "$here" -B "$build" -DCRISP_TESTS=ON -DCRISP_LIBRARY=OFF -DCRISP_SANITIZE=$sanitize \
        -DCRISP_SLOW=$slow >/dev/null
    cmake --build "$build" --parallel "$jobs"
    ctest --test-dir "$build" --output-on-failure
done

if command -v aarch64-linux-gnu-g++ >/dev/null; then
    build=$here/build/kernels-aarch64
    cmake -S "$here" -B "$build" -DCRISP_LIBRARY=OFF -DCMAKE_SYSTEM_NAME=Linux \
        -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ >/dev/null
    cmake --build "$build" --parallel "$jobs"
fi
