"""The page in a real headless Chromium, in front of a real server: what a person does and sees. The
other tabs and trouble with the service are in the other files called test_page_.

Every test also fails on an error in the console, a refusal by the page's own policy included.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from page_steps import (
    DESK,
    LINES,
    PHONE,
    TEXT,
    Open,
    classify,
    compared,
    downloaded,
    explained,
    needs_chromium,
)
from running_server import Server, crisp, free_port, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest_plugins = "page_fixtures"
pytestmark = needs_chromium

LONG = "fine warm film " * 20  # the models of the tests read 32 tokens


def test_a_text_is_answered_by_every_model(open_page: Open, server: Server) -> None:
    page = open_page()
    classify(page, TEXT)
    for variant, prediction in compared(server, TEXT).items():
        card = page.locator(f'[data-variant="{variant}"]')
        assert card.locator(".verdict").inner_text().lower().split()[0] == prediction["label"]
        assert f"{100 * prediction['score']:.1f} %" in card.inner_text()
        assert re.search(r"Inference\s+[\d.,]+ ms", card.inner_text())
    order = page.locator("#cards [data-variant]").evaluate_all(
        "all => all.map(c => c.dataset.variant)"
    )
    assert order == ["sparse", "dense"]
    assert "sparse: " in page.locator("#try-status").inner_text()


def test_tokens_are_those_of_the_text_and_lie_where_the_service_says(
    open_page: Open, server: Server
) -> None:
    page = open_page()
    classify(page, TEXT)
    for variant in ("sparse", "dense"):
        page.check(f'#look-variants input[value="{variant}"]', force=True)
        page.wait_for_function(
            "v => document.querySelector('#look-variants :checked').value === v", arg=variant
        )
        found = explained(server, TEXT, variant)
        gone = [token for token in found["tokens"] if token["dropped_after"] is not None]
        page.wait_for_function(
            "n => document.querySelectorAll('.token.dropped').length === n", arg=len(gone)
        )
        shown = page.locator("#tokens").evaluate("box => box.textContent")
        assert shown == f"[CLS]{TEXT}[SEP]"
        words = page.locator(".token:not(.special)").all_inner_texts()
        characters = list(TEXT)  # by code points, as the offsets are: the text holds an emoji
        assert words == [
            "".join(characters[t["start"] : t["end"]]) for t in found["tokens"] if not t["special"]
        ]
        struck = page.locator(".token.dropped:not(.special)").all_inner_texts()
        assert struck == [
            "".join(characters[t["start"] : t["end"]]) for t in gone if not t["special"]
        ]
    assert explained(server, TEXT, "sparse")["layers"][0]["passed_on"] < 10_000


def test_the_slider_goes_through_the_layers(open_page: Open, server: Server) -> None:
    page = open_page()
    classify(page, TEXT)
    layers = explained(server, TEXT, "sparse")["layers"]
    assert layers[0]["passed_on"] < layers[0]["tokens"]
    assert page.locator("#layer-number").inner_text() == str(len(layers))
    page.focus("#layer")
    page.keyboard.press("Home")
    assert page.locator("#layer-number").inner_text() == "1"
    assert page.locator(".token.dropped").count() == 0
    assert page.locator(".token.dropped-here").count() == (
        layers[0]["tokens"] - layers[0]["passed_on"]
    )
    assert f"{layers[0]['tokens'] - layers[0]['passed_on']} are dropped here" in (
        page.locator("#layer-says").inner_text()
    )
    heat = page.locator(".token:not(.special)").evaluate_all(
        "all => all.map(t => Number(t.style.getPropertyValue('--heat-share')))"
    )
    assert max(heat) == 1
    assert len(set(heat)) > 3
    page.click("#token-table summary")
    page.wait_for_selector("#token-table tbody tr")  # filled when it opens
    assert page.locator("#token-table tbody tr").count() == layers[0]["tokens"]


def test_what_the_model_did_not_read_is_shown_as_such(open_page: Open) -> None:
    page = open_page()
    classify(page, LONG)
    assert "cut" in page.locator("#cards").inner_text()
    assert len(page.locator(".unread").inner_text()) > 100
    assert "longer than the model reads" in page.locator("#layer-says").inner_text()


def test_texts_are_never_markup(open_page: Open) -> None:
    page = open_page()
    text = 'a <img src=x onerror="document.title=1"> <b>good</b> film & "story"'
    classify(page, text)
    assert page.locator("#tokens img, #tokens b").count() == 0
    assert text in page.locator("#tokens").evaluate("box => box.textContent")
    page.click("#tab-batch")
    page.fill("#lines", text)
    page.click("#batch-run")
    page.wait_for_selector("#download:visible")
    assert page.locator("#batch-table td.text").inner_text() == text
    assert page.title() == "Crisp"


def test_the_keyboard_alone_will_do(open_page: Open) -> None:
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "tab-try"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-batch"
    assert page.locator("#batch").is_visible()
    page.keyboard.press("End")
    assert page.locator("#live").is_visible()
    page.keyboard.press("ArrowRight")  # round to the first
    assert page.locator("#try").is_visible()
    for _ in range(3):  # the links
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("a good film")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#look:not([hidden])")
    outline = page.locator("#text").evaluate("field => getComputedStyle(field).outlineStyle")
    assert outline != "none"


def test_the_address_leads_to_a_tab(open_page: Open) -> None:
    page = open_page("#batch")
    assert page.locator("#batch").is_visible()
    assert not page.locator("#try").is_visible()


def test_nothing_typed_is_said_without_asking_the_service(open_page: Open) -> None:
    page = open_page()
    page.on("request", lambda request: pytest.fail(request.url) if "compare" in request.url else 0)
    page.fill("#text", "  \n ")
    page.click("text=Classify >> nth=0")
    page.wait_for_selector("#try-error:has-text('Type a text first')")
    assert page.evaluate("document.activeElement.id") == "text"


def test_what_the_service_refuses_is_said_in_its_words(open_page: Open) -> None:
    page = open_page(expected=("422",))
    page.evaluate("document.getElementById('text').value = 'half a pair \\ud800'")
    page.click("text=Classify >> nth=0")
    page.wait_for_selector("#try-error:not([hidden])")
    assert "The text holds half a surrogate pair" in page.locator("#try-error").inner_text()
    page.fill("#text", "a good film")
    page.click("text=Classify >> nth=0")
    page.wait_for_selector("#look:not([hidden])")
    assert not page.locator("#try-error").is_visible()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            {
                "status": 429,
                "json": {"error": {"code": "overloaded", "message": "the queue is full"}},
                "headers": {"Retry-After": "7"},
            },
            ("The service is busy", "wait 7 s"),
        ),
        (
            {
                "status": 500,
                "json": {"error": {"code": "internal", "message": "the service failed"}},
                "headers": {"X-Request-ID": "abc123"},
            },
            ("The service failed", "abc123"),
        ),
        ({"status": 502, "body": "<html>Bad gateway</html>"}, ("answered 502",)),
        ({"status": 200, "body": "<html>Log in</html>"}, ("not JSON",)),
    ],
)
def test_trouble_is_told_in_plain_words(
    open_page: Open, answer: dict[str, Any], words: tuple[str, ...]
) -> None:
    page = open_page(expected=(str(answer["status"]),))
    page.route("**/compare", lambda route: route.fulfill(**answer))
    page.fill("#text", "a good film")
    page.click("text=Classify >> nth=0")
    page.wait_for_selector("#try-error:not([hidden])")
    for word in words:
        assert word in page.locator("#try-error").inner_text()
    assert page.locator("#cards:not(.old)").count() == 1


def test_a_service_that_is_gone_is_told(open_page: Open) -> None:
    page = open_page(expected=("ERR_FAILED",))
    page.route("**/compare", lambda route: route.abort())
    page.fill("#text", "a good film")
    page.click("text=Classify >> nth=0")
    page.wait_for_selector("#try-error:not([hidden])")
    assert "cannot be reached" in page.locator("#try-error").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_every_part_fits_and_passes_an_accessibility_check(
    open_page: Open, scheme: str, viewport: dict[str, int]
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(color_scheme=scheme, viewport=viewport)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", dark) or [0])) < 60) == (scheme == "dark")

    def check(part: str) -> None:
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= viewport["width"], f"{part} scrolls sideways: {width}"
        found = Axe().run(page)
        assert found.violations_count == 0, f"{part}: {found.generate_report()}"

    check("an empty page")
    classify(page, TEXT)
    page.click("#token-table summary")
    check("try")
    page.click("#tab-batch")
    page.fill("#lines", "\n".join([*LINES, "long" * 90]))
    page.click("#batch-run")
    page.wait_for_selector("#download:visible")
    check("batch")
    page.click("#tab-live")
    page.wait_for_selector("#live-tiles div")
    check("live")
    page.goto(page.url.split("#")[0] + "report")
    check("report")


def test_a_service_with_keys_is_asked_with_one_and_waited_for(
    browser: Browser, models_dir: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    made = subprocess.run(
        crisp("keys", "add", "page", "--file", str(keys)),
        capture_output=True,
        text=True,
        check=True,
    )
    (key,) = re.findall(r"crisp_\S+", made.stdout)
    port = free_port()
    command = crisp(
        "serve", "--models", str(models_dir), "--port", str(port), "--threads", "1",
        "--keys", str(keys), "--rate-limit", "2", "--rate-burst", "6",
    )  # fmt: skip
    with (
        running(command, port, tmp_path / "log", CRISP_MAX_TEXTS="2") as server,
        browser.new_context() as context,
    ):
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(server.url)
        page.wait_for_selector("#key-form:not([hidden])")
        page.fill("#text", "a good film")
        page.click("text=Classify >> nth=0")
        page.wait_for_selector("#try-error:not([hidden])")
        assert "asks for an API key" in page.locator("#try-error").inner_text()
        page.fill("#key", "crisp_wrong")
        page.click("text=Use it")
        page.wait_for_selector("#key-why:has-text('does not know this API key')")
        page.fill("#key", key)
        page.click("text=Use it")
        page.wait_for_selector("#foot:not(:empty)")
        page.click("#tab-batch")
        page.fill("#lines", "\n".join(LINES * 6))  # 12 requests: more than it may ask at once
        with page.expect_response(lambda response: response.status == 429):
            page.click("#batch-run")
        page.wait_for_selector("#download:visible")
        assert all(row["label"] and not row["error"] for row in downloaded(page))
        assert page.evaluate("Object.keys(localStorage).length") == 0
        assert key not in page.content()
