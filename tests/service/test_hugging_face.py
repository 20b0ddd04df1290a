"""Clients that know Hugging Face get their answers: the real InferenceClient and the shape of Text
Embeddings Inference, from a real server; and what the shapes refuse, without one."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import BadRequestError, HfHubHTTPError
from hypothesis import given
from hypothesis import strategies as st
from running_server import Server, crisp, free_port, running

from service.engine import Engine
from service.errors import RequestError
from service.hugging_face import HuggingFaceRequest, TeiRequest, label_scores
from service.schemas import parse

TEXT = "this is not a good story, it is slow and long"
LONG = "fine " * 100  # the models of the tests read 32 tokens


@pytest.fixture(scope="module")
def server(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    command = crisp("serve", "--models", str(models_dir), "--port", str(port), "--threads", "1")
    with running(command, port, tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def hub(server: Server) -> InferenceClient:
    return InferenceClient(model=f"{server.url}/hf", token="not-a-key")


@pytest.fixture(scope="module")
def engine(models_dir: Path) -> Engine:
    return Engine.load(models_dir / "sparse", threads=1)


def expected(engine: Engine, text: str) -> list[tuple[str, float]]:
    """Labels and probabilities, highest first, as the engine itself has them."""
    scores = engine.predict([text]).predictions[0].scores
    return sorted(scores.items(), key=lambda item: -item[1])


def pairs(found: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    assert all(set(row) == {"label", "score"} for row in found)
    return [(row["label"], pytest.approx(row["score"], abs=1e-6)) for row in found]


def test_the_inference_client_classifies(hub: InferenceClient, engine: Engine) -> None:
    for text in (TEXT, LONG):
        found = hub.text_classification(text)
        assert [(row.label, pytest.approx(row.score, abs=1e-6)) for row in found] == expected(
            engine, text
        )


def test_the_inference_client_asks_for_the_best_label(hub: InferenceClient, engine: Engine) -> None:
    (best,) = hub.text_classification(TEXT, top_k=1)
    assert best.label == engine.predict([TEXT]).predictions[0].label
    assert len(hub.text_classification(TEXT, top_k=50)) == 2


@pytest.mark.parametrize(
    ("transform", "score"),
    [("none", lambda logit: logit), ("sigmoid", lambda logit: 1 / (1 + math.exp(-logit)))],
)
def test_the_inference_client_names_another_function(
    hub: InferenceClient, engine: Engine, transform: Any, score: Any
) -> None:
    logits = dict(zip(engine.manifest.labels, engine.predict([TEXT]).logits[0], strict=True))
    for row in hub.text_classification(TEXT, function_to_apply=transform):
        assert row.score == pytest.approx(score(logits[row.label]), abs=1e-5)


def test_the_inference_client_shows_what_is_wrong(hub: InferenceClient) -> None:
    with pytest.raises(HfHubHTTPError, match="inputs is empty") as caught:
        hub.text_classification(" ")
    assert caught.value.response.status_code == 422
    with pytest.raises(HfHubHTTPError, match="there is no") as caught:
        hub.text_classification(TEXT, model=f"{hub.model}/nothing")
    assert caught.value.response.status_code == 404
    assert not isinstance(caught.value, BadRequestError)


_BENTOML_CLIENT = """
import sys
import bentoml
from bentoml.exceptions import BentoMLException

text = "this is a good story"
with bentoml.SyncHTTPClient(sys.argv[1]) as client:
    assert client.is_ready()
    found = client.predict(texts=[text], variant="dense")
    assert found["variant"] == "dense"
    assert found["predictions"][0]["label"] in ("negative", "positive")
    assert client.compare(texts=[text])["baseline"] == "dense"
    assert client.explain(texts=[text])["explanations"][0]["tokens"][1]["token"] == "this"
    assert len(client.hf(inputs=text)[0]) == 2
    for texts in ([" "], text):
        try:
            client.predict(texts=texts)
        except BentoMLException as error:
            print(error)
