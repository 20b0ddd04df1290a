"""A headless Chromium for tests and screenshots: the system's own, driven by Playwright.

Playwright's own download is not used: Debian's and Ubuntu's `chromium`, or Chrome, will do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

VARIABLE = "CRISP_CHROMIUM"  # names another executable
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable() -> str | None:
    """The browser to use, or None where there is none."""
    named = os.environ.get(VARIABLE)
    return named or next(filter(None, map(shutil.which, _NAMES)), None)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser, ended afterwards. Its sandbox cannot be used by root, as in containers."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=arguments)
        try:
            yield browser
        finally:
            browser.close()
