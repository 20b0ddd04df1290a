"""What saturation and calibrated activation scales do to the labels of an int8 model.

Rewrites the graph of an int8 model folder and counts, over labelled texts:

    stored              u8 activations by s8 weights, scales found on every call
    unsaturated         the same weights as u8, whose kernels hold every sum: the same function of
                        the same numbers, so any difference is saturation
    7-bit weights       rounded once more, to -64 ... 64: no two products can saturate, at no cost
                        in time
    static              activation scales from the extremes over calibration texts
    static mean         from the mean over those texts of each one's extremes: cuts outliers off
    ... unsaturated     the same with u8 weights

With VNNI no sum saturates, and `stored` equals `unsaturated`.

    .venv/bin/python export/ops/bench/int8_accuracy.py service/models/dense \\
        --data sst2/dev.tsv --calibration sst2/train.tsv
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from tokenizers import Tokenizer

from export.manifest import MODEL_FILE, TOKENIZER_FILE
from export.op_library import make_session
from export.packing import pack
from export.parity import onnx_logits
from training.data import read_examples
from training.files import write_atomically
from training.statistics import wilson_interval

Extremes = dict[str, tuple[float, float]]  # of each tensor that is quantised


def unsigned_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which s8 weights of MatMulInteger, and their zero points, are u8, 128 higher."""
    result = _copy(model)
    names = {
        name for n in result.graph.node if n.op_type == "MatMulInteger" for name in n.input[1::2]
    }
    for tensor in result.graph.initializer:
        if tensor.name in names and tensor.data_type == onnx.TensorProto.INT8:
            values = numpy_helper.to_array(tensor).astype(np.int16) + 128
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.uint8), tensor.name))
    return result


def seven_bit_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which the s8 weights of MatMulInteger, -127 ... 127, are cut to -64 ... 64."""
    result = _copy(model)
    weights = {n.input[1] for n in result.graph.node if n.op_type == "MatMulInteger"}
    scales = {name.replace("_quantized", "_scale") for name in weights}
    for tensor in result.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name in weights:
            cut = np.rint(values.astype(np.float32) * (64 / 127)).astype(np.int8)
            tensor.CopyFrom(numpy_helper.from_array(cut, tensor.name))
        elif tensor.name in scales:
            wider = (values * np.float32(127 / 64)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wider, tensor.name))
    return result


def extremes(
    model: onnx.ModelProto, folder: Path, sequences: Sequence[Sequence[int]]
) -> dict[str, NDArray[np.float64]]:
    """Smallest and largest value [N, 2] that each input of DynamicQuantizeLinear takes in each
    text. Writes into `folder`."""
    probed = _copy(model)
    inputs = sorted({n.input[0] for n in probed.graph.node if n.op_type == "DynamicQuantizeLinear"})
    wanted = [f"{name}.{end}" for name in inputs for end in ("min", "max")]
    for name in inputs:
        for end, operator in (("min", "ReduceMin"), ("max", "ReduceMax")):
            node = helper.make_node(operator, [name], [f"{name}.{end}"], keepdims=0)
            probed.graph.node.append(node)
            probed.graph.output.append(
                helper.make_tensor_value_info(f"{name}.{end}", onnx.TensorProto.FLOAT, [])
            )
    file = folder / "probed.onnx"
    onnx.save(probed, file)
    session = make_session(file)
    found = np.array([session.run(wanted, pack([ids])) for ids in sequences], np.float64)
    return {name: found[:, 2 * i : 2 * i + 2] for i, name in enumerate(inputs)}


def static_scales(model: onnx.ModelProto, limits: Extremes) -> onnx.ModelProto:
    """A copy that quantises activations by the scales that cover `limits`, and zero."""
    result = _copy(model)
    for node in result.graph.node:
        if node.op_type != "DynamicQuantizeLinear":
            continue
        low, high = min(0.0, limits[node.input[0]][0]), max(0.0, limits[node.input[0]][1])
        scale = np.array((high - low) / 255 or 1, np.float32)
        zero = np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8)
        output, scale_name, zero_name = node.output
        result.graph.initializer.append(numpy_helper.from_array(scale, scale_name))
        result.graph.initializer.append(numpy_helper.from_array(zero, zero_name))
        node.CopyFrom(
            helper.make_node(
                "QuantizeLinear", [node.input[0], scale_name, zero_name], [output], node.name
            )
        )
    return result


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def main(
    folder: Annotated[Path, typer.Argument(help="An int8 model folder.", exists=True)],
    data: Annotated[list[str], typer.Option(help="Labelled texts; several times for several.")],
    calibration: Annotated[list[str], typer.Option(help="Texts to take the static scales from.")],
    calibration_texts: Annotated[int, typer.Option(min=1, help="Of each, drawn at random.")] = 100,
    json_file: Annotated[Path | None, typer.Option("--json", help="Save everything there.")] = None,
) -> None:
    """What saturation and calibrated activation scales do to the labels of an int8 model."""
    manifest = json.loads((folder / "manifest.json").read_text())
    labels = tuple(manifest["labels"])
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    tokenizer.no_padding()
    tokenizer.enable_truncation(manifest["max_tokens"])

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]

    model = onnx.load(folder / MODEL_FILE)
    random = np.random.default_rng(0)
    sample: list[str] = []
    for source in calibration:
        texts = [example.text for example in read_examples(source).examples]
        sample += list(random.choice(texts, min(calibration_texts, len(texts)), replace=False))
    results: list[dict[str, Any]] = []
    with TemporaryDirectory() as temporary:
        found = extremes(model, Path(temporary), encode(sample))
        widest = {name: (float(e[:, 0].min()), float(e[:, 1].max())) for name, e in found.items()}
        mean = {name: (float(e[:, 0].mean()), float(e[:, 1].mean())) for name, e in found.items()}
        forms = {
            "unsaturated": unsigned_weights(model),
            "stored": model,
            "7-bit weights": seven_bit_weights(model),
            "static": static_scales(model, widest),
            "static mean": static_scales(model, mean),
            "static, 7-bit weights": seven_bit_weights(static_scales(model, widest)),
            "static unsaturated": unsigned_weights(static_scales(model, widest)),
            "static mean unsaturated": unsigned_weights(static_scales(model, mean)),
        }
        for source in data:
            examples = read_examples(source, label_names=labels).examples
            expected = np.array([example.label for example in examples])
            sequences = encode([example.text for example in examples])
            exact: NDArray[np.float32] | None = None
            for name, form in forms.items():
                file = Path(temporary, "form.onnx")
                onnx.save(form, file)
                logits = onnx_logits(file, sequences)
                exact = logits if exact is None else exact
                right = int((logits.argmax(axis=1) == expected).sum())
                interval = wilson_interval(right, len(expected))
                changed = int((logits.argmax(axis=1) != exact.argmax(axis=1)).sum())
                moved = float(np.abs(logits - exact).mean())
                results.append(
                    {"data": source, "form": name, "n": len(expected), "correct": right}
                    | {
                        "low": interval.low,
                        "high": interval.high,
                        "labels_changed": changed,
                        "logit_moved": moved,
                    }
                )
                print(
                    f"{source}  {name:24} n = {len(expected)}"
                    f"  {100 * right / len(expected):.2f} % ({100 * interval.low:.2f} to"
                    f" {100 * interval.high:.2f})"
                    f"  labels unlike unsaturated: {changed}, logits by {moved:.4f} on average",
                    flush=True,
                )
    if json_file is not None:
        record = {"model": str(folder), "results": results}
        write_atomically(json_file, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
