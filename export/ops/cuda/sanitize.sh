#!/bin/sh
# The GPU tests under compute-sanitizer: memory out of bounds, races in shared memory, reads of what
# nobody wrote, barriers that not all threads reach. Needs a GPU and compute-sanitizer, which comes
# with the CUDA toolkit; takes minutes.
set -eu
cd "$(dirname "$0")/../../.."
PATH=$PATH:/usr/local/cuda/bin
command -v compute-sanitizer >/dev/null || {
    echo "compute-sanitizer is missing; it comes with the CUDA toolkit" >&2
    exit 1
}
for tool in memcheck racecheck initcheck synccheck; do
    echo "== $tool"
    compute-sanitizer --tool $tool --error-exitcode 9 --target-processes all \
        .venv/bin/python -m pytest -m gpu tests/export/test_gpu.py "$@"
done