"""


def test_the_synchronous_client_of_bentoml_finds_every_endpoint(server: Server) -> None:
    command = [sys.executable, "-c", _BENTOML_CLIENT, server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "texts[0] is empty" in done.stdout
    assert "texts must be a list of strings" in done.stdout


def test_curl_speaks_to_each_shape(server: Server) -> None:
    for path, body in {"/hf": {"inputs": TEXT}, "/predict": {"inputs": [[TEXT]]}}.items():
        command = ["curl", "--silent", "--fail-with-body", f"{server.url}{path}", "--json"]
        done = subprocess.run([*command, json.dumps(body)], capture_output=True, timeout=60)
        assert done.returncode == 0, done.stdout
        assert len(json.loads(done.stdout)[0]) == 2


def test_hf_takes_a_batch_and_a_variant(client: httpx.Client, models_dir: Path) -> None:
    body = {"inputs": [TEXT, "a warm film"], "variant": "dense", "parameters": {"top_k": None}}
    found = client.post("/hf", json=body).json()
    dense = Engine.load(models_dir / "dense", threads=1)
    assert [pairs(row) for row in found] == [expected(dense, t) for t in (TEXT, "a warm film")]


def test_bodies_of_older_clients_are_taken(client: httpx.Client) -> None:
    body = {"inputs": TEXT, "options": {"wait_for_model": True, "use_cache": False}}
    assert client.post("/hf", json=body).json() == client.post("/hf", json={"inputs": TEXT}).json()
    for direction in ("right", "Right"):
        body = {"inputs": TEXT, "truncation_direction": direction}
        assert client.post("/predict", json=body).status_code == 200


@pytest.mark.parametrize("inputs", [TEXT, [TEXT]])
def test_tei_answers_a_single_text_flat(client: httpx.Client, engine: Engine, inputs: Any) -> None:
    response = client.post("/predict", json={"inputs": inputs})
    assert pairs(response.json()) == expected(engine, TEXT)


def test_tei_answers_a_batch_by_text(client: httpx.Client, engine: Engine) -> None:
    body = {"inputs": [[TEXT], ["a warm film"]], "truncate": False, "raw_scores": False}
    found = client.post("/predict", json=body).json()
    assert [pairs(row) for row in found] == [expected(engine, t) for t in (TEXT, "a warm film")]


def test_tei_gives_raw_scores(client: httpx.Client, engine: Engine) -> None:
    found = client.post("/predict", json={"inputs": TEXT, "raw_scores": True}).json()
    logits = dict(zip(engine.manifest.labels, engine.predict([TEXT]).logits[0], strict=True))
    assert {row["label"]: row["score"] for row in found} == pytest.approx(logits, abs=1e-5)
    assert found[0]["score"] == max(logits.values())


def test_tei_refuses_what_is_too_long_unless_it_may_cut(
    client: httpx.Client, engine: Engine
) -> None:
    for body, field in (
        ({"inputs": LONG}, "inputs"),
        ({"inputs": LONG, "truncate": False}, "inputs"),
        ({"inputs": [[TEXT], [LONG]]}, "inputs[1]"),
    ):
        response = client.post("/predict", json=body)
        assert response.status_code == 413
        error = response.json()["error"]
        assert (error["code"], error["field"]) == ("text_too_long", field)
        assert "32 tokens" in error["message"]
    response = client.post("/predict", json={"inputs": LONG, "truncate": True})
    assert pairs(response.json()) == expected(engine, LONG)


@pytest.mark.parametrize(
    ("kind", "body", "field", "word"),
    [
        (HuggingFaceRequest, {}, "inputs", "missing"),
        (HuggingFaceRequest, {"inputs": []}, "inputs", "empty list"),
        (HuggingFaceRequest, {"inputs": ["a", ""]}, "inputs[1]", "empty"),
        (HuggingFaceRequest, {"inputs": 3}, "inputs", "a string"),
        (HuggingFaceRequest, {"inputs": {"text": "a"}}, "inputs", "a string"),
        (HuggingFaceRequest, {"inputs": "a", "parameters": {"top_k": 0}}, "parameters.top_k", "1"),
        (HuggingFaceRequest, {"inputs": "a", "parameters": {"x": 0}}, "parameters.x", "no known"),
        (HuggingFaceRequest, {"inputs": ["a"] * 5}, "inputs", "at most 4"),
        (TeiRequest, {"inputs": ["a", "b"]}, "inputs", "pair"),
        (TeiRequest, {"inputs": [["a"], ["a", "b"]]}, "inputs[1]", "pair"),
        (TeiRequest, {"inputs": [["a"], "b"]}, "inputs[1]", "list"),
        (TeiRequest, {"inputs": [["a"], [" "]]}, "inputs[1][0]", "empty"),
        (TeiRequest, {"inputs": "a\ud800"}, "inputs", "surrogate"),
        (TeiRequest, {"inputs": "a", "truncate": "yes"}, "truncate", "boolean"),
        (TeiRequest, {"inputs": "a", "truncation_direction": "left"}, "truncation_direction",
         "right"),
        (TeiRequest, {"inputs": [["a"]] * 5}, "inputs", "at most 4"),
        (TeiRequest, {"inputs": "a", "texts": ["a"]}, "texts", "no known"),
    ],
)  # fmt: skip
def test_a_bad_body_gets_422_and_names_the_place(
    kind: Any, body: Any, field: str, word: str
) -> None:
    with pytest.raises(RequestError) as caught:
        parse(kind, json.dumps(body).encode(), max_texts=4)
    assert (caught.value.status, caught.value.field) == (422, field)
    assert word in str(caught.value)


LOGIT = st.floats(-1e4, 1e4, width=32)


@given(st.lists(st.tuples(LOGIT, LOGIT, LOGIT), max_size=5))
def test_scores_are_sorted_and_of_the_function_named(rows: list[tuple[float, ...]]) -> None:
    labels = ("a", "b", "c")
    for transform in ("softmax", "sigmoid", "none"):
        found = label_scores(rows, labels, transform)
        assert len(found) == len(rows)
        for scores, row in zip(found, rows, strict=True):
            assert {score.label for score in scores} == set(labels)
            values = [score.score for score in scores]
            assert values == sorted(values, reverse=True)
            if transform == "none":
                assert values == sorted(row, reverse=True)
            else:
                assert all(0 <= value <= 1 for value in values)
            if transform == "softmax":
                assert np.isclose(sum(values), 1)


def examples() -> list[str]:
    page = Path(__file__).resolve().parent.parent.parent / "docs" / "clients.md"
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", examples())
def test_the_clients_of_the_documentation_work(server: Server, example: str) -> None:
    assert "http://127.0.0.1:3000" in example
    code = example.replace("http://127.0.0.1:3000", server.url)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "positive" in done.stdout or "negative" in done.stdout
