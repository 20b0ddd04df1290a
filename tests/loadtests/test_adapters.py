"""What each kind of server is asked, and which of its answers count as right."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_service import right

from loadtests.adapters import ADAPTERS
from loadtests.answers import Answer

TEXTS = ["A warm, funny film.", "Two hours I will not get back."]
LABEL = {"label": "positive", "score": 0.75}
OTHER = {"label": "negative", "score": 0.25}

# By adapter, where the list of predictions stands in an answer: under a key, or by itself.
KEYS = {"plain": "predictions", "hf": None, "infinity": "data"}


def answer(adapter: str, predictions: Any) -> bytes:
    key = KEYS[adapter]
    return json.dumps(predictions if key is None else {key: predictions, "model": "x"}).encode()


def fault(adapter: str, body: bytes, status: int = 200) -> str | None:
    found = ADAPTERS[adapter].judge(status, body, "sparse", len(TEXTS))
    assert found == Answer(fault=found.fault)  # these servers say nothing of tokens and times
    return found.fault


def test_no_adapter_is_left_out_here() -> None:
    assert {*KEYS, "crisp"} == set(ADAPTERS)


@pytest.mark.parametrize(
    ("adapter", "path", "ready", "body"),
    [
        ("crisp", "/predict", "/readyz", {"texts": TEXTS, "variant": "sparse"}),
        ("plain", "/predict", "/health", {"texts": TEXTS}),
        ("hf", "/", "/health", {"inputs": TEXTS}),
        ("infinity", "/classify", "/health", {"model": "sparse", "input": TEXTS}),
    ],
)
def test_a_server_is_asked_as_it_wants_to_be(
    adapter: str, path: str, ready: str, body: dict[str, Any]
) -> None:
    asked = ADAPTERS[adapter]
    assert (asked.path, asked.ready, asked.body(tuple(TEXTS), "sparse")) == (path, ready, body)


@pytest.mark.parametrize("adapter", KEYS)
@pytest.mark.parametrize(
    "predictions",
    [
        [LABEL, OTHER],
        [[LABEL, OTHER], [OTHER, LABEL]],
        [[LABEL], [LABEL]],  # the best alone, as Text Embeddings Inference has it
        [{"label": "positive", "score": 1}, {"label": "LABEL_0", "score": 0}],
    ],
)
def test_a_label_with_its_score_for_each_text_is_right(adapter: str, predictions: Any) -> None:
    assert fault(adapter, answer(adapter, predictions)) is None


NO_LIST = "the answer has no list of predictions: is it the right adapter?"
NO_LABEL = "a prediction has no label with a score"


@pytest.mark.parametrize("adapter", KEYS)
@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        ([LABEL], "asked for 2 predictions, got 1"),
        ([LABEL] * 3, "asked for 2 predictions, got 3"),
        ([], "asked for 2 predictions, got 0"),
        ([LABEL, []], NO_LABEL),
        ([LABEL, [LABEL, {}]], NO_LABEL),
        ([LABEL, {"label": "positive"}], NO_LABEL),
        ([LABEL, {"score": 0.75}], NO_LABEL),
        ([LABEL, {"label": None, "score": 0.75}], NO_LABEL),
        ([LABEL, {"label": "positive", "score": "0.75"}], NO_LABEL),
        ([LABEL, {"label": "positive", "score": 1.5}], NO_LABEL),
        ([LABEL, {"label": "positive", "score": -0.5}], NO_LABEL),
        ([LABEL, {"label": "positive", "score": float("nan")}], NO_LABEL),
        ([LABEL, "positive"], NO_LABEL),
        ([LABEL, None], NO_LABEL),
        ({"0": LABEL, "1": LABEL}, NO_LIST),
        (None, NO_LIST),
        ("ab", NO_LIST),
    ],
)
def test_what_is_no_label_with_its_score_for_each_text_is_a_fault(
    adapter: str, predictions: Any, expected: str
) -> None:
    assert fault(adapter, answer(adapter, predictions)) == expected


@pytest.mark.parametrize("adapter", KEYS)
@pytest.mark.parametrize("key", ["predictions", "data", "outputs", None])
def test_an_answer_of_another_kind_of_server_is_a_fault(adapter: str, key: str | None) -> None:
    body = json.dumps([LABEL, OTHER] if key is None else {key: [LABEL, OTHER]}).encode()
    assert fault(adapter, body) == (None if key == KEYS[adapter] else NO_LIST)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"<html>", "HTTP 200, and the body is not JSON"),
        (200, b"", "HTTP 200, and the body is not JSON"),
        (200, b"\xff", "HTTP 200, and the body is not JSON"),
        (0, b"", "no answer: the connection failed"),
        (503, b"no", "HTTP 503, and the body is not JSON"),
        (429, b'{"error": {"code": "overloaded"}}', "HTTP 429: overloaded"),
        (500, b"[1, 2]", "HTTP 500"),
    ],
)
def test_no_success_and_no_json_is_a_fault_of_any_server(
    adapter: str, status: int, body: bytes, expected: str
) -> None:
    assert ADAPTERS[adapter].judge(status, body, "sparse", 2) == Answer(fault=expected)


@pytest.mark.parametrize(("variant", "texts"), [("sparse", 1), ("dense", 2)])
def test_the_service_itself_must_answer_with_the_variant_and_every_text(
    variant: str, texts: int
) -> None:
    crisp = ADAPTERS["crisp"]
    status, content = right(crisp.body(TEXTS, "sparse"))
    body = json.dumps(content).encode()
    assert crisp.judge(status, body, "sparse", 2) == Answer(tokens=14)
    assert str(crisp.judge(status, body, variant, texts).fault).startswith("asked for ")


@pytest.mark.parametrize("adapter", KEYS)
def test_a_right_answer_with_another_status_is_a_fault(adapter: str) -> None:
    assert fault(adapter, answer(adapter, [LABEL, OTHER]), status=202) == "HTTP 202"
