"""A step of many models in C++: torch's spends most of its time on memory.

    if fused_serves(size, pattern, device):
        losses, right = fused_step(parameters, tokens, lengths, labels, size, pattern)

The same computation as `encoder.forward`, its cross-entropy and its backward pass, in float32 on
the CPU: only sums are taken in another order, and where the processor has AMX, the products of the
linears keep 16 bits of each factor's 24. The C++ is built when first needed, for the processor it
runs on, which takes some seconds. Where there is no C++ compiler, torch does the work.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from training.attention.registry import LINK_RULES
from training.pattern import AttentionPattern
from training.study.descent import Descent
from training.study.dropout import Dropped
from training.study.encoder import EncoderSize, positions

_SOURCE = Path(__file__).with_name("step.cc")
_FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-pthread"),
    # Sums may be taken in any order; infinities and NaN stay what they are.
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"),
)
_WIDTH, _LINE = 64, 16  # kWidth and kLine of the C++
_BY_SCORE = {"topk": 1.0, "bottomk": -1.0}
_BY_PLACE = ("dense", "band", "block", "random")


@functools.cache
def _positions(length: int, width: int) -> Tensor:
    return positions(length, width).float()


class _Step(ctypes.Structure):
    """`Step` of step.cc, which says what each is."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("models", "batch", "length", "blocks")),
        *((name, ctypes.c_int32) for name in ("classes", "symbols", "threads")),
        ("sign", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("weights", "tokens", "lengths")),
        *((name, ctypes.c_void_p) for name in ("labels", "kept", "links", "which", "positions")),
        *((name, ctypes.c_void_p) for name in ("dropped", "starts")),
        ("count", ctypes.c_int64),
        *((name, ctypes.c_float) for name in ("scale", "rate", "clip")),
        *((name, ctypes.c_void_p) for name in ("losses", "right")),
    )


def fused_serves(size: EncoderSize, pattern: AttentionPattern, device: torch.device) -> bool:
    """Whether `fused_step` can do it here."""
    known = pattern.name in _BY_PLACE or pattern.name in _BY_SCORE
    return known and device.type == "cpu" and size.width == _WIDTH and _library() is not None


def fused_step(
    parameters: Mapping[str, Tensor],
    tokens: Tensor,
    lengths: Tensor,
    labels: Tensor,
    size: EncoderSize,
    pattern: AttentionPattern,
    *,
    dropped: Dropped | None = None,
    descent: Descent | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy float [M, B], and whether the highest logit is the label's, bool [M, B].

    tokens: int64 [M, B, L], of which the first `lengths` int64 [M, B] are real; labels: int64
    [M, B]. `dropped` is what dropout drops at its 1 + 2·blocks sites. With a `descent`, each model
    then takes a step of it down its mean loss: the parameters are changed in place, and must be
    contiguous. Raises ValueError where they are not, or not float32, and where a token or a label
    is beyond `size`.
    """
    models, batch, length = tokens.shape
    if tokens.max() > size.symbols or labels.max() >= size.classes:
        raise ValueError(f"a token or a label is beyond {size}")
    texts = [tensor.contiguous() for tensor in (tokens, lengths, labels)]
    names = _in_order(size)
    weights = [parameters[name] for name in names]
    if descent is None:
        weights = [tensor.contiguous() for tensor in weights]
    if any(tensor.dtype != torch.float32 or not tensor.is_contiguous() for tensor in weights):
        raise ValueError("parameters must be contiguous float32")
    by_name = {
        "losses": torch.empty(models, batch, dtype=torch.float32),
        "right": torch.empty(models, batch, dtype=torch.bool),
        "positions": _positions(length, size.width),
        **dict(zip(("tokens", "lengths", "labels"), texts, strict=True)),
        **_links(pattern, texts[1], length),
    }
    if dropped is not None:
        by_name |= {"dropped": dropped.positions, "starts": dropped.starts}
    addresses = (ctypes.c_void_p * len(weights))(*(tensor.data_ptr() for tensor in weights))
    asked = _Step(
        models=models,
        batch=batch,
        length=length,
        blocks=size.blocks,
        classes=size.classes,
        symbols=size.symbols + 1,  # padding is one
        threads=min(models, torch.get_num_threads()),
        sign=_BY_SCORE.get(pattern.name, 0.0),
        weights=ctypes.addressof(addresses),
        count=dropped.count if dropped is not None else 0,
        scale=dropped.scale if dropped is not None else 1.0,
        rate=descent.rate if descent is not None else 0.0,
        clip=descent.clip if descent is not None else 0.0,
        **{name: tensor.data_ptr() for name, tensor in by_name.items()},
    )
    library = _library()
    assert library is not None, "ask fused_serves first"
    library.crisp_encoder_step(ctypes.byref(asked))
    return by_name["losses"], by_name["right"]


def _in_order(size: EncoderSize) -> list[str]:
    """The names of the parameters as step.cc wants them."""
    parts = ("qkv", "out", "up", "down")
    layers = [f"{block}.{part}" for block in range(size.blocks) for part in parts]
    pairs = [(f"{layer}.weight", f"{layer}.bias") for layer in (*layers, "head")]
    return ["embedding", *(name for pair in pairs for name in pair)]


def _links(pattern: AttentionPattern, lengths: Tensor, length: int) -> dict[str, Tensor]:
    """How many links each row keeps: `kept`, int64 [M, B]. Or which: `links`, float [N, keys L,
    queries], 0 or -∞, and the place of each text in them, `which`, int64 [M, B]. Neither where all
    are kept."""
    if pattern.name == "dense":
        return {}
    distinct, which = lengths.unique(return_inverse=True)
    if pattern.name in _BY_SCORE:
        return {"kept": torch.tensor([pattern.kept(n) for n in distinct.tolist()])[which]}
    valid = torch.arange(length) < distinct[:, None]
    scores = torch.zeros(len(distinct), 1, length, length, dtype=torch.float32)
    kept = LINK_RULES[pattern.name](scores, valid, pattern).expand_as(scores)[:, 0]
    padded = -(-length // _LINE) * _LINE
    links = torch.zeros(len(distinct), length, padded, dtype=torch.float32)
    links[:, :, :length].masked_fill_(~kept.transpose(1, 2), -torch.inf)
    return {"links": links, "which": which}


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The built C++, or None where it cannot be built, which is said once."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        print("no C++ compiler: training by torch alone, which takes longer", file=sys.stderr)
        return None
    # Windows keeps a library that is in use.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "step.so"
        flags = _FLAGS if _amx_is_ours() else (*_FLAGS, "-DFUSED_WITHOUT_AMX")
        command = [compiler, *flags, "-o", str(file), str(_SOURCE)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            if built.returncode == 0:
                return ctypes.CDLL(str(file))
            reason = built.stderr
        except OSError as error:  # a folder from which nothing may be run, another C++ library
            reason = str(error)
    print(f"{reason}\n{_SOURCE} cannot be built: training by torch alone", file=sys.stderr)
    return None


def _amx_is_ours() -> bool:
    """Whether there is AMX and Linux lets this process use its tiles, which one has to ask for."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    arch_prctl, request, tiles = 158, 0x1023, 18  # ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return bool(ctypes.CDLL(None).syscall(arch_prctl, request, tiles) == 0)
