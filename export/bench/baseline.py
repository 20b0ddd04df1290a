"""The same weights as stock ONNX Runtime serves them: what `crisp bench` measures against.

transformers exports them with dense attention and an attention mask, onnxruntime.transformers'
optimizer fuses the graph, and quantize_dynamic makes the int8 form of that. Tools and settings are
those that their documentation gives for BERT, so that the baseline is what a user would have
without this project. The optimizer can fuse an attention to either of two operators, and which is
faster depends on the batch: both are made.

    classifier = classifier_of_folder(folder)
    with TemporaryDirectory() as temporary:
        baseline = stock_graphs(classifier, Path(temporary))
        session = stock_session(baseline.fp32["Attention"], threads=2)
        session.run(["logits"], padded([[101, 2307, 102], [101, 102]]))
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import quantize_dynamic
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from transformers import DistilBertForSequenceClassification

from export.bench.weights import packed_config, packed_weights
from export.errors import ExportError, ModelFolderError, ParityError
from export.manifest import ModelFolder
from export.parity import FP32_TOLERANCE
from training.model import load_checkpoint
from training.narrow_model import classifier_class

OPSET = 17  # the first with LayerNormalization
FUSIONS = ("Attention", "MultiHeadAttention")  # what the optimizer may fuse an attention to
_CHECKED_LENGTHS = (1, 2, 7, 25, 64, 130)
_LONGEST_CHECKED = 512  # a padded batch of these with one of 4,096 would take gigabytes


@dataclass(frozen=True)
class Baseline:
    """Graphs `input_ids`, `attention_mask` int64 [B, S] -> `logits` float32 [B, C], by FUSIONS.

    `fused` counts the fused operators of each fp32 graph by name; the differences are the largest
    of a logit from torch, of all graphs of a precision.
    """

    fp32: dict[str, Path]
    int8: dict[str, Path]
    fused: dict[str, dict[str, int]]
    fp32_difference: float
    int8_difference: float


def classifier_of_run(run: Path) -> DistilBertForSequenceClassification:
    """The classifier of a run folder, with dense attention, whatever it was trained with.

    Raises RunError where the folder holds no finished run.
    """
    model, _, _ = load_checkpoint(run)
    model.set_attn_implementation("eager")
    return model


def classifier_of_folder(folder: ModelFolder) -> DistilBertForSequenceClassification:
    """The classifier of a model folder, with dense attention, read back from its graph.

    Raises ModelFolderError where the graph does not hold the parameters as `crisp export` does.
    """
    graph = onnx.load(folder.model)
    weights = packed_weights(graph)
    config = packed_config(graph, weights)
    config._attn_implementation = "eager"
    model = classifier_class(config)(config)
    differing = sorted(model.state_dict().keys() ^ weights.keys())
    if differing:
        raise ModelFolderError(
            f"cannot read the weights back from {folder.model}: {differing[0]} stands on one side "
            "alone; export it again, or give the run that it came from with --run"
        )
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    model.eval()
    return model


def stock_graphs(
    model: DistilBertForSequenceClassification,
    folder: Path,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Baseline:
    """Writes the graphs into `folder` and holds them against torch.

    `model` must have eager attention: only that is fused. Raises ExportError where an attention
    was not fused, ParityError where an fp32 graph differs from torch by more than 1e-4 (of the
    largest logit, where that exceeds 1).
    """
    traced = folder / "traced.onnx"
    fp32 = {fusion: folder / f"fp32-{fusion}.onnx" for fusion in FUSIONS}
    int8 = {fusion: folder / f"int8-{fusion}.onnx" for fusion in FUSIONS}
    fused: dict[str, dict[str, int]] = {}
    progress("exporting the baseline with transformers and torch")
    _trace(model, traced)
    for fusion in FUSIONS:
        progress(f"fusing it to {fusion} with onnxruntime.transformers.optimizer")
        fused[fusion] = _fuse(model, traced, fp32[fusion], fusion)
        progress(f"quantising it with quantize_dynamic, {fusion}")
        _quantize(fp32[fusion], int8[fusion])
    traced.unlink()
    progress("holding it against torch")
    return Baseline(
        fp32,
        int8,
        fused,
        max(difference_from_torch(model, f, allowed=FP32_TOLERANCE) for f in fp32.values()),
        max(difference_from_torch(model, f) for f in int8.values()),
    )


def difference_from_torch(
    model: DistilBertForSequenceClassification, file: Path, *, allowed: float | None = None
) -> float:
    """Largest absolute difference of a logit between torch and a stock graph, which gets texts of
    all lengths in one padded batch.

    Raises ParityError where it exceeds `allowed`, or `allowed` of the largest logit, if above 1.
    """
    sequences, expected = reference_logits(model)
    logits = stock_session(file).run(["logits"], padded(sequences))[0]
    difference = float(np.abs(logits - expected).max())
    limit = np.inf if allowed is None else allowed * max(1.0, float(np.abs(expected).max()))
    # `not <=` rather than `>`, so that NaN is refused too.
    if not difference <= limit:
        raise ParityError(
            f"the baseline differs from torch by {difference:.1e} (allowed: {limit:.1e}); it would "
            "be no fair measure: install the versions of constraints.txt"
        )
    return difference


def stock_session(
    file: Path, *, threads: int | None = None, profile: Path | None = None
) -> onnxruntime.InferenceSession:
    """A session with ONNX Runtime's default options, but for the number of threads, and without
    spinning: as in `export.op_library.make_session`, so that both sides wait alike and an idle
    session leaves the cores to the one that runs. `profile` as there."""
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def padded(sequences: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int64]]:
    """`input_ids` and `attention_mask` int64 [B, S], padded to the longest of the batch."""
    lengths = np.array([len(ids) for ids in sequences])
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    input_ids = np.zeros(mask.shape, np.int64)
    input_ids[mask] = np.concatenate([np.asarray(ids, np.int64) for ids in sequences])
    return {"input_ids": input_ids, "attention_mask": mask.astype(np.int64)}


def reference_logits(
    model: DistilBertForSequenceClassification,
) -> tuple[list[list[int]], NDArray[np.float32]]:
    """Sequences of random tokens, of lengths up to the model's limit or 512, and torch's logits
    [N, C], each computed alone: the padding of the batch must not show."""
    random = np.random.default_rng(0)
    config = model.config
    limit = min(config.max_position_embeddings, _LONGEST_CHECKED)
    lengths = [length for length in _CHECKED_LENGTHS if length < limit] + [limit]
    sequences = [random.integers(0, config.vocab_size, length).tolist() for length in lengths]
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([ids])).logits[0].numpy() for ids in sequences]
    return sequences, np.stack(logits)


class Logits(nn.Module):
    """The classifier with tensors in and out, as the tracer wants them."""

    def __init__(self, model: DistilBertForSequenceClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def _trace(model: DistilBertForSequenceClassification, file: Path) -> None:
    example = padded([[1] * 7, [1] * 5])
    tensors = {name: torch.from_numpy(array) for name, array in example.items()}
    with warnings.catch_warnings(), torch.inference_mode():
        # The tracing exporter is deprecated, but its graph is the one that the optimizer knows.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.onnx|export")
        warnings.filterwarnings("ignore", category=TracerWarning)
        warnings.filterwarnings("ignore", "Exporting aten::index", category=UserWarning)
        torch.onnx.export(
            Logits(model).eval(),
            tuple(tensors.values()),
            str(file),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(tensors),
            output_names=["logits"],
            dynamic_axes={
                "input_ids": {0: "batch", 1: "tokens"},
                "attention_mask": {0: "batch", 1: "tokens"},
                "logits": {0: "batch"},
            },
        )


def fused_for_gpu(model: DistilBertForSequenceClassification, file: Path) -> Path:
    """Writes the stock graph as GPUs want it, fused to Attention and in fp16 but for its inputs and
    outputs, to `file`. `model` and what is raised as in `stock_graphs`."""
    traced = file.with_suffix(".traced.onnx")
    _trace(model, traced)
    optimized, _ = _optimized(model, traced, FUSIONS[0])
    optimized.convert_float_to_float16(keep_io_types=True)
    optimized.save_model_to_file(str(file))
    traced.unlink()
    return file


def _fuse(
    model: DistilBertForSequenceClassification, source: Path, target: Path, fusion: str
) -> dict[str, int]:
    optimized, fused = _optimized(model, source, fusion)
    optimized.save_model_to_file(str(target))
    return fused


def _optimized(
    model: DistilBertForSequenceClassification, source: Path, fusion: str
) -> tuple[Any, dict[str, int]]:
    """ONNX Runtime's own model of the fused graph, and how often what was fused."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    config = model.config
    options = FusionOptions("bert")
    options.use_multi_head_attention = fusion == "MultiHeadAttention"
    optimized = optimizer.optimize_model(
        str(source),
        model_type="bert",
        num_heads=config.n_heads,
        hidden_size=config.dim,
        optimization_options=options,
    )
    fused = {
        name: int(count)
        for name, count in optimized.get_fused_operator_statistics().items()
        if count
    }
    attentions = fused.get(fusion, 0)
    if attentions != config.n_layers:
        raise ExportError(
            f"onnxruntime {onnxruntime.__version__} fused {attentions} of {config.n_layers} "
            f"attentions of the baseline that torch {torch.__version__} exported; without them it "
            "is no fair measure: install the versions of constraints.txt"
        )
    return optimized, fused


@contextmanager
def _without_preprocessing_advice() -> Iterator[None]:
    """Silences what quantize_dynamic logs about pre-processing: these graphs need none."""

    def other(record: logging.LogRecord) -> bool:
        return "pre-process" not in record.getMessage()

    logger = logging.getLogger()
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def _quantize(source: Path, target: Path) -> None:
    with _without_preprocessing_advice():
        # The type of tensors behind the fused operators, which the quantiser does not know.
        extra = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        quantize_dynamic(source, target, extra_options=extra)
