"""How to ask each kind of server for the same thing, and what counts as its right answer.

An adapter is a path, a body and a judge; a new kind of server is one more entry of ADAPTERS.

    adapter = ADAPTERS["crisp"]
    body = adapter.body(["A warm, funny film."], "sparse")   # for POST http://.../predict
    adapter.judge(200, answer, "sparse", 1)                  # Answer(tokens=8, ...)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.answers import Answer, content_of, judge

Body = Callable[[Sequence[str], str], Any]
Judge = Callable[[int, bytes, str, int], Answer]  # status, body, variant, number of texts


@dataclass(frozen=True)
class Adapter:
    """`ready` is the path that answers 200 as soon as the server can be asked."""

    path: str
    ready: str
    body: Body
    judge: Judge


def _crisp_judge(status: int, body: bytes, variant: str, texts: int) -> Answer:
    return judge(status, body, variant=variant, texts=texts)


def _label_lists(key: str | None) -> Judge:
    """Judges a list, for each text, of labels with scores; under `key` where there is one."""

    def judged(status: int, body: bytes, _variant: str, texts: int) -> Answer:
        content = content_of(status, body)
        if isinstance(content, Answer):
            return content
        if key is not None:
            content = content.get(key) if isinstance(content, dict) else None
        if not isinstance(content, list):
            return Answer(fault="the answer has no list of predictions: is it the right adapter?")
        if len(content) != texts:
            return Answer(fault=f"asked for {texts} predictions, got {len(content)}")
        if not all(map(_has_a_best, content)):
            return Answer(fault="a prediction has no label with a score")
        return Answer()

    return judged


def _has_a_best(prediction: Any) -> bool:
    """A label with its score, or several of them: not all servers send those that lose."""
    labels = prediction if isinstance(prediction, list) else [prediction]
    return bool(labels) and all(
        isinstance(each, dict)
        and isinstance(each.get("label"), str)
        and isinstance(each.get("score"), int | float)
        and 0 <= each["score"] <= 1
        for each in labels
    )


ADAPTERS: dict[str, Adapter] = {
    "crisp": Adapter(
        "/predict",
        "/readyz",
        lambda texts, variant: {"texts": list(texts), "variant": variant},
        _crisp_judge,
    ),
    # The peers' servers in loadtests/peers/, and whoever speaks as they do.
    "plain": Adapter(
        "/predict", "/health", lambda texts, _: {"texts": list(texts)}, _label_lists("predictions")
    ),
    # Text classification as Hugging Face's inference servers have it.
    "hf": Adapter("/", "/health", lambda texts, _: {"inputs": list(texts)}, _label_lists(None)),
    # https://github.com/michaelfeil/infinity: the variant is the name of the model.
    "infinity": Adapter(
        "/classify",
        "/health",
        lambda texts, variant: {"model": variant, "input": list(texts)},
        _label_lists("data"),
    ),
}
