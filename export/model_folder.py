"""A finished run -> the model folder: graph, tokenizer and manifest, checked and measured.

The folder appears whole under its name, or not at all.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from transformers import DistilBertForSequenceClassification, PreTrainedTokenizerFast

from export.errors import ExportError
from export.gpu import suited
from export.graph import packed_graph
from export.half import to_half
from export.manifest import (
    DOMAIN,
    DOMAIN_VERSION,
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    DataFacts,
    Manifest,
    Measurement,
    ModelFolder,
    Operator,
    Precision,
    TrainingFacts,
    dump,
    facts_of,
)
from export.op_library import OpLibrary, find_op_library
from export.parity import disagreement, fp32_difference, onnx_logits
from export.quantize import quantize
from training.attention.registry import set_attention
from training.batches import Encodings
from training.config import DataRecord, RunRecord
from training.data import LabelledTexts
from training.finetune import encode
from training.model import load_checkpoint
from training.pattern import AttentionPattern
from training.pruned_model import prune_model, pruning_of
from training.pruning import TokenPruning
from training.run_data import held_out_texts
from training.statistics import wilson_interval

CALIBRATION_TEXTS = 2000  # about, on which int8 or fp16 is held against fp32


def export_run(
    run: Path,
    out: Path,
    *,
    precision: Precision = "int8",
    data: Sequence[str] = (),
    calibration: Sequence[str] = (),
    pattern: AttentionPattern | None = None,
    pruning: TokenPruning | None = None,
    replace: bool = False,
) -> Manifest:
    """Exports the run folder `run` to the model folder `out`, and returns its manifest.

    The accuracy is measured on the labelled sets `data`, by default those that the run was measured
    on. int8 and fp16 are held against fp32 on `calibration`, by default texts of the training data:
    equal shares of each set, CALIBRATION_TEXTS in all; their agreement on `data` is noted too.
    `pattern` and `pruning`, where given, take the place of those that the run was trained with.

    Raises RunError where `run` is not finished, DataError where the texts cannot be found any more,
    ParityError where the graph does not compute what the checkpoint computes, ExportError where
    `out` is taken.
    """
    name, out = out.name, out.resolve()  # a link stays one: what it names is written
    if out.exists() and not replace:
        raise ExportError(f"{out} exists; give another --out, or --replace")
    if out.exists() and not (out / MANIFEST_FILE).is_file():
        raise ExportError(f"{out} is no model folder, so --replace leaves it alone")
    record = RunRecord.load(run)
    measured = record.read(data, "validation") if data else held_out_texts(record)
    calibrated: list[LabelledTexts] = []
    if precision != "fp32":  # which needs none, and they may have gone since
        calibrated = record.read(calibration or record.settings.data, "train")
    model, tokenizer, trained = load_checkpoint(run)
    if pattern is not None:
        set_attention(model.config, pattern)
    if pruning is not None:
        prune_model(model, pruning)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        manifest = _build(
            building,
            name,
            model,
            tokenizer,
            pattern or trained,
            precision,
            record,
            measured,
            calibrated,
        )
        rights = (building / MANIFEST_FILE).stat().st_mode & 0o777  # as the user's umask has it
        building.chmod(rights | (rights & 0o444) >> 2)
        _move_into_place(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return manifest


def _build(
    folder: Path,
    name: str,
    model: DistilBertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    pattern: AttentionPattern,
    precision: Precision,
    record: RunRecord,
    measured: Sequence[LabelledTexts],
    calibration: Sequence[LabelledTexts],
) -> Manifest:
    limit = model.config.max_position_embeddings
    encoded = [encode(texts, tokenizer, limit) for texts in measured]
    pruning = pruning_of(model)
    graph = packed_graph(weights_of(model), model.config, pattern, pruning)
    file = folder / MODEL_FILE
    onnx.save(graph, file)
    parity = fp32_difference(file, model, pattern, len(tokenizer), limit)
    library = suited(find_op_library(), precision)
    if precision != "fp32":
        share = -(-CALIBRATION_TEXTS // len(calibration))
        some = [encode(_some(texts, share), tokenizer, limit) for texts in calibration]
        sample = [ids for encodings in some for ids in encodings.input_ids]
        held_out = [ids for encodings in encoded for ids in encodings.input_ids]
        expected = onnx_logits(file, sample + held_out, progress="fp32")
        onnx.save(quantize(graph) if precision == "int8" else to_half(graph), file)
        found = onnx_logits(
            file, sample + held_out, progress=precision, library=library, precision=precision
        )
        parity |= disagreement(expected, found, precision, calibration=len(sample))
    _save_tokenizer(tokenizer, folder / TOKENIZER_FILE)
    settings = record.settings
    manifest = Manifest(
        name=name,
        labels=record.label_names,
        max_tokens=limit,
        attention=pattern.to_dict(),
        pruning=None if pruning is None else pruning.to_dict(),
        precision=precision,
        parameters=sum(p.numel() for p in model.parameters()),
        trained=TrainingFacts(
            base_model=settings.base,
            data=tuple(_facts(entry) for entry in record.data),
            seed=settings.seed,
            settings={
                key: value
                for key, value in settings.to_dict().items()
                if key not in ("data", "dev", "base", "seed")
            },
        ),
        measured=tuple(
            _measure(file, precision, library, *pair)
            for pair in zip(measured, encoded, strict=True)
        ),
        parity=parity,
        operators=operators_of(graph),
        versions=record.versions
        | {"onnx": version("onnx"), "onnxruntime": onnxruntime.__version__},
        files={part: facts_of(folder / part) for part in (MODEL_FILE, TOKENIZER_FILE)},
    )
    (folder / MANIFEST_FILE).write_text(dump(manifest), encoding="utf-8")
    ModelFolder.load(folder)  # what we write, we can read
    return manifest


def weights_of(model: DistilBertForSequenceClassification) -> dict[str, NDArray[np.float32]]:
    """The parameters by name, float32."""
    return {name: tensor.float().cpu().numpy() for name, tensor in model.state_dict().items()}


def operators_of(graph: onnx.ModelProto) -> tuple[Operator, ...]:
    """Our operators in the graph, by name."""
    names = {node.op_type for node in graph.graph.node if node.domain == DOMAIN}
    return tuple(Operator(domain=DOMAIN, name=n, version=DOMAIN_VERSION) for n in sorted(names))


def _some(texts: LabelledTexts, count: int) -> LabelledTexts:
    """At most `count` of the texts, evenly spaced."""
    step = -(-len(texts) // count)
    return dataclasses.replace(texts, examples=texts.examples[::step])


def _measure(
    file: Path, precision: Precision, library: OpLibrary, texts: LabelledTexts, encodings: Encodings
) -> Measurement:
    logits = onnx_logits(
        file,
        encodings.input_ids,
        progress=f"accuracy on {texts.name}",
        library=library,
        precision=precision,
    )
    correct = int((logits.argmax(axis=1) == np.asarray(encodings.labels)).sum())
    interval = wilson_interval(correct, len(texts))
    return Measurement(
        data=_facts(DataRecord(texts.name, len(texts), texts.sha256)),
        accuracy=correct / len(texts),
        low=interval.low,
        high=interval.high,
    )


def _facts(record: DataRecord) -> DataFacts:
    return DataFacts(**dataclasses.asdict(record))


def _save_tokenizer(tokenizer: PreTrainedTokenizerFast, file: Path) -> None:
    compact = json.dumps(
        json.loads(tokenizer.backend_tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")
    )
    file.write_text(compact, encoding="utf-8")


def _move_into_place(building: Path, out: Path) -> None:
    if out.exists():
        old = Path(mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
        out.replace(old)
        try:
            building.replace(out)
        except BaseException:
            old.replace(out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        building.replace(out)
