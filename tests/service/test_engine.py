"""The engine: a text's prediction does not depend on its company, and what it read is counted."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Encoding

from export import manifest
from export.errors import ModelFolderError
from export.manifest import ModelFolder
from export.op_library import OpLibrary, find_op_library
from service.engine import PACK_TOKENS, PACK_TOKENS_FALLBACK, Answer, Engine, packs, softmax

TEXTS = [
    "a warm film with a fine cast",
    "dull",
    "the plot is slow and it is long, it is not good",
    "this story of a film is not a bad story",
    "zzz ☃ \u200b",
]


needs_library = pytest.mark.skipif(
    not find_op_library().available, reason="the compiled operators are not built"
)


@pytest.fixture(scope="module")
def engine(model_folder: ModelFolder) -> Engine:
    return Engine(model_folder, threads=1)


def scores_of(answer: Answer) -> np.ndarray:
    return np.array([list(prediction.scores.values()) for prediction in answer.predictions])


def test_a_prediction_says_what_its_scores_say(engine: Engine) -> None:
    for prediction in engine.predict(TEXTS).predictions:
        assert tuple(prediction.scores) == ("negative", "positive")
        assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-12)
        assert prediction.score == max(prediction.scores.values())
        assert prediction.scores[prediction.label] == prediction.score


def test_the_logits_are_those_of_the_graph(engine: Engine, model_folder: ModelFolder) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if engine.library.path:
        options.register_custom_ops_library(str(engine.library.path))
    session = onnxruntime.InferenceSession(
        str(model_folder.model), options, providers=["CPUExecutionProvider"]
    )
    sequences = [[2, 5, 6, 3], [2, 3], [2, 7, 8, 9, 10, 3]]
    feeds = {
        "input_ids": np.array([2, 5, 6, 3, 2, 3, 2, 7, 8, 9, 10, 3], np.int64),
        "cu_seqlens": np.array([0, 4, 6, 12], np.int32),
    }
    (expected,) = session.run(["logits"], feeds)
    assert engine.logits(sequences) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.sampled_from(TEXTS), max_size=6), limit=st.integers(1, 40))
def test_company_and_packing_do_not_change_a_prediction(
    engine: Engine, texts: list[str], limit: int
) -> None:
    alone = [scores_of(engine.predict([text]))[0] for text in texts]
    tight = Engine(engine.folder, threads=1, library=engine.library, pack_tokens=limit)
    for together in (engine, tight):
        found = scores_of(together.predict(texts))
        assert found == pytest.approx(np.array(alone), abs=1e-6)


def test_no_text_gives_no_prediction(engine: Engine) -> None:
    assert engine.predict([]).predictions == []


def test_a_thousand_texts_are_answered_as_each_alone(engine: Engine) -> None:
    texts = [TEXTS[i % len(TEXTS)] for i in range(1_024)]
    alone = np.array([scores_of(engine.predict([text]))[0] for text in TEXTS])
    found = scores_of(engine.predict(texts))
    assert found == pytest.approx(alone[np.arange(1_024) % len(TEXTS)], abs=1e-6)


@needs_library
def test_a_full_pack_is_one_run_and_answered_as_each_alone(engine: Engine) -> None:
    """16,384 tokens, the most that one run of the graph gets."""
    maximum = engine.manifest.max_tokens
    assert PACK_TOKENS % maximum == 0
    texts = [(text + " ") * maximum for text in TEXTS]
    count = PACK_TOKENS // maximum
    together = engine.predict([texts[i % len(texts)] for i in range(count)])
    lengths = [prediction.tokens for prediction in together.predictions]
    assert lengths == [maximum] * count
    assert list(packs(lengths, engine.pack_tokens)) == [(0, count)]
    alone = np.array([scores_of(engine.predict([text]))[0] for text in texts])
    expected = alone[np.arange(count) % len(texts)]
    assert scores_of(together) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
def test_a_text_without_words_is_read_as_its_two_special_tokens(engine: Engine, text: str) -> None:
    company = engine.predict(["a warm film", text, "dull"])
    (alone,) = engine.predict([text]).predictions
    assert alone.tokens == company.predictions[1].tokens == 2
    assert not alone.truncated
    assert alone.score == pytest.approx(company.predictions[1].score, abs=1e-6)


def test_a_sequence_of_one_token_is_answered(engine: Engine) -> None:
    """No text gives one, but the graph takes it."""
    found = engine.logits([[2], [2, 5, 3]])
    assert found == pytest.approx(
        np.concatenate([engine.logits([[2]]), engine.logits([[2, 5, 3]])]), abs=1e-6
    )
    assert np.isfinite(found).all()


def test_the_served_model_prunes_and_selects_blocks(engine: Engine) -> None:
    """Or the tests of this folder would not cover what the bundled model does."""
    graph = onnx.load(engine.folder.model).graph
    names = {node.op_type for node in graph.node if node.domain == "crisp"}
    assert {"SparseAttention", "PruneTokens"} <= names
    assert names == {operator.name for operator in engine.manifest.operators}
    assert engine.manifest.attention["name"] == "blocktopk"
    assert engine.manifest.pruning == {"keep": [0.5], "floor": 4}


@needs_library
def test_the_compiled_operators_and_the_fallback_agree(engine: Engine) -> None:
    fallback = Engine(engine.folder, threads=1, library=OpLibrary(None, "left out by the test"))
    texts = [*TEXTS, *(text + " " + other for text in TEXTS for other in TEXTS)]
    found = scores_of(engine.predict(texts))
    assert found == pytest.approx(scores_of(fallback.predict(texts)), abs=1e-5)


@pytest.mark.parametrize("over", [-1, 0, 1, 500])
def test_tokens_and_truncation_are_reported(engine: Engine, over: int) -> None:
    maximum = engine.manifest.max_tokens
    words = maximum - 2 + over  # [CLS] and [SEP] are read as well
    (prediction,) = engine.predict(["film " * words]).predictions
    assert prediction.tokens == min(words + 2, maximum)
    assert prediction.truncated == (over > 0)


def test_what_truncation_cuts_off_does_not_matter(engine: Engine) -> None:
    head = "good film " * engine.manifest.max_tokens
    assert (scores_of(engine.predict([head + "bad"])) == scores_of(engine.predict([head]))).all()


def test_padding_and_truncation_of_the_tokenizer_file_are_not_used(engine: Engine) -> None:
    """The file may say to pad to 128 tokens and cut at 128, as MiniLM's does."""
    (prediction,) = engine.predict(["film film film film film film"]).predictions
    assert prediction.tokens == 8


