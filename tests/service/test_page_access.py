"""What the page says and shows to people who cannot see, point or wait as others do: its loading,
live regions, the focus, forced colours, touch, and a question before results are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from page_steps import (
    DESK,
    LINES,
    PHONE,
    TEXT,
    Open,
    choose_file,
    classify,
    downloaded,
    needs_chromium,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytest_plugins = "page_fixtures"
pytestmark = needs_chromium

KEYLESS: dict[str, Any] = {
    "status": 401,
    "json": {"error": {"code": "unauthorized", "message": "it wants a key"}},
}
HEAR = """id => {
  window.heard = [];
  const node = document.getElementById(id);
  new MutationObserver(() => heard.push(node.textContent)).observe(node, { childList: true });
}"""


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id"))


def batch(page: Page, lines: list[str]) -> None:
    page.fill("#lines", "\n".join(lines))
    page.click("#batch-run")


# Loading.


def test_what_is_pressed_before_the_scripts_run_harms_nothing(open_page: Open) -> None:
    page = open_page()
    held: list[Route] = []
    page.route("**/page/main.js", lambda route: held.append(route))
    page.reload(wait_until="commit")
    page.fill("#text", TEXT)
    page.click("text=Classify >> nth=0")
    page.wait_for_timeout(200)
    held[0].continue_()
    page.wait_for_selector("#loading", state="detached")
    classify(page, TEXT)


def test_scripts_that_do_not_come_are_told(open_page: Open) -> None:
    page = open_page(expected=("ERR_FAILED",))
    page.wait_for_selector("#loading", state="detached")
    page.route("**/page/try.js", lambda route: route.abort())
    page.reload()
    delay = page.locator("#loading").evaluate("node => getComputedStyle(node).animationDelay")
    assert delay == "1s"  # it mostly is a moment
    page.wait_for_selector("text=If this stays, reload the page.")


# Try.


def test_a_wait_is_told(open_page: Open) -> None:
    page = open_page()
    classify(page, TEXT)
    held: list[Route] = []
    page.route("**/compare", lambda route: held.append(route))
    page.fill("#text", "a good film")
    page.click("text=Classify >> nth=0")
    assert page.locator("#try-waits").inner_text() == ""
    page.wait_for_selector("text=Asking the models…")
    assert page.locator("#cards").get_attribute("aria-busy") == "true"
    assert page.locator("#cards").evaluate("box => getComputedStyle(box).opacity") == "1"
    held[0].continue_()
    page.wait_for_selector("#look:not(.old)")
    assert page.locator("#try-waits").inner_text() == ""
    assert page.locator("[aria-busy=true]").count() == 0


def test_the_same_message_is_said_again(open_page: Open) -> None:
    page = open_page()
    page.evaluate(HEAR, "try-error")
    for _ in range(2):
        page.evaluate("heard = []")
        page.click("text=Classify >> nth=0")
        page.wait_for_function("() => heard.at(-1) === 'Type a text first.'")
    assert page.evaluate("heard") == ["", "Type a text first."]


def test_a_step_of_the_slider_is_said_once(open_page: Open) -> None:
    assert open_page().locator("#layer-number").get_attribute("aria-live") == "off"


# Batch.


def test_the_focus_follows_the_buttons(open_page: Open) -> None:
    page = open_page("#batch")
    held: list[Route] = []
    page.route("**/predict", lambda route: held.append(route))
    batch(page, LINES)
    page.wait_for_selector("#batch-stop:visible")
    assert focused(page) == "batch-stop"
    page.wait_for_timeout(200)
    held[0].continue_()
    page.wait_for_selector("#download:visible")
    assert focused(page) == "download"
    page.route("**/compare", lambda _: None)  # never answered
    page.select_option("#batch-variant", "")
    batch(page, LINES)
    page.click("#batch-stop")
    page.wait_for_selector("#batch-go-on:visible")
    assert focused(page) == "batch-go-on"
    page.click("#batch-go-on")
    assert focused(page) == "batch-stop"
    page.focus("#batch-variant")
    page.evaluate("document.getElementById('batch-stop').click()")
    page.wait_for_selector("#batch-go-on:visible")
    assert focused(page) == "batch-variant"


def test_a_question_is_asked_before_results_are_lost(open_page: Open) -> None:
    page = open_page("#batch")
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))

    def reload() -> int:
        asked.clear()
        page.reload()
        return len(asked)

    assert reload() == 0
    page.route("**/predict", lambda _: None)
    batch(page, LINES)
    assert reload() == 1  # it runs
    page.unroute("**/predict")
    batch(page, LINES)
    page.wait_for_selector("#download:visible")
    downloaded(page)
    assert reload() == 0
    batch(page, LINES)
    page.wait_for_selector("#download:visible")
    assert reload() == 1  # it is not downloaded


def test_the_description_of_the_service_is_asked_for_by_the_first_batch(open_page: Open) -> None:
    page = open_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    page.reload()
    page.wait_for_selector("#foot:not(:empty)")
    assert "docs.json" not in asked
    page.click("#tab-batch")
    for _ in range(2):
        page.select_option("#batch-variant", "sparse")
        batch(page, LINES)
        page.wait_for_selector("#download:visible")
    assert asked.count("docs.json") == 1


# The key.


def test_a_key_is_asked_for_in_words(open_page: Open) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(expected=("401",))
    page.add_init_script(f"addEventListener('DOMContentLoaded', () => ({HEAR})('key-why'), true)")
    page.route("**/models", lambda route: route.fulfill(**KEYLESS))
    page.reload()
    page.wait_for_selector("#key-why:has-text('asks for an API key')")
    assert page.evaluate("heard.at(-1)") == "This service asks for an API key."
    found = Axe().run(page, options={"rules": {"region": {"enabled": True}}})
    assert found.violations_count == 0, found.generate_report()
    page.unroute("**/models")
    page.click("#tab-batch")
    page.fill("#key", "crisp_key")
    page.click("text=Use it")
    assert focused(page) == "lines"
    page.wait_for_selector("#key-says:has-text('uses this API key now')", state="attached")


# Sight and touch.


def test_what_is_chosen_is_seen_in_forced_colours(open_page: Open) -> None:
    page = open_page(forced_colors="active")
    classify(page, TEXT)
    highlight = page.evaluate(
        """() => {
          document.body.style.outlineColor = "Highlight";
          return getComputedStyle(document.body).outlineColor;
        }"""
    )
    colour = "node => getComputedStyle(node).backgroundColor"
    for chosen in ("#tab-try", ".segments label:has(:checked)"):
        assert page.locator(chosen).evaluate(colour) == highlight
    kept = "all => all.map((node) => getComputedStyle(node).forcedColorAdjust)"
    for coloured in (".token", ".fill", ".scale"):
        assert set(page.locator(coloured).evaluate_all(kept)) == {"none"}


def test_a_finger_hits_what_it_means(open_page: Open) -> None:
    page = open_page(has_touch=True, is_mobile=True, viewport=PHONE)
    classify(page, TEXT)
    small = """() => [...document.querySelectorAll(
        "button, .button, select, summary, .check, .links a, .segments label, #layer")]
      .filter((node) => node.offsetParent && node.getBoundingClientRect().height < 44)
      .map((node) => node.outerHTML)"""
    assert page.evaluate(small) == []
    page.click("#tab-batch")
    choose_file(page, "a.csv", "id,text\n1,slow\n")
    assert page.evaluate(small) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert open_page(viewport=DESK).locator(".chip").first.bounding_box()["height"] < 40
