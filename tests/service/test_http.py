"""The HTTP interface end to end: a real `crisp serve` with a tiny model answers real requests."""

from __future__ import annotations

import concurrent.futures
import gzip
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_server import Server, crisp, free_port, running

from service.engine import Engine

JSON = {"Content-Type": "application/json"}
MAX_BODY = 1 << 20


@pytest.fixture(scope="module")
def server(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    command = crisp("serve", "--models", str(models_dir), "--port", str(port), "--threads", "1")
    log = tmp_path_factory.mktemp("server") / "log"
    with running(command, port, log) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def schemas(client: httpx.Client) -> dict[str, Any]:
    return dict(client.get("/docs.json").json()["components"]["schemas"])


def error_of(response: httpx.Response, status: int) -> dict[str, str]:
    """The error in `response`, which must have the one shape and nothing of our insides."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    assert {"code", "message"} <= set(body["error"]) <= {"code", "message", "field"}
    assert all(isinstance(value, str) for value in body["error"].values())
    assert "Traceback" not in response.text
    return dict(body["error"])


def test_predict_answers_each_text_in_order(client: httpx.Client, models_dir: Path) -> None:
    texts = ["a warm film", "the plot is dull", "fine " * 100]
    response = client.post("/predict", json={"texts": texts})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"variant", "predictions", "timing"}
    assert body["variant"] == "sparse"
    expected = Engine.load(models_dir / "sparse", threads=1).predict(texts).predictions
    for found, own in zip(body["predictions"], expected, strict=True):
        assert set(found) == {"label", "score", "scores", "tokens", "truncated"}
        assert found["label"] == own.label
        assert found["score"] == pytest.approx(own.score, abs=1e-6)
        assert found["scores"] == pytest.approx(own.scores, abs=1e-6)
        assert (found["tokens"], found["truncated"]) == (own.tokens, own.truncated)
    assert [p["truncated"] for p in body["predictions"]] == [False, False, True]
    assert set(body["timing"]) == {"queue_ms", "tokenize_ms", "inference_ms"}
    assert all(value >= 0 for value in body["timing"].values())


@pytest.mark.parametrize("variant", ["dense", "sparse"])
def test_predict_with_a_variant(client: httpx.Client, models_dir: Path, variant: str) -> None:
    text = "this is not a good story, it is slow and long"
    response = client.post("/predict", json={"texts": [text], "variant": variant})
    assert response.json()["variant"] == variant
    expected = Engine.load(models_dir / variant, threads=1).predict([text]).predictions[0]
    assert response.json()["predictions"][0]["scores"] == pytest.approx(expected.scores, abs=1e-6)


def test_compare_sets_the_variants_side_by_side(client: httpx.Client) -> None:
    texts = ["good film", "bad film", "it is a long story with a dull plot"]
    body = client.post("/compare", json={"texts": texts}).json()
    assert set(body) == {"baseline", "comparisons", "agreement", "timing"}
    assert body["baseline"] == "dense"
    for variant in ("dense", "sparse"):
        alone = client.post("/predict", json={"texts": texts, "variant": variant}).json()
        together = [comparison["predictions"][variant] for comparison in body["comparisons"]]
        assert [p["label"] for p in together] == [p["label"] for p in alone["predictions"]]
        assert set(body["timing"][variant]) == {"queue_ms", "tokenize_ms", "inference_ms"}
    agree = [
        len({prediction["label"] for prediction in comparison["predictions"].values()}) == 1
        for comparison in body["comparisons"]
    ]
    assert [comparison["agree"] for comparison in body["comparisons"]] == agree
    assert body["agreement"] == {"sparse": pytest.approx(sum(agree) / len(texts))}


def test_compare_against_another_baseline(client: httpx.Client) -> None:
    body = client.post("/compare", json={"texts": ["good"], "variant": "sparse"}).json()
    assert body["baseline"] == "sparse"
    assert set(body["agreement"]) == {"dense"}


def test_models_tells_the_manifests_facts(client: httpx.Client, models_dir: Path) -> None:
    body = client.get("/models").json()
    assert body["default"] == "sparse"
    assert set(body["variants"]) == {"dense", "sparse"}
    engine = Engine.load(models_dir / "sparse", threads=1)
    for name, facts in body["variants"].items():
        assert facts["manifest"] == json.loads((models_dir / name / "manifest.json").read_text())
        assert facts["operators"] == {
            "kernel": "compiled" if engine.library.available else "fallback",
            "reason": engine.library.reason,
        }


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/metrics"])
def test_bentoml_probes_and_metrics_answer(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200


def test_metrics_count_requests(client: httpx.Client) -> None:
    client.post("/predict", json={"texts": ["good"]})
    shown = client.get("/metrics").text
    assert 'crisp_http_requests_total{endpoint="/predict",status="200"}' in shown


def test_made_up_paths_are_one_label(client: httpx.Client) -> None:
    for number in range(20):
        error_of(client.get(f"/made-up/{number}"), 404)
    shown = client.get("/metrics").text
    assert 'crisp_http_requests_total{endpoint="other",status="404"}' in shown
    assert "made-up" not in shown


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b"", 400, "invalid_json", None),
        (b'{"texts": ["a"]', 400, "invalid_json", None),
        (b'{"texts": ["caf\xe9"]}', 400, "invalid_json", None),
        (b'{"texts": ["a"], "variant": NaN}', 400, "invalid_json", None),
        (b'{"texts": ["a"], "texts": ["b"]}', 400, "invalid_json", None),
        (b"[" * 1_000_000, 400, "invalid_json", None),
        (b"[]", 422, "invalid_request", None),
        (b"{}", 422, "invalid_request", "texts"),
        (b'{"texts": "a"}', 422, "invalid_request", "texts"),
        (b'{"texts": []}', 422, "invalid_request", "texts"),
        (b'{"texts": ["a", "b", "c", 4]}', 422, "invalid_request", "texts[3]"),
        (b'{"texts": ["a", "b", "c", ""]}', 422, "empty_text", "texts[3]"),
        (b'{"texts": ["a", "b", "c", " \\t"]}', 422, "empty_text", "texts[3]"),
        (b'{"texts": ["a\\ud800"]}', 422, "unreadable_text", "texts[0]"),
        (b'{"texts": ["a\\u0000"]}', 422, "unreadable_text", "texts[0]"),
        (b'{"texts": ["a"], "\\ud800": 1}', 422, "unreadable_text", None),
        (b'{"texts": ["a"], "threshold": 1}', 422, "invalid_request", "threshold"),
        (b'{"texts": ["a"], "variant": "huge"}', 422, "unknown_variant", "variant"),
        (b'{"texts": ["a"], "variant": ""}', 422, "unknown_variant", "variant"),
        (b'{"texts": ["a"], "variant": "\\ud800"}', 422, "unknown_variant", "variant"),
        (json.dumps({"texts": ["a"] * 10_000}).encode(), 422, "too_many_texts", "texts"),
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/compare"])
def test_a_bad_body_is_refused(
    client: httpx.Client, path: str, body: bytes, status: int, code: str, field: str | None
) -> None:
    error = error_of(client.post(path, content=body, headers=JSON), status)
    assert error["code"] == code
    assert error.get("field") == field


def test_messages_say_what_to_do(client: httpx.Client) -> None:
    unknown = client.post("/predict", json={"texts": ["a"], "variant": "huge"})
    assert "known are dense, sparse" in error_of(unknown, 422)["message"]
    many = client.post("/predict", json={"texts": ["a"] * 10_000})
    assert "at most 256 texts" in error_of(many, 422)["message"]


def test_a_body_of_10_megabytes_is_refused(client: httpx.Client) -> None:
    error = error_of(client.post("/predict", content=b" " * 10_000_000, headers=JSON), 413)
    assert error["code"] == "body_too_large"
    assert str(MAX_BODY) in error["message"]


def test_a_chunked_body_of_10_megabytes_is_refused(client: httpx.Client) -> None:
    chunks = (b" " * 100_000 for _ in range(100))
    assert error_of(client.post("/predict", content=chunks, headers=JSON), 413)


def test_a_body_just_within_the_limit_is_read(client: httpx.Client) -> None:
    text = "film " * 209_000
    body = json.dumps({"texts": [text]}).encode()
    body += b" " * (MAX_BODY - len(body))
    (prediction,) = client.post("/predict", content=body, headers=JSON).json()["predictions"]
    assert prediction["truncated"]
    error_of(client.post("/predict", content=body + b" ", headers=JSON), 413)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/vnd.bentoml+pickle",
        "application/json; charset=latin-1",
        "application/json; charset=utf-8; charset=latin-1",
    ],
)
def test_only_json_is_taken(client: httpx.Client, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = client.post("/predict", content=b'{"texts": ["a"]}', headers=headers)
    assert "application/json" in error_of(response, 415)["message"]


@pytest.mark.parametrize(
    "content_type",
    [
        *("application/json; charset=utf-8", 'application/json;charset="UTF-8"; x=y'),
        *("Application/JSON", "application/json; charset=utf8", "application/json; profile=x;"),
    ],
)
def test_json_by_other_spellings_is_taken(client: httpx.Client, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    response = client.post("/predict", content=b'{"texts": ["a"]}', headers=headers)
    assert response.status_code == 200


def test_a_body_may_begin_with_a_byte_order_mark(client: httpx.Client) -> None:
    body = "\ufeff" + '{"texts": ["a"]}'
    assert client.post("/predict", content=body, headers=JSON).status_code == 200


def test_a_compressed_body_is_refused_as_such(client: httpx.Client) -> None:
    body = b'{"texts": ["a"]}'
    for encoding, content in (("gzip", gzip.compress(body)), ("br", body)):
        headers = {**JSON, "Content-Encoding": encoding}
        refused = client.post("/predict", content=content, headers=headers)
        assert error_of(refused, 415)["code"] == "unsupported_encoding"
    taken = client.post("/predict", content=body, headers={**JSON, "Content-Encoding": "identity"})
    assert taken.status_code == 200


def test_a_megabyte_of_one_word_holds_up_no_other_text(client: httpx.Client) -> None:
    """The other is too long for the event loop to tokenise, so it waits for a thread."""
    order: list[str] = []

    def ask(name: str, text: str) -> None:
        assert client.post("/predict", json={"texts": [text]}).status_code == 200
        order.append(name)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        slow = pool.submit(ask, "word", "a" * (MAX_BODY - 100))
        time.sleep(0.2)
        pool.submit(ask, "review", "good film " * 300).result()
        slow.result()
    assert order == ["review", "word"]


@pytest.mark.parametrize("path", ["/page/nothing.js", "/nothing/here"])
def test_an_unknown_path_gets_404_with_a_hint(client: httpx.Client, path: str) -> None:
    message = error_of(client.get(path), 404)["message"]
    assert "/predict" in message
    assert "/docs.json" in message


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/predict", "POST"), ("PUT", "/compare", "POST"), ("POST", "/models", "GET"),
     ("POST", "/livez", "GET")],
)  # fmt: skip
def test_a_wrong_method_gets_405(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)
    assert allowed in error_of(response, 405)["message"]
    assert allowed in response.headers["allow"]


def test_simultaneous_requests_get_their_own_answers(client: httpx.Client) -> None:
    texts = [f"{word} film" for word in ("good", "bad", "long", "slow", "warm", "dull")] * 4

    def ask(text: str) -> dict[str, float]:
        answer = client.post("/predict", json={"texts": [text]}).json()
        return dict(answer["predictions"][0]["scores"])

    alone = {text: ask(text) for text in set(texts)}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for text, scores in zip(texts, pool.map(ask, texts), strict=True):
            assert scores == pytest.approx(alone[text], abs=1e-6)


def test_a_client_that_goes_away_does_no_harm(server: Server, client: httpx.Client) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for sent in (b"POST /predict HTTP/1.1\r\n", b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
                 b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"):  # fmt: skip
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(sent)
    assert client.post("/predict", json={"texts": ["good"]}).status_code == 200


def test_a_page_of_another_site_is_told_nothing(client: httpx.Client) -> None:
    for path in ("/", "/livez", "/models", "/metrics", "/docs.json"):
        assert client.get(path).status_code == 200, path
        refused = client.get(path, headers={"Host": "evil.example"})
        assert error_of(refused, 421)["code"] == "unknown_host"


def test_what_is_refused_before_it_is_a_request_is_counted(
    server: Server, client: httpx.Client
) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    counted = 'crisp_http_requests_total{endpoint="other",status="400"} 1.0'
    assert counted in client.get("/metrics").text


def test_the_log_has_a_line_a_request_and_no_traceback(
    server: Server, client: httpx.Client
) -> None:
    client.post("/predict", json={"texts": ["a text that nobody should find in a log"]})
    assert "path=/predict" in server.log
    assert "Traceback" not in server.log
    assert "nobody should find" not in server.log
