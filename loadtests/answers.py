"""What counts as a right answer of `POST /predict`: a fast wrong answer is a failure.

judge(200, body, variant="sparse", texts=1)   # Answer(tokens=25, parts={"queue": 0.1, ...})
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isclose
from typing import Any


@dataclass(frozen=True)
class Answer:
    """Tokens that the service reports to have read; the milliseconds that it reports for each part
    of its work; and what is wrong with the answer, if anything. Faults of one kind read alike, so
    that they can be counted."""

    tokens: int = 0
    parts: Mapping[str, float] = field(default_factory=dict)
    fault: str | None = None


def judge(status: int, body: bytes | str | None, *, variant: str, texts: int) -> Answer:
    """Checks an answer to a request of `texts` texts to `variant`. Status 0: no answer came."""
    content = content_of(status, body)
    if isinstance(content, Answer):
        return content
    if not isinstance(content, dict) or not isinstance(content.get("predictions"), list):
        return Answer(fault="the answer has no list of predictions: is this a Crisp service?")
    if content.get("variant") != variant:
        return Answer(fault=f"asked for variant {variant!r}, {content.get('variant')!r} answered")
    predictions = content["predictions"]
    if len(predictions) != texts:
        return Answer(fault=f"asked for {texts} predictions, got {len(predictions)}")
    faults = [fault for fault in map(_fault_of_prediction, predictions) if fault]
    if faults:
        return Answer(fault=faults[0])
    tokens = sum(prediction["tokens"] for prediction in predictions)
    return Answer(tokens, _parts(content.get("timing")))


def content_of(status: int, body: bytes | str | None) -> Any:
    """The JSON of an answer, or an Answer with what is wrong where it has none or is no success."""
    if status == 0:
        return Answer(fault="no answer: the connection failed")
    try:
        content = json.loads(body or b"")
    except ValueError:
        return Answer(fault=f"HTTP {status}, and the body is not JSON")
    return content if status == 200 else Answer(fault=f"HTTP {status}{_reason(content)}")


def _parts(timing: Any) -> dict[str, float]:
    """`{"queue_ms": 1.5}` as `{"queue": 1.5}`, of what is a time."""
    if not isinstance(timing, dict):
        return {}
    return {
        name.removesuffix("_ms"): float(value)
        for name, value in timing.items()
        if name.endswith("_ms") and isinstance(value, int | float) and value >= 0
    }


def _fault_of_prediction(prediction: Any) -> str | None:
    if not isinstance(prediction, dict):
        return "a prediction is not an object"
    label, scores = prediction.get("label"), prediction.get("scores")
    if not isinstance(scores, dict) or label not in scores:
        return "a prediction's label is not among its scores"
    if not all(isinstance(score, int | float) and 0 <= score <= 1 for score in scores.values()):
        return "a score is not a probability"
    if not isclose(sum(scores.values()), 1, abs_tol=1e-3):
        return "a prediction's scores do not add up to 1"
    if scores[label] < max(scores.values()):
        return "a prediction's label is not the one with the highest score"
    if prediction.get("score") != scores[label]:
        return "a prediction's score is not that of its label"
    tokens = prediction.get("tokens")
    if not isinstance(tokens, int) or tokens < 1:
        return "a prediction has no number of tokens"
    return None


def _reason(content: Any) -> str:
    """`: code: message` of the service's error shape, as far as it is there. Numbers of a message,
    such as seconds to wait, are N: faults of one kind read alike."""
    error = content.get("error") if isinstance(content, dict) else None
    if not isinstance(error, dict):
        return ""
    found = "".join(f": {error[key]}" for key in ("code", "message") if error.get(key))
    return re.sub(r"\d+(?:[.,]\d+)*", "N", found)
