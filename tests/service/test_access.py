"""Who is let in: keys, and the order of the guards, without a server and with one."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from running_server import crisp, free_port, running
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from service import keys
from service.access import listening, warn_if_open
from service.front import guarded
from service.metrics import Metrics
from service.settings import Settings

PROBES = ("/livez", "/readyz", "/healthz")


async def seen(request: Request) -> Response:
    return JSONResponse({"key": request.scope.get("state", {}).get("key")})


async def page(_: Request) -> Response:
    policy = "default-src 'self'; frame-ancestors 'none'"
    return PlainTextResponse("page", headers={"Content-Security-Policy": policy})


ROUTES = [
    Route("/predict", seen, methods=["POST"]),
    Route("/models/reload", seen, methods=["POST"]),
    Route("/page/{name}", page),
    Route("/", page),
]


class Guarded:
    """The guards around a small application; `ask` answers one request."""

    def __init__(self, settings: Settings) -> None:
        self.metrics = Metrics(CollectorRegistry())
        bentoml = Starlette(routes=[Route(path, page) for path in (*PROBES, "/metrics", "/docs")])
        own = Starlette(routes=ROUTES)
        self.app = guarded(own, bentoml, own.routes, settings, self.metrics)

    def ask(self, method: str, path: str, key: str | None = None, **headers: str) -> httpx.Response:
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"

        async def scenario() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(scenario())

    def counted(self, endpoint: str, status: int) -> float:
        self.metrics.tallies.tell()
        return self.metrics.http_requests.labels(endpoint, str(status))._value.get()


def code(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_without_keys_everyone_is_let_in_but_nobody_loads_models() -> None:
    open_to_all = Guarded(Settings())
    assert open_to_all.ask("POST", "/predict").json() == {"key": None}
    refused = open_to_all.ask("POST", "/models/reload")
    assert (refused.status_code, code(refused)) == (403, "admin_only")


def test_with_keys_one_is_needed(file: Path) -> None:
    key = keys.add(file, "shop")
    closed = Guarded(Settings(keys=file))
    assert closed.ask("POST", "/predict", key).json() == {"key": "shop"}
    for header in ("", "Bearer", "Bearer ", "Basic eDp5", key):
        refused = closed.ask("POST", "/predict", Authorization=header)
        assert (refused.status_code, code(refused)) == (401, "no_key")
        assert refused.headers["www-authenticate"].startswith("Bearer")
    for guess in (key[:-1], key + "x", "crisp_", "é"):
        headers = {"Authorization": f"Bearer {guess}".encode()}
        refused = closed.ask("POST", "/predict", **headers)  # type: ignore[arg-type]
        assert (refused.status_code, code(refused)) == (401, "unknown_key")
        assert guess not in refused.text or guess == "crisp_"
    assert closed.ask("POST", "/predict", Authorization=f"bearer  {key} ").status_code == 200


def test_what_is_the_same_for_everyone_needs_no_key(file: Path) -> None:
    keys.add(file, "shop")
    closed = Guarded(Settings(keys=file))
    for path in (*PROBES, "/", "/page/app.js"):
        assert closed.ask("GET", path).status_code == 200, path
    assert closed.ask("GET", "/metrics").status_code == 401
    assert closed.ask("GET", "/nothing").status_code == 404


def test_only_an_admin_key_loads_models(file: Path) -> None:
    shop, ops = keys.add(file, "shop"), keys.add(file, "ops", admin=True)
    closed = Guarded(Settings(keys=file))
    assert closed.ask("POST", "/models/reload").status_code == 401
    assert code(closed.ask("POST", "/models/reload", shop)) == "admin_only"
    assert closed.ask("POST", "/models/reload", ops).json() == {"key": "ops"}


def test_every_answer_has_security_headers_and_a_request_id() -> None:
    app = Guarded(Settings())
    for method, path in (("POST", "/predict"), ("GET", "/nothing"), ("PUT", "/predict")):
        answer = app.ask(method, path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        policy = "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["content-security-policy"] == policy
        assert len(answer.headers["x-request-id"]) == 32
    assert app.ask("GET", "/").headers.get_list("content-security-policy") == [
        "default-src 'self'; frame-ancestors 'none'"
    ]


def test_a_request_keeps_its_callers_id_where_that_is_plain_and_short() -> None:
    app = Guarded(Settings())
    for identifier in ("abc", "a-1_2.3:4/5=", "x" * 128):
        answer = app.ask("GET", "/livez", **{"X-Request-ID": identifier})
        assert answer.headers.get_list("x-request-id") == [identifier]
    for identifier in ("", "a b", "x" * 129, '"', "a,b", "é".encode().decode("latin-1")):
        header = {"X-Request-ID": identifier.encode("latin-1")}
        answer = app.ask("GET", "/livez", **header)  # type: ignore[arg-type]
        assert len(answer.headers["x-request-id"]) == 32


def test_made_up_paths_never_reach_bentoml_and_are_one_label() -> None:
    app = Guarded(Settings())
    for path in ("/docs", "/x", "/predict/", "/livez/", "/page/a/b"):
        assert app.ask("GET", path).status_code == 404, path
    assert app.counted("other", 404) == 5
    assert app.ask("GET", "/page/app.js").status_code == 200
    assert app.counted("/page/{name}", 200) == 1


def test_a_websocket_is_closed() -> None:
    app = Guarded(Settings())
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/predict", "headers": []}
    asyncio.run(app.app(scope, receive, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close"}]


@pytest.mark.parametrize(
    ("addresses", "warned"),
    [(["127.0.0.1"], False), (["::1", "127.0.0.1"], False), (["0.0.0.0"], True), (["::"], True)],
)
def test_an_open_door_is_said_loudly(
    addresses: list[str],
    warned: bool,
    file: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    warn_if_open(Settings(), addresses)
    assert ("ANYONE WHO REACHES" in caplog.text) == warned
    caplog.clear()
    keys.add(file, "shop")
    warn_if_open(Settings(keys=file), addresses)
    assert not caplog.text


def test_the_addresses_are_those_that_are_listened_on() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.2", 0))
        assert "127.0.0.2" not in listening()
        one.listen()
        assert "127.0.0.2" in listening()


def test_a_server_does_not_start_without_the_keys_it_was_told_of(tmp_path: Path) -> None:
    command = crisp("serve", "--port", str(free_port()), "--keys", str(tmp_path / "none.json"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("crisp: error: cannot read the keys in ")


def test_a_server_with_keys(models_dir: Path, tmp_path: Path, file: Path) -> None:
    """The whole way: a file from `crisp keys`, a real server, keys neither logged nor told."""
    key = keys.add(file, "shop")
    port = free_port()
    options = ("--keys", str(file), "--log-format", "json", "--host", "0.0.0.0")
    command = crisp("serve", "--models", str(models_dir), "--port", str(port), *options)
    with running(command, port, tmp_path / "log") as server:
        body = {"texts": ["good film"]}
        assert httpx.post(f"{server.url}/predict", json=body).status_code == 401
        headers = {"Authorization": f"Bearer {key}", "X-Request-ID": "one-of-ours"}
        answer = httpx.post(f"{server.url}/predict", json=body, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["x-request-id"] == "one-of-ours"
        reload = httpx.post(f"{server.url}/models/reload", headers=headers)
        assert (reload.status_code, code(reload)) == (403, "admin_only")
        keys.revoke(file, "shop")
        refused = answer
        for _ in range(40):  # it looks at its file once a second
            refused = httpx.post(f"{server.url}/predict", json=body, headers=headers)
            if refused.status_code == 401:
                break
            time.sleep(0.1)
        assert refused.json()["error"]["code"] == "unknown_key"
    assert '"key": "shop"' in server.log
    assert '"request_id": "one-of-ours"' in server.log
    assert key not in server.log
    assert "ANYONE" not in server.log
