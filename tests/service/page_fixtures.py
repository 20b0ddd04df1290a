"""A real server and a headless Chromium in front of it, for the tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import browser as browsers
import pytest
from page_steps import DESK, Open
from running_server import Server, crisp, free_port, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def server(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    command = crisp("serve", "--models", str(models_dir), "--port", str(port), "--threads", "1")
    log = tmp_path_factory.mktemp("server") / "log"
    with running(command, port, log, CRISP_MAX_TEXTS="10", CRISP_MAX_BODY_BYTES="20000") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Open]:
    """Opens pages of the server; at the end none of them may have complained."""
    complaints: list[str] = []
    contexts = []

    def opened(path: str = "", *, expected: tuple[str, ...] = (), **context: Any) -> Page:
        """`expected` are parts of the console errors that are part of the test."""

        def complain(text: str) -> None:
            if not any(part in text for part in expected):
                complaints.append(text)

        context.setdefault("viewport", DESK)
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda m: complain(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complain(str(error)))
        page.goto(f"{server.url}/{path}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
