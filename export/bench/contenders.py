"""Who runs in `crisp bench`: stock ONNX Runtime, fp32 and int8, its peers, and the engine on each
model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from transformers import DistilBertForSequenceClassification

from export.bench.baseline import (
    Baseline,
    classifier_of_folder,
    classifier_of_run,
    padded,
    reference_logits,
    stock_graphs,
    stock_session,
)
from export.bench.measure import Contender
from export.bench.memory import fallback_bytes, score_bytes
from export.bench.peers import peer_entries
from export.bench.positions import extend_positions, extended_folder
from export.bench.roofline import Architecture
from export.bench.texts import calibration_texts, encoder
from export.errors import ExportError
from export.gpu import suited
from export.manifest import ModelFolder
from export.op_library import OpLibrary, make_session
from export.packing import pack
from training.data import LabelledTexts

STOCK_FP32, STOCK_INT8 = "stock fp32", "stock int8"


@dataclass(frozen=True)
class LineUp:
    """The contenders, what each of them is by its name, how the baseline came to be, and the
    architecture that all share. The reference, stock fp32, comes first. `missing` has a line for
    each peer that is not installed."""

    contenders: tuple[Contender, ...]
    facts: dict[str, dict[str, Any]]
    baseline: dict[str, Any]
    architecture: Architecture
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """`run` gives the weights of the baseline instead of a folder; `longest` is the longest text;
    `temporary` a folder to write into that outlives the contenders; `calibration` as in
    `export.bench.texts.calibration_texts`."""

    threads: int
    library: OpLibrary
    longest: int
    temporary: Path
    run: Path | None = None
    peers: Sequence[str] = ()
    calibration: Sequence[LabelledTexts] = ()
    progress: Callable[[str], None] = field(default=lambda _: None)


def line_up(folders: Sequence[ModelFolder], options: Options) -> LineUp:
    """Opens a session for each; the stock ones and the peers have the weights of the run or,
    without it, of the first folder with dense attention (else of the first). Times depend on the
    shape of the weights alone, so the others are held against these too.

    Where texts are longer than a model takes, all have their position table repeated, on every
    workload. Raises ExportError where a folder holds another number of weights than the baseline,
    and what `export.bench.baseline` raises.
    """
    progress = options.progress
    source = next((f for f in folders if _pattern(f) == "dense"), folders[0])
    progress("reading the weights")
    if options.run is None:
        model, origin = classifier_of_folder(source), source.shown
    else:
        model, origin = classifier_of_run(options.run), str(options.run)
    _check_sizes(folders, model, origin)
    positions = model.config.max_position_embeddings
    if options.longest > positions:
        extend_positions(model, options.longest)
    baseline = stock_graphs(model, options.temporary, progress=progress)
    contenders: list[Contender] = []
    facts: dict[str, dict[str, Any]] = {}

    def enter(contender: Contender, found: dict[str, Any]) -> None:
        contenders.append(contender)
        facts.setdefault(contender.name, found)

    for name, files in ((STOCK_FP32, baseline.fp32), (STOCK_INT8, baseline.int8)):
        found = _stock_facts(name, files, origin, positions, options)
        for fusion, file in files.items():
            enter(_stock(name, fusion, file, model.config.n_heads, options), found)
    peers, missing = peer_entries(
        options.peers,
        model,
        threads=options.threads,
        calibration=lambda: calibration_texts(encoder(source), options.calibration),
        progress=progress,
    )
    for contender, found in peers:
        enter(contender, {**found, "weights": origin, **_position_facts(positions, options)})
    for name, folder in zip(names_of(folders, facts), folders, strict=True):
        progress(f"opening {name}")
        # The same weights and the same attention: what is left is int8 and rounding.
        same = folder is source and options.run is None and _pattern(folder) == "dense"
        enter(*_engine(name, folder, model.config.n_heads, model if same else None, options))
    return LineUp(
        tuple(contenders),
        facts,
        _baseline_facts(baseline, origin),
        Architecture.of(model.config),
        tuple(missing),
    )


def _stock(name: str, fusion: str, file: Path, num_heads: int, options: Options) -> Contender:
    session = partial(stock_session, file, threads=options.threads)
    return Contender(
        name,
        padded,
        runner_of(session()),
        way=fusion,
        needs=lambda batch: score_bytes(batch, num_heads),
        profiled=lambda prefix: session(profile=prefix),
    )


def _stock_facts(
    name: str, files: dict[str, Path], origin: str, positions: int, options: Options
) -> dict[str, Any]:
    return {
        "kind": "stock",
        "attention": {"name": "dense"},
        "precision": name.split()[-1],
        "weights": origin,
        "bytes": max(file.stat().st_size for file in files.values()),
        **_position_facts(positions, options),
    }


def _engine(
    name: str,
    folder: ModelFolder,
    num_heads: int,
    same: DistilBertForSequenceClassification | None,
    options: Options,
) -> tuple[Contender, dict[str, Any]]:
    """The engine on `folder`, held against the torch model `same`, if any."""
    manifest = folder.manifest
    library = suited(options.library, manifest.precision)
    file = manifest.files[folder.model.name]
    facts = {
        "kind": "engine",
        "attention": dict(manifest.attention),
        "pruning": manifest.pruning,
        "precision": manifest.precision,
        "weights": folder.shown,
        "bytes": file.bytes,
        "sha256": file.sha256,
        "accuracy": [
            {**found.model_dump(exclude={"data"}), **found.data.model_dump(), "from": "manifest"}
            for found in manifest.measured
        ],
        **_position_facts(manifest.max_tokens, options),
    }
    if options.library.available and not library.available:
        facts["fallback"] = library.reason
    measured = folder
    if options.longest > manifest.max_tokens:
        place = Path(mkdtemp(prefix="engine-", dir=options.temporary))
        measured = extended_folder(folder, place / manifest.name, options.longest)
    session = partial(
        make_session,
        measured.model,
        threads=options.threads,
        library=library,
        precision=manifest.precision,
    )
    run = runner_of(session())
    if same is not None:
        sequences, expected = reference_logits(same)
        difference = float(np.abs(run(pack(sequences)) - expected).max())
        facts["largest_difference_from_torch"] = difference
    contender = Contender(
        name,
        pack,
        run,
        needs=lambda batch: 0 if library.available else fallback_bytes(batch, num_heads),
        profiled=lambda prefix: session(profile=prefix),
    )
    return contender, facts


def _position_facts(positions: int, options: Options) -> dict[str, Any]:
    if options.longest <= positions:
        return {"positions": positions}
    return {"positions": options.longest, "positions_repeated_from": positions}


def _baseline_facts(baseline: Baseline, origin: str) -> dict[str, Any]:
    return {
        "weights": origin,
        "fused": baseline.fused,
        "fp32_largest_difference_from_torch": baseline.fp32_difference,
        "int8_largest_difference_from_torch": baseline.int8_difference,
    }


def runner_of(session: InferenceSession) -> Callable[[Any], NDArray[np.float32]]:
    """What runs prepared inputs: the logits, float32 [B, C]."""

    def run(inputs: Any) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(["logits"], inputs)[0]
        return logits

    return run


def _pattern(folder: ModelFolder) -> str:
    return str(folder.manifest.attention["name"])


def names_of(folders: Sequence[ModelFolder], others: Collection[str] = ()) -> list[str]:
    """The folders' names, or their paths where two bear the same, or that of another contender."""
    names = [folder.path.resolve().name for folder in folders]
    taken = {*others, *(name for name in names if names.count(name) > 1)}
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
