#!/bin/sh
# Builds lib/libcrisp_ops.so, unless it loads and is newer than everything it is made of.
#
#   build.sh            where it can't be built, says why and succeeds: models run on their fallback
#   build.sh --strict   fails instead
#   build.sh --force    builds it even if it seems up to date
#
# A library of other sources than these may compute something else: where the new one can't be
# built, an old one is put aside rather than left in use.
#
# Needs a C++17 compiler, CMake (PyPI's is installed into .venv where there is none) and the headers
# of ONNX Runtime, which find_headers.sh looks for.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
library=$here/lib/libcrisp_ops.so
aside=$here/build/libcrisp_ops.old.so
strict=no
force=no
for option in "$@"; do
    case $option in
        --strict) strict=yes ;;
        --force) force=yes ;;
        *) echo "usage: build.sh [--strict] [--force]" >&2 && exit 2 ;;
    esac
done
mkdir -p "$here/build" "$here/lib"
problem=$here/build/problem.txt

give_up() {
    echo "warning: the compiled operators were not built: $1." >&2
    if [ -f "$library" ]; then
        mv "$library" "$aside"
        echo "  The library that was there is put aside, as ${aside#"$root"/}." >&2
    fi
    echo "  Everything works all the same, on the slower fallback inside each model file." >&2
    echo "  Then run export/ops/build.sh again." >&2
    [ $strict = no ] || exit 1
    exit 0
}

# Whether the library $1 loads, or else the reason in $problem. Where there is no Python to try it,
# there is none to use it either.
loads() {
    for python in "$root/.venv/bin/python" python3; do
        command -v "$python" >/dev/null || continue
        "$python" -c 'import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.RegisterCustomOps, library.CrispShare' "$1" 2>"$problem"
        return
    done
}

# What the library is made of and was edited after the file $1.
edited_after() {
    find "$here" -maxdepth 1 -type f -newer "$1" \
        \( -name '*.cc' -o -name '*.h' -o -name CMakeLists.txt -o -name exports.map \)
}
if [ $force = no ] && [ -f "$library" ] && [ -z "$(edited_after "$library")" ] && loads "$library"; then
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

headers=$("$here/find_headers.sh" 2>"$problem") || give_up "$(cat "$problem")"

log=$here/build/build.log
build=$here/build/release
jobs=$(nproc 2>/dev/null || echo 1)
compile() {
    cmake -S "$here" -B "$build" -DCMAKE_BUILD_TYPE=Release -DCRISP_TESTS=OFF \
        "-DONNXRUNTIME_INCLUDE_DIR=$headers" && cmake --build "$build" --parallel "$jobs"
}
# The library gets the time at which its compilation began: what is edited meanwhile is newer. What
# was compiled of it is newer still, and would pass for up to date the next time.
begun=$here/build/begun
touch "$begun"
trap '[ -z "$(edited_after "$begun")" ] || rm -rf "$build"' EXIT
# Another generator or compiler than last time: start over once.
compile >"$log" 2>&1 || { rm -rf "$build" && compile >"$log" 2>&1; } ||
    give_up "the compiler failed, see $log: $(grep -m 1 -i error "$log" || tail -n 1 "$log")"

cp "$build/libcrisp_ops.so" "$library.tmp"
touch -r "$begun" "$library.tmp"
loads "$library.tmp" || give_up "what was compiled does not load: $(tail -n 1 "$problem")"
mv "$library.tmp" "$library"
echo "operator library built: ${library#"$root"/}"
