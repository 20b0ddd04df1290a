"""The page where the service fails, is slow or changes, and where the browser stores nothing: what
is shown must be what was asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from page_steps import DESK, PHONE, TEXT, Open, classify, explained, needs_chromium
from running_server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytest_plugins = "page_fixtures"
pytestmark = needs_chromium

BUSY = {
    "status": 503,
    "json": {"error": {"code": "overloaded", "message": "no turn came"}},
    "headers": {"Retry-After": "3"},
}


def hold(page: Page, path: str) -> list[Route]:
    """The requests for `path` from now on, which nobody answers yet."""
    held: list[Route] = []
    page.route(path, lambda route: held.append(route))
    return held


def ask(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.click("text=Classify >> nth=0")


def choose(page: Page, variant: str) -> None:
    page.check(f'#look-variants input[value="{variant}"]', force=True)


def error_of(page: Page) -> str:
    page.wait_for_selector("#try-error:not([hidden]):not(:empty)")
    return page.locator("#try-error").inner_text()


# Try: an answer stands for the text and the model that were asked, or it does not stand.


def test_an_answer_is_gone_where_the_next_one_fails(open_page: Open) -> None:
    page = open_page(expected=("503",))
    classify(page, TEXT)
    held = hold(page, "**/compare")
    ask(page, "a good film")
    page.wait_for_selector("#cards.old")
    page.wait_for_selector("#look.old")
    assert page.locator("#try-status").inner_text() == ""
    held[0].fulfill(**BUSY)
    assert "is busy" in error_of(page)
    assert page.locator("#cards *").count() == 0
    assert not page.locator("#look").is_visible()
    page.unroute("**/compare")
    classify(page, TEXT)
    assert not page.locator("#try-error").is_visible()


def test_tokens_of_another_text_are_gone_where_there_are_none_of_this(open_page: Open) -> None:
    page = open_page(expected=("503",))
    classify(page, TEXT)
    page.route("**/explain", lambda route: route.fulfill(**BUSY))
    ask(page, "a good film")
    assert "is busy" in error_of(page)
    assert page.locator("#cards:not(.old) .card").count() == 2
    assert not page.locator("#look").is_visible()


def test_a_model_that_does_not_answer_is_not_chosen(open_page: Open, server: Server) -> None:
    page = open_page(expected=("503",))
    classify(page, TEXT)
    page.route("**/explain", lambda route: route.fulfill(**BUSY))
    choose(page, "dense")
    assert "is busy" in error_of(page)
    assert page.locator("#look-variants :checked").input_value() == "sparse"
    page.wait_for_selector("#look:not(.old)")
    page.unroute("**/explain")
    choose(page, "dense")
    page.wait_for_selector("#try-error", state="hidden")
    assert page.locator("#look-variants :checked").input_value() == "dense"
    gone = [t for t in explained(server, TEXT, "dense")["tokens"] if t["dropped_after"] is not None]
    assert page.locator(".token.dropped").count() == len(gone)


def test_a_model_that_is_chosen_meanwhile_explains_the_answer_that_comes(open_page: Open) -> None:
    page = open_page()
    classify(page, TEXT)
    held = hold(page, "**/compare")
    ask(page, "a good film")
    page.wait_for_selector("#look.old")
    choose(page, "dense")
    held[0].continue_()
    page.wait_for_selector("#look:not(.old)")
    assert "good film" in page.locator("#tokens").inner_text()
    assert page.locator("#look-variants :checked").input_value() == "dense"


def test_nothing_asked_leaves_what_runs(open_page: Open) -> None:
    page = open_page()
    held = hold(page, "**/compare")
    ask(page, TEXT)
    page.wait_for_selector("#cards.old", state="attached")
    ask(page, "")
    assert "Type a text first" in error_of(page)
    held[0].continue_()
    page.wait_for_selector("#look:not([hidden]):not(.old)")
    assert page.locator("#cards:not(.old) .card").count() == 2
    assert not page.locator("#try-error").is_visible()


def test_the_bars_stand_above_the_slider_at_every_width(open_page: Open) -> None:
    fits = """() => {
      const [, , width] = document.getElementById("funnel").getAttribute("viewBox").split(" ");
      return Number(width) === document.getElementById("layer").clientWidth;
    }"""
    page = open_page()
    held = hold(page, "**/explain")
    ask(page, TEXT)
    page.wait_for_selector("#cards .card")
    page.click("#tab-batch")
    held[0].continue_()
    page.wait_for_selector("#look:not([hidden]):not(.old)", state="attached")
    page.click("#tab-try")  # they were drawn while they were not seen
    page.wait_for_function(fits)
    for size in (PHONE, DESK):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.wait_for_function(fits)


def test_almost_certain_is_not_certain(open_page: Open) -> None:
    page = open_page()
    scores = {"sparse": 0.9996, "dense": 1.0}

    def answer(route: Route) -> None:
        response = route.fetch()
        body = response.json()
        for name, prediction in body["comparisons"][0]["predictions"].items():
            prediction["score"] = scores[name]
        route.fulfill(response=response, json=body)

    page.route("**/compare", answer)
    classify(page, TEXT)
    assert page.locator("#cards .confidence").all_inner_texts() == [">99.9 %", "100.0 %"]


# The key.


def test_the_page_works_where_the_browser_stores_nothing(open_page: Open) -> None:
    page = open_page()
    page.add_init_script(
        """Object.defineProperty(window, "sessionStorage", {
          get() { throw new DOMException("Access is denied", "SecurityError"); },
        });"""
    )
    page.reload()
    page.wait_for_selector("#foot:not(:empty)")
    page.evaluate("document.getElementById('key-form').hidden = false")
    page.fill("#key", "crisp_key")
    with page.expect_request("**/models") as asked:
        page.click("text=Use it")
    assert asked.value.headers["authorization"] == "Bearer crisp_key"
    classify(page, TEXT)


@pytest.mark.parametrize("key", ["crisp_ключ", "crisp_“key”", "crisp_key\u200b"])
def test_a_key_that_no_header_carries_is_told(open_page: Open, key: str) -> None:
    page = open_page()
    page.evaluate("document.getElementById('key-form').hidden = false")
    page.fill("#key", key)
    page.click("text=Use it")
    page.wait_for_selector("#key-why:has-text('only English letters')")
    assert page.evaluate("document.activeElement.id") == "key"
    page.fill("#key", "crisp_key")
    page.click("text=Use it")
    page.wait_for_selector("#key-form", state="hidden")
    classify(page, TEXT)


# The models.


def renamed(models: dict[str, Any]) -> dict[str, Any]:
    variants = {"dense": models["variants"]["dense"], "other": models["variants"]["sparse"]}
    return {"default": "other", "variants": variants}


def test_models_are_asked_for_until_they_are_known(open_page: Open) -> None:
    page = open_page(expected=("ERR_CONNECTION_REFUSED", "503"))
    troubles = ["abort", "busy"]

    def answer(route: Route) -> None:
        trouble = troubles.pop(0) if troubles else ""
        if trouble == "abort":
            route.abort("connectionrefused")
        elif trouble == "busy":
            route.fulfill(**{**BUSY, "headers": {"Retry-After": "1"}})
        else:
            route.continue_()

    page.route("**/models", answer)
    page.reload()
    page.wait_for_selector("#foot:has-text('sparse and dense')")
    assert troubles == []
    assert page.locator("#batch-variant option").all_inner_texts() == ["sparse", "dense", "both"]


@pytest.mark.parametrize("occasion", ["refused", "seen again"])
def test_other_models_are_noticed(open_page: Open, occasion: str) -> None:
    page = open_page("#batch", expected=("422",))
    page.wait_for_selector("#foot:has-text('sparse and dense')")
    page.select_option("#batch-variant", "dense" if occasion == "seen again" else "sparse")

    def models(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json=renamed(response.json()))

    def predict(route: Route) -> None:
        body = json.loads(route.request.post_data or "")
        route.continue_(post_data=json.dumps({**body, "variant": body["variant"] + "-gone"}))

    page.route("**/models", models)
    page.route("**/predict", predict)
    if occasion == "refused":
        page.fill("#lines", "good")
        page.click("#batch-run")
        page.wait_for_selector("#batch-error:not([hidden])")
    else:
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_selector("#foot:has-text('other and dense')")
    assert page.locator("#batch-variant option").all_inner_texts() == ["other", "dense", "both"]
    chosen = page.locator("#batch-variant").input_value()
    assert chosen == ("other" if occasion == "refused" else "dense")
