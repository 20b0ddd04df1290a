"""The peers of `crisp bench` have the weights of the model, compute what torch computes, padding
and all, and are really quantised; models take longer texts once their position table is repeated.
"""

from __future__ import annotations

import importlib
import os
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from bench_models import classifier, write_folder
from onnx import numpy_helper
from transformers import DistilBertForSequenceClassification

from export.bench import peers
from export.bench.accuracy import accuracies
from export.bench.baseline import reference_logits
from export.bench.measure import Contender
from export.bench.peers import parse_peers, peer_entries
from export.bench.positions import POSITION_TABLE, extend_positions, extended_folder
from export.bench.texts import LONGER_TEXTS, calibration_texts, encoder
from export.errors import ExportError, ModelFolderError
from export.manifest import ModelFolder
from export.op_library import make_session
from export.packing import pack
from training.data import Example, LabelledTexts, read_examples
from training.machine import environment
from training.pattern import AttentionPattern
from training.statistics import wilson_interval

DENSE = AttentionPattern("dense")
needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None or find_spec("nncf") is None,
    reason="openvino and nncf are not installed: the extra [bench] brings them",
)


@pytest.fixture(scope="module")
def model() -> DistilBertForSequenceClassification:
    return classifier()


@pytest.fixture(scope="module")
def folder(
    model: DistilBertForSequenceClassification, tmp_path_factory: pytest.TempPathFactory
) -> ModelFolder:
    return write_folder(tmp_path_factory.mktemp("models") / "dense", model, DENSE)


def entries(names: list[str], model: DistilBertForSequenceClassification) -> Any:
    def calibration() -> tuple[list[list[int]], str]:
        random = np.random.default_rng(3)
        return [random.integers(0, 100, n).tolist() for n in (5, 9, 40, 17)], "random tokens"

    return peer_entries(names, model, threads=1, calibration=calibration)


def logits(contender: Contender, sequences: list[list[int]]) -> np.ndarray[Any, Any]:
    return contender.run(contender.prepare(sequences))


# --- the peers ---------------------------------------------------------------------------------


def test_peers_are_named_by_comma() -> None:
    assert parse_peers(" torch,openvino,torch,") == ["torch", "openvino"]
    assert parse_peers("none") == parse_peers("") == []
    with pytest.raises(ExportError, match="--peers does not know tvm; it takes a list of openvino"):
        parse_peers("tvm,torch")


def test_a_peer_that_is_not_installed_is_left_out_with_its_extra(
    model: DistilBertForSequenceClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda _: None)
    found, missing = entries(["openvino"], model)
    assert found == []
    assert len(missing) == 1
    assert "'.[bench]'" in missing[0]


def test_torch_computes_the_same_with_its_own_attention(
    model: DistilBertForSequenceClassification,
) -> None:
    threads = torch.get_num_threads()
    try:
        ((contender, facts),), missing = entries(["torch"], model)
    finally:
        torch.set_num_threads(threads)
    assert not missing
    sequences, expected = reference_logits(model)
    assert np.abs(logits(contender, sequences) - expected).max() < 1e-4
    assert facts["largest_difference_from_torch"] < 1e-4
    assert model.config._attn_implementation == "eager"  # that of the baseline is left alone


@needs_openvino
def test_openvino_computes_the_same_in_fp32_and_nearly_so_in_int8(
    model: DistilBertForSequenceClassification, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(os.environ)
    found, missing = entries(["openvino"], model)
    assert not missing
    assert dict(os.environ) == before
    assert capsys.readouterr().out == ""  # which may be JSON
    (fp32, fp32_facts), (int8, int8_facts) = found
    assert [fp32.name, int8.name] == ["openvino fp32", "openvino int8"]
    sequences, expected = reference_logits(model)
    largest = np.abs(expected).max()
    assert np.abs(logits(fp32, sequences) - expected).max() < 1e-4 * max(1, largest)
    difference = np.abs(logits(int8, sequences) - expected).max()
    assert 1e-4 * largest < difference < 0.5 * largest
    assert int8_facts["largest_difference_from_torch"] == pytest.approx(difference, rel=1e-3)
    assert int8_facts["calibration"] == "random tokens"
    assert fp32_facts["openvino"] == int8_facts["openvino"]
    bfloat16 = {"avx512_bf16", "amx_bf16"} & {*environment()["instruction_sets"]}
    assert "float32" in fp32_facts["inference_precision"]
    assert ("bfloat16" if bfloat16 else "float32") in int8_facts["inference_precision"]
    assert {facts["precision"] for facts in (fp32_facts, int8_facts)} == {"fp32", "int8"}


@needs_openvino
def test_openvino_int8_quantises_every_linear(model: DistilBertForSequenceClassification) -> None:
    peer = importlib.import_module("export.bench.openvino_peer")
    quantized = peer._quantized(peer._converted(model), [[5, 6, 7], [8, 9]])
    found = Counter(node.get_type_name() for node in quantized.get_ordered_ops())
    stored = [
        node
        for node in quantized.get_ordered_ops()
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i8"
    ]
    linears = 6 * model.config.n_layers + 2
    assert found["MatMul"] >= linears
    assert len(stored) >= linears


# --- longer texts ------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [513, 1200])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_repeated_positions_take_longer_texts_and_change_no_shorter_one(
    precision: str, tokens: int, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "short", classifier(), DENSE, precision)
    longer = extended_folder(folder, tmp_path / "long", tokens)
    assert longer.manifest.max_tokens == tokens
    random = np.random.default_rng(0)
    texts = [random.integers(0, 100, length).tolist() for length in (512, 3)]
    session = make_session(longer.model, threads=1)
    (expected,) = make_session(folder.model, threads=1).run(["logits"], pack(texts))
    assert np.array_equal(session.run(["logits"], pack(texts))[0], expected)
    model = classifier()
    extend_positions(model, tokens)
    text = random.integers(0, 100, tokens)
    with torch.inference_mode():
        reference = model(input_ids=torch.from_numpy(text)[None]).logits.numpy()
    found = session.run(["logits"], pack([text.tolist()]))[0]
    assert np.abs(found - reference).max() < (1e-3 if precision == "fp32" else 1)


