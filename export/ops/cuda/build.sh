#!/bin/sh
# Builds ../lib/libcrisp_ops_cuda.so, the operators for ONNX Runtime's CUDA provider, where nvcc is.
#
#   cuda/build.sh            where it can't be built, says why and succeeds; a library that was there,
#                            of other sources, is put aside
#   cuda/build.sh --strict   fails instead
#   cuda/build.sh --host     the same operators for the host, build/cuda-host/libcrisp_ops_cuda.so:
#                            what the tests run whole models through without a GPU
#
# Needs what ../build.sh needs, and a CUDA toolkit of the major version that ONNX Runtime was built
# with, 13 for onnxruntime-gpu 1.31: nvcc on the PATH, in /usr/local/cuda, or CUDACXX. Not cuBLAS.
# Leaves what ptxas says of each kernel, registers and spills, in build/cuda.log.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
ops=$(cd "$here/.." && pwd)
root=$(cd "$ops/../.." && pwd)
mode=${1:-}
PATH=$PATH:$root/.venv/bin:/usr/local/cuda/bin

library=$ops/lib/libcrisp_ops_cuda.so
aside=$ops/build/libcrisp_ops_cuda.old.so

give_up() {
    echo "the operators for GPUs were not built: $1" >&2
    if [ "$mode" != --host ] && [ -f "$library" ]; then
        mv "$library" "$aside"
        echo "  The library that was there is put aside, as ${aside#"$root"/}." >&2
    fi
    [ "$mode" = "" ] || exit 1
    exit 0
}

mkdir -p "$ops/build" "$ops/lib"
nvcc=${CUDACXX:-nvcc}
if [ "$mode" != --host ] && ! command -v "$nvcc" >/dev/null; then
    give_up "no CUDA compiler '$nvcc'; install the CUDA toolkit, or set CUDACXX"
fi
command -v cmake >/dev/null || give_up "no CMake; see ../build.sh"
if command -v ninja >/dev/null; then export CMAKE_GENERATOR="${CMAKE_GENERATOR:-Ninja}"; fi
headers=$("$ops/find_headers.sh" 2>"$ops/build/problem.txt") ||
    give_up "$(cat "$ops/build/problem.txt")"

if [ "$mode" = --host ]; then
    name=cuda-host option=-DCRISP_CUDA_ON_HOST=ON
else
    name=cuda option=-DCRISP_CUDA=ON
    export CUDACXX="$nvcc"
fi
build=$ops/build/$name log=$ops/build/$name.log
{
    cmake -S "$ops" -B "$build" -DCMAKE_BUILD_TYPE=Release -DCRISP_TESTS=OFF -DCRISP_LIBRARY=OFF \
        "$option" "-DONNXRUNTIME_INCLUDE_DIR=$headers" &&
        cmake --build "$build" --parallel "$(nproc 2>/dev/null || echo 1)"
} >"$log" 2>&1 || give_up "see $log: $(grep -m 1 -i error "$log" || tail -n 1 "$log")"

if [ "$mode" = --host ]; then
    cp "$build/cuda/libcrisp_ops_cuda.so" "$build/libcrisp_ops_cuda.so.tmp"
    mv "$build/libcrisp_ops_cuda.so.tmp" "$build/libcrisp_ops_cuda.so"
    exit 0
fi
cp "$build/cuda/libcrisp_ops_cuda.so" "$library.tmp"
mv "$library.tmp" "$library"
echo "operator library for GPUs built: ${library#"$root"/}"