def test_timing_is_measured(engine: Engine) -> None:
    timing = engine.predict(TEXTS).timing
    assert timing.queue_ms == 0
    assert timing.tokenize_ms > 0
    assert timing.inference_ms > 0


def test_the_fallback_gets_smaller_packs(model_folder: ModelFolder) -> None:
    fallback = Engine(model_folder, threads=1, library=OpLibrary(None, "left out by the test"))
    assert fallback.pack_tokens == PACK_TOKENS_FALLBACK < PACK_TOKENS
    assert len(fallback.predict(TEXTS).predictions) == len(TEXTS)


@given(lengths=st.lists(st.integers(0, 50)), limit=st.integers(1, 100))
def test_packs_cover_everything_in_order_within_the_limit(lengths: list[int], limit: int) -> None:
    cuts = list(packs(lengths, limit))
    assert [index for first, last in cuts for index in range(first, last)] == list(
        range(len(lengths))
    )
    for first, last in cuts:
        assert first < last
        assert sum(lengths[first:last]) <= limit or last == first + 1
    for (first, last), (_, next_last) in pairwise(cuts):
        assert next_last > last
        assert sum(lengths[first:last]) + lengths[last] > limit  # none could have been fuller


def test_softmax_of_extreme_logits_is_finite() -> None:
    found = softmax(np.array([[1e4, -1e4], [0, 0]], np.float32))
    assert found.tolist() == [[1, 0], [0.5, 0.5]]


