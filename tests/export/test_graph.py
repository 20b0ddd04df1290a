"""The packed graph computes what the checkpoint computes, whatever else is in the pack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from export.errors import ExportError, ModelFolderError
from export.graph import packed_graph
from export.half import to_half
from export.model_folder import weights_of
from export.op_library import OpLibrary, find_op_library, make_session
from export.packing import pack
from training.attention.registry import IMPLEMENTATION, register_attention, set_attention
from training.pattern import CONTROLS, AttentionPattern
from training.pruned_model import prune_model
from training.pruning import TokenPruning

VOCABULARY, POSITIONS = 50, 64
PATTERNS = (
    AttentionPattern("dense"),
    AttentionPattern("topk", density=0.2),
    AttentionPattern("topk", k=4),
    AttentionPattern("band", window=5, globals=1),
    AttentionPattern("block", size=8, globals=1),
    AttentionPattern("blocktopk", size=8, density=0.2),
)
MODELS = [(pattern, None) for pattern in PATTERNS] + [
    (AttentionPattern("dense"), TokenPruning((0.3, 0.3, 0.1), floor=4)),
    (AttentionPattern("topk", density=0.5), TokenPruning((1.0, 0.5, 0.5), floor=2)),
    (AttentionPattern("blocktopk", size=4, k=2), TokenPruning((0.6, 0.4, 0.2), floor=3)),
]
FALLBACK = OpLibrary(None, "the standard operators in the file")


def tiny(
    pattern: AttentionPattern, pruning: TokenPruning | None = None, **changes: object
) -> DistilBertForSequenceClassification:
    register_attention()
    torch.manual_seed(1)
    layers = 2 if pruning is None else len(pruning.keep) + 1
    sizes = {"dim": 32, "hidden_dim": 64, "n_layers": layers, "n_heads": 2}
    sizes |= {"initializer_range": 0.4, "max_position_embeddings": POSITIONS}
    config = DistilBertConfig(
        vocab_size=VOCABULARY,
        num_labels=3,
        **(sizes | changes),
    )
    set_attention(config, pattern)
    config._attn_implementation = IMPLEMENTATION
    model = DistilBertForSequenceClassification(config).eval()
    prune_model(model, pruning)
    return model


@pytest.fixture(scope="module", params=MODELS, ids=lambda pair: "; ".join(map(str, pair)))
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DistilBertForSequenceClassification, Path]:
    model = tiny(*request.param)
    file = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(packed_graph(weights_of(model), model.config, *request.param), file)
    return model, file


def torch_logits(
    model: DistilBertForSequenceClassification, sequences: list[list[int]]
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    with torch.inference_mode():
        return np.stack([model(torch.tensor([ids])).logits[0].numpy() for ids in sequences])


def saved(graph: onnx.ModelProto, folder: Path, precision: str) -> Path:
    """The file of `graph` in fp32 or fp16, in `folder`."""
    file = folder / f"{precision}.onnx"
    onnx.save(graph if precision == "fp32" else to_half(graph), file)
    return file


def draw(lengths: list[int], seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, VOCABULARY, length).tolist() for length in lengths]


@pytest.mark.parametrize("fallback", [False, True])
def test_every_length_alone_and_packed(
    exported: tuple[DistilBertForSequenceClassification, Path], fallback: bool
) -> None:
    model, file = exported
    session = make_session(file, threads=1, library=FALLBACK if fallback else None)
    sequences = draw(list(range(1, POSITIONS + 1)))
    expected = torch_logits(model, sequences)
    packed = session.run(["logits"], pack(sequences))[0]
    np.testing.assert_allclose(packed, expected, atol=1e-4)
    alone = np.concatenate([session.run(["logits"], pack([ids]))[0] for ids in sequences[::7]])
    np.testing.assert_allclose(alone, expected[::7], atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
    order=st.randoms(),
)
def test_the_rest_of_the_pack_changes_nothing(
    exported: tuple[DistilBertForSequenceClassification, Path],
    lengths: list[int],
    seed: int,
    order: object,
) -> None:
    session = make_session(exported[1], threads=1)
    sequences = draw(lengths, seed)
    permutation = list(range(len(sequences)))
    order.shuffle(permutation)  # type: ignore[attr-defined]
    straight = session.run(["logits"], pack(sequences))[0]
    shuffled = session.run(["logits"], pack([sequences[i] for i in permutation]))[0]
    np.testing.assert_allclose(shuffled, straight[permutation], atol=1e-5)


def test_an_empty_batch_gives_no_rows(
    exported: tuple[DistilBertForSequenceClassification, Path],
) -> None:
    for library in (find_op_library(), FALLBACK):
        session = make_session(exported[1], threads=1, library=library)
        assert session.run(["logits"], pack([]))[0].shape == (0, 3)


def test_a_text_beyond_the_position_table_is_an_error(
    exported: tuple[DistilBertForSequenceClassification, Path],
) -> None:
    for library in (find_op_library(), FALLBACK):
        session = make_session(exported[1], threads=1, library=library)
        with pytest.raises(Exception, match=r"positions for 64|out of data bounds|indices element"):
            session.run(["logits"], pack(draw([POSITIONS + 1])))


def test_an_activation_that_we_do_not_know_is_refused() -> None:
    pattern = AttentionPattern("dense")
    model = tiny(pattern, activation="relu")
    with pytest.raises(ExportError, match="activation 'relu'"):
        packed_graph(weights_of(model), model.config, pattern)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_of_studies_is_never_exported(name: str) -> None:
    pattern = AttentionPattern(name, density=0.2)
    model = tiny(pattern)
    with pytest.raises(ExportError, match=f"'{name}' is a control of studies"):
        packed_graph(weights_of(model), model.config, pattern)


def test_a_file_that_is_no_model_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelFolderError, match="cannot open"):
        make_session(tmp_path / "model.onnx")
