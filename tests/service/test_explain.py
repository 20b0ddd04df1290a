"""Explanations against the torch reference: what each token received and which layer dropped it;
and POST /explain, from an application in this process."""

from __future__ import annotations

import asyncio
import shutil
import threading
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
import torch
from conftest import MAX_TOKENS, SPECIAL, WORDS
from hypothesis import given, settings
from hypothesis import strategies as st
from test_api import started
from tokenizers import Encoding
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from export.errors import ModelFolderError
from export.graph import packed_graph
from export.manifest import ModelFolder, dump, facts_of
from export.op_library import OpLibrary, find_op_library
from service.api import Api
from service.engine import Engine
from service.explain import ExplainedModel, Explanation, explain, explain_tokens
from service.explained_graph import explained_graph
from service.settings import BUNDLED_MODELS, Settings
from training import pruned_model
from training.attention.registry import set_attention
from training.pattern import AttentionPattern
from training.pruning import TokenPruning

LAYERS = 4
CASES = {
    "dense": (AttentionPattern("dense"), None),
    "sparse": (
        AttentionPattern("blocktopk", size=4, density=0.3),
        TokenPruning((1, 0.7, 0.4), floor=3),  # the first layer drops nothing: it has no such node
    ),
}
LIBRARIES = [
    pytest.param(OpLibrary(None, "not in this test"), id="functions"),
    pytest.param(
        find_op_library(),
        id="kernels",
        marks=pytest.mark.skipif(
            not find_op_library().available, reason="the compiled operators are not built"
        ),
    ),
]
LONGER = "this is not a good story, it is slow and long"
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=40).map(" ".join)


@dataclass(frozen=True)
class Case:
    """A model folder and the torch model that it was exported from."""

    folder: ModelFolder
    model: DistilBertForSequenceClassification
    engines: dict[Path | None, tuple[Engine, ExplainedModel]]  # opened, by operator library

    def explain(self, text: str, library: OpLibrary) -> Explanation:
        return explain(*self.opened(library), text)

    def opened(self, library: OpLibrary) -> tuple[Engine, ExplainedModel]:
        if library.path not in self.engines:
            engine = Engine(self.folder, threads=1, library=library)
            self.engines[library.path] = engine, ExplainedModel(self.folder, library)
        return self.engines[library.path]


@pytest.fixture(scope="module", params=CASES)
def case(
    request: pytest.FixtureRequest, models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    pattern, pruning = CASES[request.param]
    config = DistilBertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        max_position_embeddings=MAX_TOKENS,
        dim=16,
        hidden_dim=32,
        n_layers=LAYERS,
        n_heads=2,
        initializer_range=0.5,
    )
    torch.manual_seed(1)
    model = DistilBertForSequenceClassification(config).eval()
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    set_attention(config, pattern)
    model.distilbert.transformer = pruned_model.PrunedTransformer(  # type: ignore[assignment]
        model.distilbert.transformer.layer, config
    )
    pruned_model.prune_model(model, pruning)
    folder = tmp_path_factory.mktemp("explained") / request.param
    shutil.copytree(models_dir / request.param, folder)
    onnx.save(packed_graph(weights, config, pattern, pruning), folder / "model.onnx")
    manifest = ModelFolder.load(models_dir / request.param).manifest
    files = {name: facts_of(folder / name) for name in manifest.files}
    (folder / "manifest.json").write_text(dump(manifest.model_copy(update={"files": files})))
    return Case(ModelFolder.load(folder), model, {})


@dataclass
class Reference:
    """What one token of the torch model received, and which layer dropped it."""

    received: list[float]
    dropped_after: int | None = None


