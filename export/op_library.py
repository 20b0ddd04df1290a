"""Finds and loads the compiled operators, and opens models with them.

The operator library is `export/ops/lib/libcrisp_ops.so`, which `make setup` builds. Where it is
missing or does not load, models run on the standard operators that travel in their file, more
slowly, and `OpLibrary.reason` says why and what to do. Needs onnxruntime only: no torch, no onnx.

    library = find_op_library()
    session = make_session(folder.model, threads=2, library=library)

The environment variable CRISP_OP_LIBRARY names another library file, or `none` to do without.
"""

from __future__ import annotations

import ctypes
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnxruntime

from export.errors import ModelFolderError, first_line
from export.processors import processors

ENVIRONMENT_VARIABLE = "CRISP_OP_LIBRARY"
DEFAULT_PATH = Path(__file__).parent / "ops" / "lib" / "libcrisp_ops.so"

# On a GPU, products of floats keep all their bits: TF32 would keep 10.
_PROVIDERS: dict[str, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"],
}
_SLOWER = "models run on their built-in fallback, more slowly"


@dataclass(frozen=True)
class OpLibrary:
    """The operator library that was found: its path, or None and the reason in one line.

    Where there is a path, `reason` says where the library was found.
    """

    path: Path | None
    reason: str
    device: Literal["cpu", "cuda"] = "cpu"  # where its operators run: export/gpu.py

    @property
    def available(self) -> bool:
        return self.path is not None


def find_op_library() -> OpLibrary:
    """The operator library of this installation, checked by loading it. Never raises."""
    wanted = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if wanted.lower() == "none":
        return OpLibrary(None, f"switched off by {ENVIRONMENT_VARIABLE}=none: {_SLOWER}")
    if wanted:
        path = Path(wanted).absolute()
        if not path.is_file():
            return OpLibrary(
                None,
                f"{ENVIRONMENT_VARIABLE} names {path}, which is not a file; correct or unset it: "
                f"{_SLOWER}",
            )
        return _checked(path, f"named by {ENVIRONMENT_VARIABLE}")
    if not DEFAULT_PATH.is_file():
        return OpLibrary(
            None, f"{DEFAULT_PATH} has not been built; run export/ops/build.sh: {_SLOWER}"
        )
    return _checked(DEFAULT_PATH, "built by export/ops/build.sh")


def make_session(
    model: Path,
    *,
    threads: int | None = None,
    library: OpLibrary | None = None,
    profile: Path | None = None,
    precision: str = "fp32",
) -> onnxruntime.InferenceSession:
    """Opens `model` on the device of `library`, with the compiled operators where that has them.

    `threads` is the number of threads that one call may use, by default that of the processors that
    this process may run on; `library` defaults to `find_op_library()`. `profile` is what the name
    of a file starts with into which ONNX Runtime writes the time of every node; `precision` is as
    for `session_options`. Raises ModelFolderError where ONNX Runtime refuses the file.
    """
    found = find_op_library() if library is None else library
    options = session_options(threads, precision=precision)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return open_session(model, options, found)


def session_options(
    threads: int | None = None, *, precision: str = "fp32", spinning: bool = False
) -> onnxruntime.SessionOptions:
    """The options of `make_session`, chosen by what `export.bench.session_options` measures.

    `precision` is that of the weights: beside int8 ones, attention may round as well, and
    multiplies in bfloat16 where the processor does (AMX, AVX512-BF16).
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or processors()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it logs as an error it raises too: one line is enough
    if precision == "int8":
        options.add_session_config_entry("crisp.bf16", "1")
    # Spinning threads starve each other, and everything else, on a shared host.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return options


def open_session(
    model: Path,
    options: onnxruntime.SessionOptions,
    library: OpLibrary,
    *,
    content: bytes | None = None,
) -> onnxruntime.InferenceSession:
    """Opens `model` on the device of `library`, with the compiled operators where that has them.
    `content` are bytes to open in place of the file's own. Raises ModelFolderError where ONNX
    Runtime refuses."""
    source = str(model) if content is None else content
    try:
        if library.path is not None:
            options.register_custom_ops_library(str(library.path))
        return onnxruntime.InferenceSession(source, options, providers=_PROVIDERS[library.device])
    except Exception as error:  # the classes of onnxruntime's errors share no base but this one
        raise ModelFolderError(
            f"ONNX Runtime {onnxruntime.__version__} cannot open {model}: {first_line(error)}"
        ) from error


def _checked(path: Path, found: str) -> OpLibrary:
    stat = path.stat()
    problem = load_problem(path, stat.st_mtime_ns, stat.st_size)
    if problem is None and not hasattr(ctypes.PyDLL(str(path)), "CrispShare"):
        # share.py tells it how many threads. export/gpu.py finds the one for GPUs by itself.
        problem = "it is of an older version, or not the library for CPUs"
    if problem:
        return OpLibrary(
            None,
            f"{path} does not load ({problem}); build it on this machine with "
            f"export/ops/build.sh: {_SLOWER}",
        )
    return OpLibrary(path, found)


@functools.cache
def load_problem(path: Path, _mtime_ns: int, _size: int) -> str | None:
    """Why the library does not load, or None; looked at once for each state of the file."""
    try:
        onnxruntime.SessionOptions().register_custom_ops_library(str(path))
    except Exception as error:  # as above
        return first_line(error)
    return None
