"""Who runs in `crisp bench`: stock ONNX Runtime, fp32 and int8, and the engine on each model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
from transformers import DistilBertForSequenceClassification

from export.bench.baseline import (
    classifier_of_folder,
    classifier_of_run,
    padded,
    reference_logits,
    stock_graphs,
    stock_session,
)
from export.bench.measure import Contender
from export.errors import ExportError
from export.manifest import ModelFolder
from export.op_library import OpLibrary, make_session
from export.packing import pack

STOCK_FP32, STOCK_INT8 = "stock fp32", "stock int8"


@dataclass(frozen=True)
class LineUp:
    """The contenders, what each of them is by its name, how the baseline came to be, and the size
    of the vocabulary. The reference, stock fp32, is the first."""

    contenders: tuple[Contender, ...]
    facts: dict[str, dict[str, Any]]
    baseline: dict[str, Any]
    vocabulary: int


def line_up(
    folders: Sequence[ModelFolder],
    run: Path | None,
    *,
    threads: int,
    library: OpLibrary,
    progress: Callable[[str], None] = lambda _: None,
) -> LineUp:
    """Opens a session for each; the stock ones have the weights of `run` or, without it, of the
    first folder with dense attention (else of the first). Times depend on the shape of the weights
    alone, so the others are held against these too.

    Raises ExportError where a folder holds another number of weights than the baseline, and what
    `export.bench.baseline` raises.
    """
    source = next((f for f in folders if _pattern(f) == "dense"), folders[0])
    progress("reading the weights")
    model = classifier_of_folder(source) if run is None else classifier_of_run(run)
    origin = source.shown if run is None else str(run)
    _check_sizes(folders, model, origin)
    contenders: list[Contender] = []
    facts: dict[str, dict[str, Any]] = {}
    with TemporaryDirectory(prefix="crisp-bench-") as temporary:
        baseline = stock_graphs(model, Path(temporary), progress=progress)
        for name, file in ((STOCK_FP32, baseline.fp32), (STOCK_INT8, baseline.int8)):
            session = stock_session(file, threads=threads)
            contenders.append(Contender(name, padded, _runner(session)))
            facts[name] = {
                "kind": "stock",
                "attention": {"name": "dense"},
                "precision": file.stem,
                "weights": origin,
                "bytes": file.stat().st_size,
            }
    for name, folder in zip(_names(folders), folders, strict=True):
        progress(f"opening {name}")
        session = make_session(folder.model, threads=threads, library=library)
        contenders.append(Contender(name, pack, _runner(session)))
        manifest = folder.manifest
        facts[name] = {
            "kind": "engine",
            "attention": dict(manifest.attention),
            "precision": manifest.precision,
            "weights": folder.shown,
            "bytes": manifest.files[folder.model.name].bytes,
            "sha256": manifest.files[folder.model.name].sha256,
        }
        if folder is source and run is None and _pattern(folder) == "dense":
            # The same weights and the same attention: what is left is int8 and rounding.
            sequences, expected = reference_logits(model)
            logits = session.run(["logits"], pack(sequences))[0]
            facts[name]["largest_difference_from_torch"] = float(np.abs(logits - expected).max())
    return LineUp(
        tuple(contenders),
        facts,
        {
            "weights": origin,
            "fused": baseline.fused,
            "fp32_largest_difference_from_torch": baseline.fp32_difference,
            "int8_largest_difference_from_torch": baseline.int8_difference,
        },
        model.config.vocab_size,
    )


def _runner(session: onnxruntime.InferenceSession) -> Callable[[Any], object]:
    def run(inputs: Any) -> object:
        return session.run(["logits"], inputs)

    return run


def _pattern(folder: ModelFolder) -> str:
    return str(folder.manifest.attention["name"])


def _names(folders: Sequence[ModelFolder]) -> list[str]:
    """The folders' names, or their paths where two bear the same, or that of the baseline."""
    names = [folder.path.resolve().name for folder in folders]
    taken = {STOCK_FP32, STOCK_INT8, *(name for name in names if names.count(name) > 1)}
    return [
        str(folder.path) if name in taken else name
        for name, folder in zip(names, folders, strict=True)
    ]


def _check_sizes(
    folders: Sequence[ModelFolder], model: DistilBertForSequenceClassification, origin: str
) -> None:
    size = sum(parameter.numel() for parameter in model.parameters())
    for folder in folders:
        if folder.manifest.parameters != size:
            raise ExportError(
                f"{folder.path} holds {folder.manifest.parameters:,} weights and {origin}, which "
                f"the baseline is made of, {size:,}: their ratio would compare architectures; "
                "measure models of one architecture at a time"
            )
