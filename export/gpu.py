"""Which device a model runs on, and the operator library for it. Needs onnxruntime only.

A GPU is used where it is asked for: `cuda`, or `auto` where there is one that works. Whether one
does is tried, not guessed: ONNX Runtime must start its CUDA provider and open a model on it.
int8 models are for CPUs and fp16 ones for GPUs; fp32 runs on both.

    library = library_for("auto", folder.manifest.precision)
    session = make_session(folder.model, library=library)
"""

from __future__ import annotations

import contextlib
import functools
import io
from dataclasses import replace
from pathlib import Path
from typing import Literal

import onnxruntime

from export.errors import DeviceError
from export.op_library import OpLibrary, find_op_library, load_problem

Device = Literal["cpu", "cuda", "auto"]

PROVIDER = "CUDAExecutionProvider"
CUDA_PATH = Path(__file__).parent / "ops" / "lib" / "libcrisp_ops_cuda.so"

_INSTALL = "pip install 'onnxruntime-gpu[cuda,cudnn]', and NVIDIA's driver"
# y = Identity(x), float [1]: the smallest model that a provider can be tried with.
_PROBE = (
    b'\x08\x08\x12\x00:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08'
    b"\x01\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00"
    b"\x10\r"
)


def library_for(device: Device, precision: str) -> OpLibrary:
    """The operator library with which a model of `precision` runs on `device`.

    Raises DeviceError where `cuda` is asked for and cannot be had, or the model is of int8.
    """
    if device == "auto":
        why_not = "int8 models are for CPUs" if precision == "int8" else gpu_problem()
        if why_not is not None:
            library = suited(find_op_library(), precision)
            return replace(library, reason=f"{library.reason}; no GPU is used: {why_not}")
    elif device == "cpu":
        return suited(find_op_library(), precision)
    problem = gpu_problem()
    if problem is not None:
        raise DeviceError(f"device cuda cannot be used: {problem}")
    return suited(OpLibrary(CUDA_PATH, "built by export/ops/cuda/build.sh", "cuda"), precision)


def suited(library: OpLibrary, precision: str) -> OpLibrary:
    """`library`, or none where it lacks operators for models of `precision`, with the reason.

    Raises DeviceError for an int8 model on a GPU.
    """
    if library.device == "cuda" and precision == "int8":
        raise DeviceError(
            "int8 models run on CPUs alone: export the model with --precision fp16, or use "
            "device cpu"
        )
    if library.device == "cpu" and library.available and precision == "fp16":
        return OpLibrary(
            None, "fp16 models are for GPUs: on a CPU they run on their built-in fallback, slowly"
        )
    return library


def gpu_problem() -> str | None:
    """Why models cannot run on a GPU here and what to do, in one line; None where they can."""
    if not CUDA_PATH.is_file():
        return _provider_problem() or (
            f"{CUDA_PATH} has not been built; run export/ops/cuda/build.sh, which needs nvcc"
        )
    stat = CUDA_PATH.stat()
    return _provider_problem() or load_problem(CUDA_PATH, stat.st_mtime_ns, stat.st_size)


@functools.cache
def _provider_problem() -> str | None:
    if PROVIDER not in onnxruntime.get_available_providers():
        return f"this onnxruntime has no CUDA provider; {_INSTALL}"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    onnxruntime.set_default_logger_severity(4)  # or a missing library fills the terminal
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()  # of NVIDIA's packages, where those are installed
            session = onnxruntime.InferenceSession(_PROBE, options, providers=[PROVIDER])
    except Exception as error:  # the classes of onnxruntime's errors share no base but this one
        return f"ONNX Runtime cannot start its CUDA provider ({error}); {_INSTALL}"
    finally:
        onnxruntime.set_default_logger_severity(2)  # its default
    if PROVIDER not in session.get_providers():  # ONNX Runtime falls back without a word
        return f"ONNX Runtime cannot start its CUDA provider: no GPU, or a part lacks; {_INSTALL}"
    return None