def reference(case: Case, ids: list[int], patch: pytest.MonkeyPatch) -> list[Reference]:
    """Runs the torch model over one sequence and watches its layers."""
    tokens = [Reference([]) for _ in ids]
    here, layer = list(tokens), -1
    attend, keep = pruned_model._attend, pruned_model.kept_tokens

    def watched_attend(*given: Any) -> Any:
        nonlocal layer
        layer += 1
        context, probabilities = attend(*given)
        mean = probabilities[0].mean(dim=0)  # [S, S], rows are queries
        received = mean[0] if layer == LAYERS - 1 else mean.sum(dim=0)
        for token, share in zip(here, received.tolist(), strict=True):
            token.received.append(share)
        return context, probabilities

    def watched_keep(*given: Any) -> Any:
        nonlocal here
        index, valid = keep(*given)
        assert valid.all()
        before, here = here, [here[i] for i in index[0].tolist()]
        for token in before:
            if not any(token is other for other in here):
                token.dropped_after = layer
        return index, valid

    with patch.context() as context, torch.no_grad():
        context.setattr(pruned_model, "_attend", watched_attend)
        context.setattr(pruned_model, "kept_tokens", watched_keep)
        case.model(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
    assert layer == LAYERS - 1
    return tokens


@pytest.mark.parametrize("library", LIBRARIES)
@settings(max_examples=25)
@given(text=TEXTS)
def test_an_explanation_is_what_torch_computes(case: Case, library: OpLibrary, text: str) -> None:
    found = case.explain(text, library)
    ids = case.opened(library)[0].encode(text).ids
    with pytest.MonkeyPatch.context() as patch:
        expected = reference(case, ids, patch)
    assert [token.dropped_after for token in found.tokens] == [
        token.dropped_after for token in expected
    ]
    for token, own in zip(found.tokens, expected, strict=True):
        assert token.received == pytest.approx(own.received, abs=1e-4)


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_prediction_is_that_of_the_engine(case: Case, library: OpLibrary) -> None:
    engine, _ = case.opened(library)
    for text in ("good", "this is not a good story, it is slow and long", "fine " * 100):
        found = case.explain(text, library)
        (expected,) = engine.predict([text]).predictions
        assert found.prediction.label == expected.label
        assert found.prediction.scores == pytest.approx(expected.scores, abs=1e-6)
        assert found.prediction.truncated == expected.truncated
        assert len(found.tokens) == expected.tokens


@settings(max_examples=25)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_tokens_stand_where_they_say_and_layers_add_up(case: Case, text: str) -> None:
    found = case.explain(text, find_op_library())
    assert [token.special for token in found.tokens] == [
        token.token in ("[CLS]", "[SEP]") for token in found.tokens
    ]
    places = [(t.start, t.end) for t in found.tokens if not t.special]
    assert all(0 <= start < end <= len(text) for start, end in places)
    assert places == sorted(places)
    for token in found.tokens:
        if token.token in WORDS:
            original = unicodedata.normalize("NFD", text[token.start : token.end])
            bare = "".join(c for c in original if unicodedata.category(c) != "Mn")
            assert bare.lower() == token.token
    assert [layer.queries for layer in found.layers] == ["all"] * (LAYERS - 1) + ["cls"]
    for number, layer in enumerate(found.layers):
        here = [token for token in found.tokens if len(token.received) > number]
        after = [t for t in here if t.dropped_after is None or t.dropped_after > number]
        assert (layer.tokens, layer.passed_on) == (len(here), len(after))
        total = sum(token.received[number] for token in here)
        assert total == pytest.approx(layer.tokens if layer.queries == "all" else 1, abs=1e-3)
    assert found.tokens[0].dropped_after is None  # [CLS] stays


def test_nothing_but_outputs_is_added_to_the_model(case: Case) -> None:
    before = onnx.load(case.folder.model)
    graph = explained_graph(case.folder.model.read_bytes())
    after = onnx.load_from_string(graph.model)
    assert [output.name for output in after.graph.output] == ["logits", *graph.outputs]
    del after.graph.output[1:]
    for old, new in zip(before.graph.node, after.graph.node, strict=True):
        if old.op_type == "SparseAttention":
            assert new.output[1] in graph.outputs
            new.output[1] = old.output[1]
    assert after == before


@pytest.mark.parametrize("content", [b"\xff\xff no model", b""])
def test_what_is_no_model_of_ours_is_refused(content: bytes) -> None:
    with pytest.raises(ModelFolderError, match="the model"):
        explained_graph(content)


def test_explain_answers_for_each_text_and_variant(models_dir: Path) -> None:
    async def scenario() -> list[dict[str, Any]]:
        api = Api(Settings(models=models_dir, threads=1))
        async with started(api) as client:
            bodies = [{"texts": [LONGER, "dull"]}, {"texts": [LONGER], "variant": "dense"}]
            return [(await client.post("/explain", json=body)).json() for body in bodies]

    sparse, dense = asyncio.run(scenario())
    assert (sparse["variant"], dense["variant"]) == ("sparse", "dense")
    assert [len(found["explanations"]) for found in (sparse, dense)] == [2, 1]
    expected = Engine.load(models_dir / "sparse", threads=1).predict([LONGER])
    first = sparse["explanations"][0]
    assert set(first) == {"prediction", "tokens", "layers"}
    assert first["prediction"]["scores"] == pytest.approx(expected.predictions[0].scores)
    assert set(first["tokens"][1]) == {
        *("token", "start", "end", "special", "received", "dropped_after")
    }
    assert any(token["dropped_after"] == 0 for token in first["tokens"])
    assert all(t["dropped_after"] is None for t in dense["explanations"][0]["tokens"])


def test_explain_refuses_what_it_cannot_do(models_dir: Path) -> None:
    async def scenario() -> list[tuple[int, dict[str, str]]]:
        api = Api(Settings(models=models_dir, threads=1))
        async with started(api) as client:
            bodies = [
                {"texts": ["a"] * 17},
                {"texts": ["a", " "]},
                {"texts": ["a"], "variant": "huge"},
                {"text": "a"},
            ]
            found = [await client.post("/explain", json=body) for body in bodies]
            return [(response.status_code, response.json()["error"]) for response in found]

    found = asyncio.run(scenario())
    assert [status for status, _ in found] == [422] * 4
    codes = [(error["code"], error["field"]) for _, error in found]
    assert codes[:3] == [
        ("too_many_texts", "texts"),
        ("empty_text", "texts[1]"),
        ("unknown_variant", "variant"),
    ]
    assert "known are dense, sparse" in found[2][1]["message"]


def test_too_many_at_once_are_sent_away_and_the_rest_answered(models_dir: Path) -> None:
    async def scenario() -> list[Any]:
        api = Api(Settings(models=models_dir, threads=1))
        async with started(api) as client:
            asked = [client.post("/explain", json={"texts": ["good"] * 3}) for _ in range(12)]
            return await asyncio.gather(*asked)

    found = asyncio.run(scenario())
    assert sorted(response.status_code for response in found) == [200] * 8 + [429] * 4
    for response in found:
        if response.status_code == 429:
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"]["code"] == "overloaded"


def test_who_leaves_does_not_let_others_run_beside_his_text(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release, at_once = threading.Event(), threading.Event(), []

    def slow(engine: Engine, model: ExplainedModel, encoding: Encoding) -> Explanation:
        at_once.append(1)
        most.append(len(at_once))
        entered.set()
        release.wait(30)
        at_once.pop()
        return explain_tokens(engine, model, encoding)

    most: list[int] = []

    async def scenario() -> httpx.Response:
        monkeypatch.setattr("service.endpoints.explain.explain_tokens", slow)
        api = Api(Settings(models=models_dir, threads=1))
        async with started(api) as client:
            for _ in range(3):
                gone = asyncio.create_task(client.post("/explain", json={"texts": ["good"]}))
                await asyncio.to_thread(entered.wait, 30)
                await asyncio.sleep(0.05)
                gone.cancel()
            last = asyncio.create_task(client.post("/explain", json={"texts": ["good"]}))
            await asyncio.sleep(0.05)
            release.set()
            return await last

    assert asyncio.run(scenario()).status_code == 200
    assert most == [1, 1]  # the first, which nobody waited for any more, and the last


def test_a_turn_that_does_not_come_is_a_503(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()

    def slow(engine: Engine, model: ExplainedModel, encoding: Encoding) -> Explanation:
        entered.set()
        release.wait(30)
        return explain_tokens(engine, model, encoding)

    async def scenario() -> tuple[Any, Any]:
        monkeypatch.setattr("service.endpoints.explain.explain_tokens", slow)
        api = Api(Settings(models=models_dir, threads=1, timeout_seconds=0.3))
        async with started(api) as client:
            first = asyncio.create_task(client.post("/explain", json={"texts": ["good"]}))
            await asyncio.to_thread(entered.wait, 30)
            second = await client.post("/explain", json={"texts": ["good"]})
            release.set()
            return await first, second

    first, second = asyncio.run(scenario())
    assert first.status_code == 200  # it had its turn
    assert second.status_code == 503
    assert second.headers["retry-after"] == "1"


@pytest.mark.parametrize("variant", ["dense", "sparse"])
def test_the_bundled_models_are_explained(variant: str) -> None:
    engine = Engine.load(BUNDLED_MODELS / variant, threads=1)
    model = ExplainedModel(engine.folder, engine.library)
    for text in ("Well made.", "A warm, funny film that never talks down to its audience. " * 60):
        found = explain(engine, model, text)
        (expected,) = engine.predict([text]).predictions
        assert found.prediction.scores == pytest.approx(expected.scores, abs=1e-5)
        assert len(found.layers) == 6
        kept = [layer.passed_on for layer in found.layers]
        assert kept == sorted(kept, reverse=True)
        assert (kept[-1] < len(found.tokens)) == (variant == "sparse" and len(found.tokens) > 8)
        for number, layer in enumerate(found.layers):
            total = sum(t.received[number] for t in found.tokens if len(t.received) > number)
            assert total == pytest.approx(layer.tokens if layer.queries == "all" else 1, abs=1e-2)


def test_a_file_that_was_exchanged_is_not_taken_for_the_model_that_answers(
    models_dir: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models_dir / "sparse", tmp_path / "sparse"))
    engine = Engine.load(folder, threads=1)
    shutil.copyfile(models_dir / "dense" / "model.onnx", folder / "model.onnx")
    model = ExplainedModel(engine.folder, engine.library)
    with pytest.raises(ModelFolderError, match="is not the model that is in use any more"):
        explain(engine, model, "a warm film")
    shutil.copyfile(models_dir / "sparse" / "model.onnx", folder / "model.onnx")
    assert explain(engine, model, "a warm film").tokens
