"""The same weights in OpenVINO: fp32, and int8 by NNCF's post-training quantisation.

Settings are those that their documentation advises for latency on a CPU: the model converted from
torch with its scaled-dot-product attention, which OpenVINO fuses; the LATENCY hint; as many threads
as the others; fp32 arithmetic where the model is fp32, and beside int8 what OpenVINO chooses,
bfloat16 on processors that multiply in it. Threads are not bound to cores, since those of the
others aren't: on a machine that is not quite idle, bound ones wait for a taken core. NNCF gets
`model_type` TRANSFORMER, its default preset for it (symmetric weights, asymmetric activations,
SmoothQuant), and real texts. Shapes are dynamic: OpenVINO compiles for each shape that it meets and
keeps that, so a shape is run once, untimed, before its first timed run, as in a service that has
been up for a while.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DistilBertForSequenceClassification

from export.bench.baseline import Logits, padded, reference_logits
from export.bench.measure import Contender
from export.bench.memory import score_bytes
from export.bench.workloads import Batch
from export.errors import ParityError
from export.parity import FP32_TOLERANCE

FP32, INT8 = "openvino fp32", "openvino int8"

Entry = tuple[Contender, dict[str, Any]]


def openvino_entries(
    model: DistilBertForSequenceClassification,
    *,
    threads: int,
    calibration: Callable[[], tuple[Sequence[list[int]], str]],
    progress: Callable[[str], None] = lambda _: None,
) -> list[Entry]:
    """OpenVINO in fp32 and, where NNCF is installed, in int8, with the facts of each.

    `calibration()` gives token ids and where they come from. Raises ParityError where the fp32
    model differs from torch by more than 1e-4 of the largest logit, or of 1.
    """
    progress("converting the model to OpenVINO")
    converted = _converted(model)
    settings = {"openvino": version("openvino"), "threads": threads, "hint": "LATENCY"}
    fp32 = _entry(FP32, converted, model, threads)
    expected = reference_logits(model)[1]
    allowed = FP32_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not fp32[1]["largest_difference_from_torch"] <= allowed:
        raise ParityError(
            f"OpenVINO {version('openvino')} fp32 differs from torch by "
            f"{fp32[1]['largest_difference_from_torch']:.1e} (allowed: {allowed:.1e}); it would be "
            "no fair peer: install the versions of constraints.txt, or leave it out with --peers"
        )
    entries = [fp32]
    if find_spec("nncf") is not None:
        progress("quantising it with NNCF")
        texts, origin = calibration()
        quantized = _quantized(converted, texts)
        entry = _entry(INT8, quantized, model, threads)
        entry[1].update(nncf=version("nncf"), calibration=origin)
        entries.append(entry)
    for _, facts in entries:
        facts.update(settings)
    return entries


def save_int8(
    model: DistilBertForSequenceClassification, texts: Sequence[list[int]], file: Path
) -> None:
    """Writes the int8 model, calibrated on `texts` (token ids), as OpenVINO's own format."""
    quantized = _quantized(_converted(model), texts)
    with _quiet():
        import openvino

        openvino.save_model(quantized, file)


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """Both tools report their use over the network, unless they see that they run in a test."""
    switches = {"CI": "true", "NNCF_CI": "1"}
    before = {name: os.environ.get(name) for name in switches}
    os.environ.update(switches)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither warnings of the tracer nor NNCF's progress bars, which go to standard output."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        _without_telemetry(),
    ):
        warnings.simplefilter("ignore")
        yield


def _converted(model: DistilBertForSequenceClassification) -> Any:
    with _quiet(), torch.inference_mode():
        import openvino

        fused = copy.deepcopy(model)
        fused.set_attn_implementation("sdpa")
        example = {name: torch.from_numpy(a) for name, a in padded([[1] * 7, [1] * 5]).items()}
        return openvino.convert_model(Logits(fused).eval(), example_input=tuple(example.values()))


def _quantized(converted: Any, texts: Sequence[list[int]]) -> Any:
    with _quiet():
        import nncf

        # not nncf.set_log_level, which sets the level of the handlers of others too
        logging.getLogger("nncf").setLevel(logging.ERROR)
        samples = [tuple(padded([ids]).values()) for ids in texts]
        return nncf.quantize(
            converted,
            nncf.Dataset(samples),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(samples),
        )


def _entry(
    name: str, converted: Any, model: DistilBertForSequenceClassification, threads: int
) -> Entry:
    import openvino

    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    if name == FP32:  # int8 is left to its default, as our own models beside int8 weights are
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    request = compiled.create_infer_request()
    met: set[tuple[int, ...]] = set()

    def run(inputs: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = request.infer(inputs, share_inputs=True)[0].copy()
        return logits

    def prepare(batch: Batch) -> list[NDArray[np.int64]]:
        inputs = list(padded(batch).values())
        if inputs[0].shape not in met:
            run(inputs)
            met.add(inputs[0].shape)
        return inputs

    sequences, expected = reference_logits(model)
    heads = model.config.n_heads
    facts = {
        "kind": "peer",
        "attention": {"name": "dense"},
        "precision": name.split()[-1],
        "inference_precision": str(compiled.get_property("INFERENCE_PRECISION_HINT")),
        "largest_difference_from_torch": float(np.abs(run(prepare(sequences)) - expected).max()),
    }
    return Contender(name, prepare, run, needs=lambda batch: score_bytes(batch, heads)), facts
