"""PruneTokens: compiled kernel, function body and the rule in plain Python, held to the same
tokens."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from export.graph import IR_VERSION, OPSET
from export.manifest import DOMAIN, DOMAIN_VERSION
from export.op_library import OpLibrary, find_op_library, make_session
from export.prune_function import PRUNE_TOKENS, prune_attributes, prune_tokens_function
from training.pruning import TokenPruning

FALLBACK = OpLibrary(None, "the function body is wanted")


def session(
    attributes: dict[str, int], library: OpLibrary, folder: Path
) -> onnxruntime.InferenceSession:
    inputs = ["received", "cu_seqlens", "original_cu_seqlens"]
    outputs = ["kept", "kept_cu_seqlens"]
    kinds = [TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT32]
    graph = helper.make_graph(
        [helper.make_node(PRUNE_TOKENS, inputs, outputs, domain=DOMAIN, **attributes)],
        "one",
        [
            helper.make_tensor_value_info(n, kind, [None])
            for n, kind in zip(inputs, kinds, strict=True)
        ],
        [
            helper.make_tensor_value_info("kept", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("kept_cu_seqlens", TensorProto.INT32, [None]),
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)],
        functions=[prune_tokens_function(OPSET)],
        ir_version=IR_VERSION,
    )
    file = folder / f"{'-'.join(map(str, attributes.values()))}.onnx"
    onnx.save(model, file)
    return make_session(file, library=library)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prune")


def offsets(lengths: list[int]) -> np.ndarray:
    return np.array([0, *itertools.accumulate(lengths)], np.int32)


def by_the_rule(
    received: list[list[float]], original: list[int], pruning: TokenPruning, layer: int
) -> tuple[list[int], list[int]]:
    """Which tokens of the pack stay, and how many of each sequence."""
    kept: list[int] = []
    counts: list[int] = []
    begin = 0
    for values, length in zip(received, original, strict=True):
        rank = [math.inf if i == 0 or math.isnan(v) else v for i, v in enumerate(values)]
        order = sorted(range(len(values)), key=lambda i: (-rank[i], i))
        chosen = sorted(order[: min(len(values), pruning.kept(layer, length))])
        kept += [begin + i for i in chosen]
        counts.append(len(chosen))
        begin += len(values)
    return kept, counts


SCHEDULES = [
    TokenPruning((0.5,), 1),
    TokenPruning((0.3,), 4),
    TokenPruning((0.05,), 2),
    TokenPruning((1.0,), 3),
    TokenPruning((1e-6,), 1),
]
# Few values, so that many tie; NaN among them.
SEQUENCES = st.lists(
    st.tuples(
        st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0, math.nan]), max_size=24),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("way", ["kernel", "function"])
@pytest.mark.parametrize("pruning", SCHEDULES, ids=str)
def test_the_tokens_of_the_rule_stay(way: str, pruning: TokenPruning, folder: Path) -> None:
    library = find_op_library() if way == "kernel" else FALLBACK
    if way == "kernel" and not library.available:
        pytest.skip(library.reason)
    node = session(prune_attributes(pruning, 0), library, folder)

    @given(SEQUENCES)
    def check(sequences: list[tuple[list[float], int]]) -> None:
        received = [values for values, _ in sequences]
        if not sum(map(len, received)):
            return  # an empty pack never reaches the node
        live = [len(values) for values in received]
        original = [n + pruned for n, (_, pruned) in zip(live, sequences, strict=True)]
        kept, kept_offsets = node.run(
            None,
            {
                "received": np.array([v for values in received for v in values], np.float32),
                "cu_seqlens": offsets(live),
                "original_cu_seqlens": offsets(original),
            },
        )
        expected, counts = by_the_rule(received, original, pruning, 0)
        assert kept.tolist() == expected
        assert kept_offsets.tolist() == offsets(counts).tolist()

    check()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"keep_num": 0, "keep_den": 1, "floor": 1}, r"must lie in \(0, 1\], got 0 / 1"),
        ({"keep_num": 3, "keep_den": 2, "floor": 1}, r"must lie in \(0, 1\], got 3 / 2"),
        ({"keep_num": 1, "keep_den": 2, "floor": 0}, "floor must be at least 1"),
    ],
)
def test_a_rule_that_keeps_nothing_is_refused(
    attributes: dict[str, int], message: str, folder: Path
) -> None:
    library = find_op_library()
    if not library.available:
        pytest.skip(library.reason)
    with pytest.raises(Exception, match=message):
        session(attributes, library, folder)


def test_offsets_must_fit(folder: Path) -> None:
    library = find_op_library()
    if not library.available:
        pytest.skip(library.reason)
    node = session({"keep_num": 1, "keep_den": 2, "floor": 2}, library, folder)
    received = np.ones(4, np.float32)
    with pytest.raises(Exception, match="cu_seqlens must end at the number of tokens, 4"):
        node.run(
            None,
            {
                "received": received,
                "cu_seqlens": offsets([3]),
                "original_cu_seqlens": offsets([3]),
            },
        )
    with pytest.raises(Exception, match=r"original_cu_seqlens must be \[2\], got \[3\]"):
        node.run(
            None,
            {
                "received": received,
                "cu_seqlens": offsets([4]),
                "original_cu_seqlens": offsets([4, 1]),
            },
        )
    with pytest.raises(Exception, match="got 1 for 3 tokens of sequence 1"):
        node.run(
            None,
            {
                "received": received,
                "cu_seqlens": offsets([1, 3]),
                "original_cu_seqlens": offsets([5, 1]),
            },
        )
