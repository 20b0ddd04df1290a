"""Takes the pictures of the page that are in docs/images/, of a real service with the bundled pair.

.venv/bin/python tests/service/screenshots.py
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import browser as browsers
from PIL import Image
from running_server import ROOT, crisp, free_port, running

IMAGES = ROOT / "docs" / "images"
DESK = {"width": 1080, "height": 760}
PHONE = {"width": 390, "height": 844}
LINES = [
    "A warm, funny film that never talks down to its audience.",
    "Two hours that I will not get back.",
    "The plot makes no sense at all, and I would not change a single minute of it.",
    "Handsome, careful, and about as alive as a furniture catalogue.",
    "I came for the songs and stayed for the grandmother.",
    "Somebody should have told the director that whispering is not a plot.",
    "Small, sly and over far too soon.",
    "It is not the disaster that I was promised, and not much better either.",
]


def save(png: bytes, file: Path) -> None:
    """Writes a picture of few colours as small as it can be."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)


def main() -> None:
    """Overwrites the pictures. Needs Chromium: see tests/service/browser.py."""
    port = free_port()
    command = crisp("serve", "--port", str(port), "--reports", str(ROOT / "docs" / "results"))
    with (
        tempfile.TemporaryDirectory() as folder,
        running(command, port, Path(folder) / "log") as server,
        browsers.chromium() as browser,
    ):
        for name, viewport, scheme, tab in (
            ("page", DESK, "light", "try"),
            ("page-dark", DESK, "dark", "try"),
            ("page-phone", PHONE, "light", "try"),
            ("page-batch", DESK, "light", "batch"),
            ("page-live", DESK, "dark", "live"),
            ("page-report", DESK, "light", "report"),
        ):
            context = browser.new_context(
                viewport=viewport,  # type: ignore[arg-type]
                color_scheme=scheme,  # type: ignore[arg-type]
                device_scale_factor=1.5,
            )
            page = context.new_page()
            page.goto(f"{server.url}/{'report' if tab == 'report' else '#' + tab}")
            if tab == "try":
                page.click("text=A long review")
                page.wait_for_selector("#look:not([hidden])")
                page.locator("#layer").focus()
                page.keyboard.press("ArrowLeft")
                page.locator("#layer").blur()
            elif tab == "batch":
                page.fill("#lines", "\n".join(LINES * 24))
                page.select_option("#batch-variant", "")
                page.click("#batch-run")
                page.wait_for_selector("#download:visible")
            elif tab == "live":
                page.wait_for_selector("#live-tiles div")
                page.click("#tab-batch")
                many = "\n".join(LINES * 800).encode()
                page.set_input_files(
                    "#file", {"name": "lines.txt", "mimeType": "text/plain", "buffer": many}
                )
                page.wait_for_selector("#file-facts:not([hidden])")
                page.select_option("#batch-variant", "")
                page.click("#batch-run")
                page.click("#tab-live")
                page.wait_for_timeout(35_000)
            page.wait_for_timeout(500)  # for what moves to have moved
            if viewport is PHONE:
                page.locator("#cards").scroll_into_view_if_needed()
            whole = viewport is DESK and tab != "live"
            save(page.screenshot(full_page=whole), IMAGES / f"{name}.png")
            context.close()
            print(f"docs/images/{name}.png")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    main()