def test_warm_up_passes_a_whole_model(engine: Engine) -> None:
    engine.warm_up()


def altered(folder: ModelFolder, to: Path, **facts: object) -> ModelFolder:
    """A copy of `folder` with other facts in its manifest, hashes of its files made to fit."""
    shutil.copytree(folder.path, to, dirs_exist_ok=True)
    files = {name: manifest.facts_of(to / name) for name in folder.manifest.files}
    changed = folder.manifest.model_copy(update={"files": files, **facts})
    (to / "manifest.json").write_text(manifest.dump(changed))
    return ModelFolder.load(to)


def test_a_model_that_lacks_a_label_is_refused(model_folder: ModelFolder, tmp_path: Path) -> None:
    folder = altered(model_folder, tmp_path / "copy", labels=("negative", "neutral", "positive"))
    with pytest.raises(ModelFolderError, match=r"shape \[2, 2\], expected \[2, 3\]"):
        Engine(folder, threads=1).warm_up()


def test_a_graph_with_other_inputs_is_refused(model_folder: ModelFolder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model_folder.path, copy)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["x"], ["logits"])],
            "other",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["B", 2])],
            [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["B", 2])],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, copy / "model.onnx")
    facts = dataclasses.replace(model_folder, path=copy)
    with pytest.raises(ModelFolderError, match=r"expected inputs input_ids .* found \['x'\]"):
        Engine(facts, threads=1)


def test_a_file_that_is_no_tokenizer_is_refused(model_folder: ModelFolder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model_folder.path, copy)
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json is no tokenizer"):
        Engine(dataclasses.replace(model_folder, path=copy), threads=1)


@settings(max_examples=40, deadline=None)
@given(
    words=st.lists(
        st.sampled_from(
            [
                *("film", "good", " ", "\u0301", "a" * 300, "\t", "it's", "\u4e2d\u6587", "?!"),
                *("\x01", "\x1c", "\x85", "\u2028", "\u00ad", "_", "\u3000", "\u20ac", "x" * 2000),
            ]
        ),
        min_size=1,
        max_size=8,
    ),
    times=st.integers(1, 2000),
    blank=st.sampled_from([" ", "", "\n", "  "]),
)
def test_a_long_text_has_the_tokens_that_all_of_it_has(
    engine: Engine, words: list[str], times: int, blank: str
) -> None:
    text = blank.join(words * times)
    expected = engine._tokenizer.encode(text)
    for texts in ([text], [text, "good film"]):
        found = engine.tokenize(texts)[0]
        assert found.ids == expected.ids
        assert bool(found.overflowing) == bool(expected.overflowing)


@pytest.mark.parametrize("letter", [".", "\u4e2d", "\u3002", "a", "\x01"])
def test_of_a_megabyte_without_blanks_only_the_beginning_is_read(
    engine: Engine, letter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    tokenizer = engine._tokenizer

    class Counting:
        def encode_batch_fast(self, texts: list[str]) -> list[Encoding]:
            read.extend(map(len, texts))
            return tokenizer.encode_batch_fast(texts)

    monkeypatch.setattr(engine, "_tokenizer", Counting())
    (found,) = engine.tokenize([letter * 1_000_000])
    assert found.ids == tokenizer.encode(letter * 20_000).ids
    if letter in ".\u4e2d\u3002":
        assert sum(read) <= 16 * engine.manifest.max_tokens


@pytest.mark.parametrize("text", ["a" * 1_000_000, " " * 1_000_000 + "a"])
def test_other_threads_go_on_while_a_long_text_is_tokenised(engine: Engine, text: str) -> None:
    for tokenize in (engine.encode, lambda text: engine.tokenize([text])):
        worker = threading.Thread(target=tokenize, args=(text,))
        steps = 0
        worker.start()
        while worker.is_alive():
            time.sleep(0.001)
            steps += 1
        assert steps > 20  # where the interpreter is kept, two or three
