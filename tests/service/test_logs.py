"""Log lines: one for each request, in both formats, and no caller writes one of their own."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from service import logs
from service.front import Front
from service.logs import AccessLog, JsonLines, TextLines
from service.metrics import Metrics
from service.middleware import RequestId
from service.settings import Settings

Said = Callable[[], str]  # what was logged since it was last asked
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


async def fail(_: Request) -> Response:
    raise RuntimeError("as it were")


APP = Starlette(
    routes=[
        Route("/echo", echo, methods=["POST"]),
        Route("/livez", echo),
        Route("/fail", fail),
        Route("/metrics", fail),
    ]
)


def fronted() -> ASGIApp:
    return Front(APP, APP, APP.routes, Settings(), Metrics(CollectorRegistry()))


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What is logged during a test; logging is as it was afterwards."""
    root, names = logging.getLogger(), ("bentoml", "uvicorn.error", "circus")
    kept = (root.handlers, root.level, logs.access.level)
    others = {n: (logging.getLogger(n).handlers, logging.getLogger(n).propagate) for n in names}
    yield lambda: capsys.readouterr().out
    root.handlers, level, access = kept
    root.setLevel(level)
    logs.access.setLevel(access)
    for name, (handlers, propagate) in others.items():
        logging.getLogger(name).handlers = handlers
        logging.getLogger(name).propagate = propagate


def ask(app: ASGIApp, method: str, path: str, content: bytes = b"", **headers: str) -> None:
    async def scenario() -> None:
        transport = httpx.ASGITransport(RequestId(app), raise_app_exceptions=False)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.request(method, path, content=content, headers=headers)

    asyncio.run(scenario())


def json_lines(said: Said) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said().splitlines()]


def test_a_request_is_a_line_of_json(said: Said) -> None:
    logs.configure(Settings(log_format="json"))
    ask(AccessLog(APP), "POST", "/echo?q=1", b"a secret", **{"X-Request-ID": "mine"})
    (line,) = json_lines(said)
    assert TIME.fullmatch(line.pop("time"))
    assert line.pop("ms") >= 0
    assert line == {
        "level": "INFO",
        "logger": "crisp.access",
        "method": "POST",
        "path": "/echo",
        "status": 200,
        "bytes": 8,
        "client": "127.0.0.1",
        "request_id": "mine",
    }


def test_a_request_is_a_line_of_text(said: Said) -> None:
    logs.configure(Settings())
    ask(AccessLog(APP), "POST", "/echo", b"a secret", **{"X-Request-ID": "mine"})
    (line,) = said().splitlines()
    assert TIME.match(line)
    assert " INFO crisp.access method=POST path=/echo status=200 " in line
    assert line.endswith(" request_id=mine")
    assert "secret" not in line


def test_texts_are_logged_only_where_that_is_asked_for(said: Said) -> None:
    logs.configure(Settings(log_format="json"))
    ask(AccessLog(APP, texts=True), "POST", "/echo", b"a secret \xff" + b"x" * 10_000)
    (line,) = json_lines(said)
    assert line["body"].startswith("a secret \ufffd")
    assert len(line["body"]) == logs.MAX_LOGGED


def test_without_access_log_there_is_no_line(said: Said) -> None:
    logs.configure(Settings(access_log=False))
    ask(AccessLog(APP), "POST", "/echo")
    assert said() == ""


def test_probes_are_logged_when_they_fail_only(said: Said) -> None:
    logs.configure(Settings(log_format="json"))
    app = AccessLog(fronted())
    ask(app, "GET", "/livez")
    assert said() == ""
    ask(app, "GET", "/metrics")
    failure, access = json_lines(said)
    assert (access["path"], access["status"]) == ("/metrics", 500)
    assert "RuntimeError: as it were" in failure["exception"]


def test_a_failure_is_one_line_with_the_id_of_its_request(said: Said) -> None:
    logs.configure(Settings(log_format="json"))
    ask(fronted(), "GET", "/fail", **{"X-Request-ID": "mine"})
    (line,) = json_lines(said)
    assert (line["message"], line["level"]) == ("GET /fail failed", "ERROR")
    assert line["request_id"] == "mine"
    assert line["exception"].endswith("RuntimeError: as it were")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_path_forges_a_line(said: Said, log_format: str) -> None:
    logs.configure(Settings(log_format=log_format))  # type: ignore[arg-type]
    app = AccessLog(fronted())
    for path in ("/x%0AINFO%20all%20is%20well", "/%1b[31m", "/" + "x" * 5000, "/a=b%22c"):
        ask(app, "GET", path)
    lines = said().splitlines()
    assert len(lines) == 4
    assert all(line.isascii() and line.isprintable() and len(line) < 500 for line in lines)
    assert not [line for line in lines if "all is well" in line]


@given(
    st.text(),
    st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text() | st.integers()),
)
def test_whatever_is_said_is_one_line(message: str, facts: dict[str, Any]) -> None:
    record = logging.LogRecord("crisp", logging.INFO, "", 0, "%s", (message,), None)
    record.facts = facts
    line = JsonLines().format(record)
    assert "\n" not in line
    clash = {"time", "level", "logger", "message"}
    found = json.loads(line)
    assert found["message"] == message or "message" in facts
    assert {k: v for k, v in facts.items() if k not in clash}.items() <= found.items()
    words = TextLines().format(record).partition(" crisp ")[2].removeprefix(message)
    assert "\n" not in words


def test_lines_of_libraries_have_the_same_format(said: Said) -> None:
    library = logging.getLogger("uvicorn.error")
    library.handlers = [logging.StreamHandler()]
    library.propagate = False
    logs.configure(Settings(log_format="json"))
    library.warning("Invalid HTTP request received.")
    (line,) = json_lines(said)
    assert line["message"] == "Invalid HTTP request received."
