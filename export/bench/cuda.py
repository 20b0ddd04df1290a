"""`crisp bench --device cuda`: the engine on a GPU against stock ONNX Runtime, torch and, where it
is installed, flash attention, all in fp16 with the same weights.

Contenders take turns on every batch, as on the CPU (`export.bench.measure`); a time is that of a
whole call, from token ids in host memory to logits in host memory, between two synchronisations of
the GPU. It has not run on a GPU yet: docs/gpu.md.
"""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from transformers import DistilBertForSequenceClassification

from export.bench.baseline import classifier_of_folder, fused_for_gpu, padded
from export.bench.contenders import names_of, runner_of
from export.bench.measure import Contender, Rounds, measure
from export.bench.positions import extend_positions
from export.bench.workloads import Batch, Workload, longest
from export.graph import packed_graph
from export.half import to_half
from export.manifest import ModelFolder
from export.model_folder import weights_of
from export.op_library import OpLibrary, make_session
from export.packing import pack
from training.files import write_atomically
from training.machine import environment
from training.pattern import AttentionPattern
from training.pruning import TokenPruning
from training.statistics import ratio_of_medians

STOCK = "stock onnxruntime fp16"


def measured(
    folders: Sequence[ModelFolder],
    workloads: Sequence[Workload],
    *,
    library: OpLibrary,
    seconds: float,
    rounds: int | None,
    seed: int,
) -> dict[str, Rounds]:
    """The rounds of each workload, by its name, on a GPU; arguments as those of `measure`."""
    with TemporaryDirectory(prefix="crisp-bench-") as temporary:
        return measure(
            contenders(folders, Path(temporary), library=library, positions=longest(workloads)),
            workloads,
            vocabulary=vocabulary_of(folders[0]),
            seconds=seconds,
            rounds=rounds,
            seed=seed,
            clock=synchronised_clock,
        )


def deliver(rounds: Mapping[str, Rounds], output: Path | None, *, to_stdout: bool) -> None:
    """Writes the JSON where it was asked for, and prints the table."""
    text = document(rounds, environment())
    try:
        if output is not None:
            write_atomically(output, text)
    finally:  # a disk may be full
        Console(stderr=to_stdout, markup=False, emoji=False).print(table(rounds))
        if to_stdout:
            print(text, end="")


def contenders(
    folders: Sequence[ModelFolder],
    temporary: Path,
    *,
    library: OpLibrary,
    positions: int,
    device: str = "cuda",
) -> list[Contender]:
    """Stock ONNX Runtime first, then torch, then the engine on each folder's weights, pattern and
    schedule in fp16, whatever precision the folder has. The position tables are repeated to as many
    `positions` as the longest text has tokens. `device` cpu is for tests: all runs there too.
    """
    source = next((f for f in folders if f.manifest.attention["name"] == "dense"), folders[0])
    model = _classifier(source, positions)
    found = [_stock(model, temporary, device), _torch(model, "sdpa", device)]
    if importlib.util.find_spec("flash_attn") is not None and device == "cuda":
        found.append(_torch(model, "flash_attention_2", device))
    for name, folder in zip(names_of(folders), folders, strict=True):
        file = temporary / f"engine-{len(found)}-fp16.onnx"
        found.append(_engine(name, folder, file, library, positions))
    return found


def vocabulary_of(folder: ModelFolder) -> int:
    """Words that the model of `folder` knows."""
    return int(classifier_of_folder(folder).config.vocab_size)


def synchronised_clock() -> float:
    """Seconds, when all that was asked of the GPU is done."""
    torch.cuda.synchronize()
    return perf_counter()


def table(rounds: Mapping[str, Rounds]) -> Table:
    """Milliseconds of a batch, and how many times faster than stock ONNX Runtime each is."""
    result = Table("workload", "contender", "ms", "speed-up", "95 % interval", "n")
    for workload, found in rounds.items():
        for name, times in found.times_ms.items():
            ratio = ratio_of_medians(found.times_ms[STOCK], times)
            result.add_row(
                workload,
                name,
                f"{median(times):.2f}",
                f"{ratio.value:.2f}",
                f"{ratio.low:.2f} to {ratio.high:.2f}",
                str(len(times)),
            )
        for name, error in found.errors.items():
            result.add_row(workload, name, error)
    return result


def document(rounds: Mapping[str, Rounds], machine: Mapping[str, Any]) -> str:
    """Every time, as JSON, and on what it was measured."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    facts = {"gpu": gpu, "torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    content = {
        "environment": {**machine, **facts},
        "rounds": {name: asdict(found) for name, found in rounds.items()},
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _classifier(folder: ModelFolder, positions: int) -> DistilBertForSequenceClassification:
    model = classifier_of_folder(folder)
    if positions > model.config.max_position_embeddings:
        extend_positions(model, positions)
    return model


def _stock(model: DistilBertForSequenceClassification, temporary: Path, device: str) -> Contender:
    file = fused_for_gpu(model, temporary / "stock-fp16.onnx")
    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    session = onnxruntime.InferenceSession(str(file), providers=[provider])
    return Contender(STOCK, padded, runner_of(session))


def _torch(model: DistilBertForSequenceClassification, attention: str, device: str) -> Contender:
    half = copy.deepcopy(model).eval().to(device, torch.float16)
    half.set_attn_implementation(attention)

    def prepare(batch: Batch) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in padded(batch).items()}

    def run(inputs: dict[str, torch.Tensor]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits = half(**{name: tensor.to(device) for name, tensor in inputs.items()}).logits
            result: NDArray[np.float32] = logits.float().cpu().numpy()
        return result

    return Contender(f"torch {attention} fp16", prepare, run)


def _engine(
    name: str, folder: ModelFolder, file: Path, library: OpLibrary, positions: int
) -> Contender:
    manifest = folder.manifest
    model = _classifier(folder, positions)
    pruning = None if manifest.pruning is None else TokenPruning.from_dict(manifest.pruning)
    pattern = AttentionPattern.from_dict(dict(manifest.attention))
    graph = to_half(packed_graph(weights_of(model), model.config, pattern, pruning))
    onnx.save(graph, file)
    session = make_session(file, library=library)
    return Contender(f"crisp {name} fp16", pack, runner_of(session))