def test_tables_are_repeated_by_name_whatever_their_type(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "short", classifier(), DENSE)
    random = np.random.default_rng(0)
    added = {
        f"{POSITION_TABLE}.rows": random.integers(-127, 128, (512, 4)).astype(np.int8),
        f"{POSITION_TABLE}.scale": random.random((512, 1), np.float32),
        f"{POSITION_TABLE}.flat": random.random(512, np.float32),
        f"{POSITION_TABLE}.other": random.random(4, np.float32),
        "words": random.random((512, 4), np.float32),
    }
    graph = onnx.load(folder.model)
    graph.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in added.items())
    onnx.save(graph, folder.model)
    longer = onnx.load(extended_folder(folder, tmp_path / "long", 1100).model)
    found = {t.name: numpy_helper.to_array(t) for t in longer.graph.initializer}
    for name, array in added.items():
        repeated = name.startswith(POSITION_TABLE) and len(array) == 512
        expected = np.concatenate([array, array, array[:76]]) if repeated else array
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], expected), name


def test_a_graph_without_a_position_table_is_refused(folder: ModelFolder, tmp_path: Path) -> None:
    graph = onnx.load(folder.model)
    for tensor in graph.graph.initializer:
        tensor.name = tensor.name.replace("position", "place")
    (tmp_path / "other").mkdir()
    other = ModelFolder(tmp_path / "other", folder.manifest)
    onnx.save(graph, other.model)
    with pytest.raises(ModelFolderError, match=r"has no initializer .* with 512 rows"):
        extended_folder(other, tmp_path / "long", 600)


# --- texts and accuracy ------------------------------------------------------------------------


def test_calibration_takes_the_examples_and_longer_texts_or_a_file(
    folder: ModelFolder, tmp_path: Path
) -> None:
    encode = encoder(folder)
    texts, origin = calibration_texts(encode, [])
    assert len(texts) == 64 + LONGER_TEXTS
    assert "examples/train.tsv" in origin
    lengths = [len(ids) for ids in texts]
    assert max(lengths[:64]) < max(lengths[64:]) == folder.manifest.max_tokens
    assert all(ids[0] == 2 and ids[-1] == 3 for ids in texts)
    assert calibration_texts(encode, []) == (texts, origin)
    file = tmp_path / "some.tsv"
    file.write_text("sentence\tlabel\n" + "ab\tpositive\n" * 700)
    texts, origin = calibration_texts(encode, [read_examples(file)])
    assert len(texts) == 234  # every third, 300 at most
    assert set(map(len, texts)) == {4}
    assert origin == f"234 texts of {tmp_path.name}/some.tsv"


def test_a_file_that_is_no_tokenizer_is_refused(folder: ModelFolder, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelFolderError, match="is no tokenizer"):
        encoder(ModelFolder(tmp_path, folder.manifest))


def test_accuracy_counts_every_text_once_whatever_the_order() -> None:
    """A contender that answers with the parity of a text's length, and data that it is right on
    where the length is below 30."""
    texts = [[2] * length for length in (40, 3, 17, 55, 8, *range(30, 50), 2)]
    labels = [len(ids) % 2 if len(ids) < 30 else 1 - len(ids) % 2 for ids in texts]
    examples = tuple(Example(str(i), label) for i, label in enumerate(labels))
    data = LabelledTexts("some.tsv", examples, ("negative", "positive"), "0" * 64)

    def run(batch: list[list[int]]) -> Any:
        return np.array([[1.0, 2.0] if len(ids) % 2 else [2.0, 1.0] for ids in batch], np.float32)

    contender = Contender("parity", lambda batch: batch, run)
    found = accuracies([contender, contender], [data], lambda names: [texts[int(i)] for i in names])
    interval = wilson_interval(4, len(texts))
    assert found == {
        "parity": [
            {
                "accuracy": 4 / len(texts),
                "low": interval.low,
                "high": interval.high,
                "name": "some.tsv",
                "rows": len(texts),
                "sha256": "0" * 64,
                "from": "measured here",
            }
        ]
    }
