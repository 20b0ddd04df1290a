"""The baseline of `crisp bench` has the weights of the model that it is held against, computes what
torch computes, padding and all, and is really fused and quantised."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bench_models import classifier, write_folder
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from transformers import DistilBertForSequenceClassification

from export.bench.baseline import (
    FUSIONS,
    Baseline,
    classifier_of_folder,
    classifier_of_run,
    difference_from_torch,
    padded,
    stock_graphs,
    stock_session,
)
from export.bench.roofline import Architecture
from export.errors import ExportError, ModelFolderError, ParityError
from export.manifest import ModelFolder
from training.narrow_model import feed_forward_of, set_feed_forward
from training.pattern import AttentionPattern

TOPK = AttentionPattern("topk", density=0.2)


@pytest.fixture(scope="module")
def model() -> DistilBertForSequenceClassification:
    return classifier()


@pytest.fixture(scope="module")
def graphs(
    model: DistilBertForSequenceClassification, tmp_path_factory: pytest.TempPathFactory
) -> Baseline:
    return stock_graphs(model, tmp_path_factory.mktemp("stock"))


def operators(file: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(file).graph.node)


def narrowed() -> DistilBertForSequenceClassification:
    model = classifier()
    set_feed_forward(model, (40, 96))
    return model


@pytest.mark.parametrize(
    "model",
    [classifier(), classifier(num_labels=3, n_layers=3, n_heads=2, vocab_size=600), narrowed()],
)
def test_fp32_weights_come_back_exactly(
    model: DistilBertForSequenceClassification, tmp_path: Path
) -> None:
    back = classifier_of_folder(write_folder(tmp_path / "fp32", model, TOPK))
    expected = model.state_dict()
    assert back.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in back.state_dict().items())
    assert back.config.n_heads == model.config.n_heads
    assert Architecture.of(back.config).inner == feed_forward_of(model)
    assert not back.training


def test_int8_weights_come_back_within_half_a_step(
    model: DistilBertForSequenceClassification, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "int8", model, TOPK, "int8")
    expected = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    scales = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load(folder.model).graph.initializer
        if tensor.name.endswith("_scale")
    }
    quantised = 0
    for name, tensor in classifier_of_folder(folder).state_dict().items():
        stored = name
        for index, part in enumerate(("q_lin", "k_lin", "v_lin")):
            if part in name:
                stored = name.replace(part, "qkv")
                columns = slice(index * len(tensor), (index + 1) * len(tensor))
        scale = scales.get(f"{stored}_scale")
        if scale is None:
            assert np.array_equal(tensor.numpy(), expected[name]), name
            continue
        if stored != name:
            scale = scale[columns]
        # A scale for each row of [out, in], as for each row of a table.
        half_a_step = scale.reshape(-1, 1) * (0.5 + 1e-3)
        assert (np.abs(tensor.numpy() - expected[name]) <= half_a_step).all(), name
        assert not np.array_equal(tensor.numpy(), expected[name]), name
        quantised += 1
    assert quantised == 2 + 6 * model.config.n_layers  # two tables; q, k, v, out, lin1, lin2


def test_a_run_gives_its_weights_with_dense_attention(
    model: DistilBertForSequenceClassification, tmp_path: Path
) -> None:
    model.config.crisp_attention = TOPK.to_dict()
    model.save_pretrained(tmp_path)
    del model.config.crisp_attention
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZER)
    back = classifier_of_run(tmp_path)
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        assert torch.allclose(back(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-6)


TOKENIZER = (
    b'{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,'
    b'"post_processor":{"type":"BertProcessing","sep":["[UNK]",0],"cls":["[UNK]",0]},'
    b'"pre_tokenizer":null,"decoder":null,"model":{"type":"WordLevel",'
    b'"vocab":{"[UNK]":0,"film":1},"unk_token":"[UNK]"}}'
)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_attention_is_fused(
    graphs: Baseline, model: DistilBertForSequenceClassification, fusion: str
) -> None:
    layers, found = model.config.n_layers, operators(graphs.fp32[fusion])
    assert found[fusion] == layers == graphs.fused[fusion][fusion]
    assert [other for other in FUSIONS if found[other]] == [fusion]
    assert "Softmax" not in found


@pytest.mark.parametrize("fusion", FUSIONS)
def test_int8_quantises_every_linear(
    graphs: Baseline, model: DistilBertForSequenceClassification, fusion: str
) -> None:
    found, layers = operators(graphs.int8[fusion]), model.config.n_layers
    inside = fusion == "Attention"  # q, k and v are then in one operator with the attention
    assert found["QAttention"] == layers * inside
    # out, lin1 and lin2 of each layer, and the head's two.
    assert found["MatMulInteger"] == (3 if inside else 6) * layers + 2
    assert not found["MatMul"] + found["Gemm"]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_logits_are_those_of_torch_whatever_the_padding(
    graphs: Baseline, model: DistilBertForSequenceClassification, fusion: str
) -> None:
    random = np.random.default_rng(1)
    sequences = [random.integers(0, 100, length).tolist() for length in (3, 40, 1, 17)]
    with torch.inference_mode():
        expected = np.stack(
            [model(input_ids=torch.tensor([ids])).logits[0].numpy() for ids in sequences]
        )
    (fp32,) = stock_session(graphs.fp32[fusion]).run(["logits"], padded(sequences))
    (int8,) = stock_session(graphs.int8[fusion]).run(["logits"], padded(sequences))
    assert np.abs(fp32 - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
    assert np.abs(int8 - expected).max() < 0.5 * np.abs(expected).max()
    without_mask = padded(sequences)
    without_mask["attention_mask"][:] = 1
    (unmasked,) = stock_session(graphs.fp32[fusion]).run(["logits"], without_mask)
    assert np.abs(unmasked - expected).max() > 0.01, "the mask must matter for this test to tell"


def test_a_baseline_that_differs_from_torch_is_refused(
    graphs: Baseline, model: DistilBertForSequenceClassification
) -> None:
    difference_from_torch(model, graphs.fp32["Attention"], allowed=1e-4)
    with pytest.raises(ParityError, match="the baseline differs from torch"):
        difference_from_torch(model, graphs.int8["Attention"], allowed=1e-4)
    broken = classifier()
    torch.nn.init.constant_(broken.classifier.bias, torch.nan)
    with pytest.raises(ParityError, match="by nan"):
        difference_from_torch(broken, graphs.fp32["Attention"], allowed=1e-4)


def test_a_baseline_without_fused_attention_is_refused(
    model: DistilBertForSequenceClassification, tmp_path: Path
) -> None:
    other = DistilBertForSequenceClassification._from_config(
        model.config, attn_implementation="sdpa"
    )
    with pytest.raises(ExportError, match="fused 0 of 2 attentions"):
        stock_graphs(other.eval(), tmp_path)


def test_a_graph_that_export_did_not_make_is_refused(tmp_path: Path, graphs: Baseline) -> None:
    folder = write_folder(tmp_path / "folder", classifier(), TOPK)
    foreign = ModelFolder(folder.path, folder.manifest)
    foreign.model.write_bytes(graphs.fp32["Attention"].read_bytes())
    with pytest.raises(ModelFolderError, match="cannot read the weights back"):
        classifier_of_folder(foreign)


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=20), min_size=1, max_size=8))
def test_padding_is_masked_and_texts_are_kept(sequences: list[list[int]]) -> None:
    inputs = padded(sequences)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert ids.shape == mask.shape == (len(sequences), max(map(len, sequences)))
    assert [row[kept == 1].tolist() for row, kept in zip(ids, mask, strict=True)] == sequences
    assert (np.diff(mask, axis=1) <= 0).all()  # real tokens first
    assert not ids[mask == 0].any()
