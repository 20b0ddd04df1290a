"""A fast wrong answer is a failure: what the judge lets through, and what it doesn't."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from fake_service import PREDICTION, right

from loadtests.answers import Answer, judge

REQUEST = {"texts": ["one", "two"], "variant": "sparse"}


def judged(status: int, content: Any) -> Answer:
    return judge(status, json.dumps(content), variant="sparse", texts=2)


def answer(**changes: Any) -> dict[str, Any]:
    """A right answer but for the second prediction, which has `changes`."""
    content = copy.deepcopy(right(REQUEST)[1])
    content["predictions"][1] = PREDICTION | changes
    return dict(content)


def test_a_right_answer_has_no_fault_and_its_tokens_counted() -> None:
    assert judged(*right(REQUEST)) == Answer(tokens=14)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"label": "neutral"}, "label is not among its scores"),
        ({"label": "negative"}, "label is not the one with the highest score"),
        ({"score": 0.7}, "score is not that of its label"),
        ({"scores": {"negative": 0.5, "positive": 0.75}}, "do not add up to 1"),
        ({"scores": {"negative": -0.25, "positive": 1.25}}, "not a probability"),
        ({"scores": {"negative": "low", "positive": 1}}, "not a probability"),
        ({"scores": None}, "label is not among its scores"),
        ({"tokens": 0}, "no number of tokens"),
        ({"tokens": None}, "no number of tokens"),
    ],
)
def test_a_wrong_prediction_is_a_fault(changes: dict[str, Any], fault: str) -> None:
    found = judged(200, answer(**changes)).fault
    assert found is not None
    assert fault in found


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([], "no list of predictions"),
        ({"predictions": {}}, "no list of predictions"),
        ({"variant": "dense", "predictions": [PREDICTION] * 2}, "'dense' answered"),
        ({"variant": "sparse", "predictions": [PREDICTION]}, "asked for 2 predictions, got 1"),
        ({"variant": "sparse", "predictions": [PREDICTION, 3]}, "not an object"),
    ],
)
def test_a_wrong_answer_is_a_fault(content: Any, fault: str) -> None:
    found = judged(200, content).fault
    assert found is not None
    assert fault in found


def test_errors_of_the_service_are_quoted() -> None:
    content = {"error": {"code": "too_busy", "message": "come back later"}}
    assert judged(503, content).fault == "HTTP 503: too_busy: come back later"
    assert judged(500, {"detail": "x"}).fault == "HTTP 500"
    assert judged(500, {"error": "text"}).fault == "HTTP 500"


def test_no_answer_and_no_json_are_faults() -> None:
    assert judge(0, None, variant="sparse", texts=1).fault == "no answer: the connection failed"
    found = judge(200, b"<html>", variant="sparse", texts=1).fault
    assert found == "HTTP 200, and the body is not JSON"
    assert judge(502, None, variant="sparse", texts=1).fault is not None


def test_refusals_that_name_different_times_are_one_fault() -> None:
    def refused(seconds: str) -> str | None:
        message = f"rate of 1,000 exceeded; try again in {seconds} s"
        body = json.dumps({"error": {"code": "rate_limited", "message": message}})
        return judge(429, body, variant="dense", texts=1).fault

    assert refused("0.37") == refused("12") is not None
    assert refused("1") == "HTTP 429: rate_limited: rate of N exceeded; try again in N s"
