"""Sends made-up requests to a real server: Hypothesis changes bodies, headers, methods and paths.

    python tests/faults/fuzz_http.py --requests 10000

Prints how many there were and what they got. Fails, with the smallest request that shows it, where
one got 500, another shape than an error's, or another number of predictions than texts.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections import Counter
from typing import Any

from fault_server import good_answer, serve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PATHS = ("/predict", "/compare", "/hf", "/explain")
FIELDS = ("texts", "inputs", "variant", "parameters", "truncate", "raw_scores", "top_k", "")
WORDS = st.sampled_from(("good film", "dull", "é", "\ud83d\ude00", "\ud800", "\0", " ", "[SEP]"))

texts = st.text(max_size=30) | WORDS
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
# Mostly what could be a request, with something wrong here and there.
almost = st.dictionaries(
    st.sampled_from(FIELDS) | st.text(max_size=5),
    st.lists(texts, max_size=5) | st.lists(st.lists(texts, max_size=2), max_size=3)
    | st.sampled_from(("sparse", "dense", "huge")) | values,
    max_size=4,
)  # fmt: skip
right = st.fixed_dictionaries({"texts": st.lists(st.text(min_size=1, max_size=40), min_size=1)})


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A request, almost one, other JSON, JSON with bytes changed, or any bytes."""
    value = draw(right | almost | values)
    body = json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    match draw(st.integers(0, 3)):
        case 0:
            at = draw(st.integers(0, len(body)))
            return body[:at] + draw(st.binary(max_size=4)) + body[at + draw(st.integers(0, 4)) :]
        case 1:
            return draw(st.binary(max_size=200) | st.just(body))
        case _:
            return body


HEADERS = st.dictionaries(
    st.sampled_from(("X-Request-ID", "Authorization", "Accept", "Cookie", "Expect", "Via", "Te")),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f")),
    max_size=2,
)


def mostly(usual: tuple[str, ...], other: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Nine times of ten one of the usual."""
    return st.integers(0, 9).flatmap(lambda n: st.sampled_from(usual if n else other))


TYPES = mostly(("application/json",), ("text/plain", "application/json; charset=x", ""))
METHODS = mostly(("POST",), ("GET", "PUT", "HEAD", "DELETE", "OPTIONS"))
ANY_PATH = mostly(PATHS, ("/models", "/livez", "/%00", "/x?y=z", "/page/%2e%2e", "/models/reload"))


def complaint(path: str, status: int, kind: str, answer: bytes, sent: bytes) -> str | None:
    """What is wrong with an answer, if anything is."""
    if status == 500 or b"Traceback" in answer:
        return f"{status}: {answer[:300]!r}"
    if not answer or "application/json" not in kind:
        return None if status < 400 or not answer else f"{status} with {kind}"
    value: Any = json.loads(answer)
    if status >= 400:
        return None if {"code", "message"} <= set(value["error"]) else f"{status}: {value}"
    if status == 200 and path == "/predict" and isinstance(value, dict):
        asked = json.loads(sent)["texts"]
        if len(asked) != len(value["predictions"]):
            return f"{len(value['predictions'])} predictions for {len(asked)} texts"
        for prediction in value["predictions"]:
            if abs(sum(prediction["scores"].values()) - 1) > 1e-6:
                return f"scores do not add up to 1: {prediction}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--requests", type=int, default=10_000)
    asked = parser.parse_args()
    counts: Counter[int] = Counter()
    with serve() as served:
        before = good_answer(served)
        connection = http.client.HTTPConnection(served.host, served.port, timeout=60)

        @settings(
            max_examples=asked.requests,
            database=None,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(METHODS, ANY_PATH, bodies(), TYPES, HEADERS)
        def answers(method: str, path: str, body: bytes, kind: str, headers: Any) -> None:
            nonlocal connection
            encoded = {name: value.encode("latin-1") for name, value in headers.items()}
            try:
                connection.request(method, path, body, {"Content-Type": kind, **encoded})
                response = connection.getresponse()
                answer = response.read()
            except (http.client.HTTPException, ConnectionError):
                # Closed between two requests, or a header that http.client does not send.
                connection.close()
                connection = http.client.HTTPConnection(served.host, served.port, timeout=60)
                return
            counts[response.status] += 1
            wrong = complaint(path, response.status, response.headers["content-type"] or "",
                              answer, body)  # fmt: skip
            assert wrong is None, f"{method} {path} {body!r}: {wrong}"

        answers()
        same = good_answer(served) == before
    found = ", ".join(f"{n} got {status}" for status, n in sorted(counts.items()))
    print(f"{sum(counts.values())} requests: {found}")
    if "Traceback" in served.log or not same:
        print("the log has a traceback, or the service answers otherwise than before")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
