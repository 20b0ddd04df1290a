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


def downloaded(page: Page) -> list[dict[str, str]]:
    with page.expect_download() as waiting:
        page.click("#download")
    content = Path(waiting.value.path()).read_bytes().decode("utf-8")
    return list(csv.DictReader(io.StringIO(content, newline="")))
