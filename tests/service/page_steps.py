"""What a person does on the page, and what the service says to the same: for the page's tests."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import browser as browsers
import httpx
import pytest
from running_server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

needs_chromium = [
    pytest.mark.browser,
    pytest.mark.skipif(
        browsers.executable() is None,
        reason=f"there is no Chromium: apt install chromium, or name one in {browsers.VARIABLE}",
    ),
]

TEXT = "This is not a good story, it is slow and long, ☃ 😀 and the plot is dull"
LINES = ["a warm film", "the plot is dull", "it is a long story, not bad", "slow, slow"]
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1100, "height": 900}

Open = Callable[..., "Page"]


def compared(server: Server, text: str) -> dict[str, Any]:
    answer = httpx.post(f"{server.url}/compare", json={"texts": [text]}, timeout=60).json()
    return dict(answer["comparisons"][0]["predictions"])


def explained(server: Server, text: str, variant: str) -> dict[str, Any]:
    body = {"texts": [text], "variant": variant}
    answer = httpx.post(f"{server.url}/explain", json=body, timeout=60).json()
    return dict(answer["explanations"][0])


def classify(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.click("text=Classify >> nth=0")
    page.wait_for_selector("#look:not([hidden]):not(.old)")
    page.wait_for_selector("#cards:not(.old)")


def choose_file(page: Page, name: str, content: str | bytes) -> None:
    """Chooses a file, and waits until it is shown."""
    buffer = content.encode() if isinstance(content, str) else content
    file: Any = {"name": name, "mimeType": "", "buffer": buffer}
    page.set_input_files("#file", file)
    page.wait_for_selector(f"#file-name:text-is('{name}')")


def downloaded(page: Page, separator: str = ",", start: str = "") -> list[dict[str, str]]:
    """The rows of the CSV, which must begin with `start`."""
    with page.expect_download() as waiting:
        page.click("#download")
    content = Path(waiting.value.path()).read_bytes().decode("utf-8")
    assert content.startswith(start)
    lines = io.StringIO(content.removeprefix(start), newline="")
    return list(csv.DictReader(lines, delimiter=separator))
