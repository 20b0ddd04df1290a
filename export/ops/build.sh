#!/bin/sh
# Builds lib/libcrisp_ops.so, unless it is newer than everything it is made of.
#
#   build.sh            where it can't be built, says why and succeeds: models run on their fallback
#   build.sh --strict   fails instead
#
# Needs a C++17 compiler, CMake (PyPI's is installed into .venv where there is none) and the headers
# of ONNX Runtime, which find_headers.sh looks for.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
library=$here/lib/libcrisp_ops.so
strict=${1:-}

give_up() {
    echo "warning: the compiled operators were not built: $1." >&2
    echo "  Everything works all the same, on the slower fallback inside each model file." >&2
    echo "  Then run export/ops/build.sh again." >&2
    [ "$strict" != --strict ] || exit 1
    exit 0
}

if [ -f "$library" ] && [ -z "$(find "$here" -maxdepth 1 -type f -newer "$library" \
    \( -name '*.cc' -o -name '*.h' -o -name CMakeLists.txt -o -name exports.map \))" ]; then
    echo "operator library is up to date: ${library#"$root"/}"
    exit 0
fi

compiler=${CXX:-c++}
command -v "${compiler%% *}" >/dev/null ||
    give_up "no C++ compiler '$compiler'; install g++ (Debian: apt-get install g++), or set CXX"

PATH=$PATH:$root/.venv/bin
if ! command -v cmake >/dev/null; then
    "$root/.venv/bin/python" -m pip install --quiet cmake ninja 2>/dev/null ||
        give_up "no CMake; install it (Debian: apt-get install cmake; or: pip install cmake ninja)"
fi
if command -v ninja >/dev/null; then
    export CMAKE_GENERATOR="${CMAKE_GENERATOR:-Ninja}"
elif ! command -v make >/dev/null; then
    give_up "neither ninja nor make; install one (Debian: apt-get install make)"
fi

mkdir -p "$here/build" "$here/lib"
problem=$here/build/problem.txt
headers=$("$here/find_headers.sh" 2>"$problem") || give_up "$(cat "$problem")"

log=$here/build/build.log
build=$here/build/release
jobs=$(nproc 2>/dev/null || echo 1)
compile() {
    cmake -S "$here" -B "$build" -DCMAKE_BUILD_TYPE=Release -DCRISP_TESTS=OFF \
        "-DONNXRUNTIME_INCLUDE_DIR=$headers" && cmake --build "$build" --parallel "$jobs"
}
# Another generator or compiler than last time: start over once.
compile >"$log" 2>&1 || { rm -rf "$build" && compile >"$log" 2>&1; } ||
    give_up "the compiler failed, see $log: $(grep -m 1 -i error "$log" || tail -n 1 "$log")"

cp "$build/libcrisp_ops.so" "$library.tmp"
mv "$library.tmp" "$library"
echo "operator library built: ${library#"$root"/}"
