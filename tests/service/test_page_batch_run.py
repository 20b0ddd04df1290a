"""How a batch of the page goes on: with refusals, failures and stops, and with very many rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from page_steps import LINES, Open, downloaded, needs_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytest_plugins = "page_fixtures"
pytestmark = needs_chromium

# Answers at once, as a service would. The models disagree about the first text alone.
QUICK = """
  const asked = window.fetch;
  const label = (name, score) => ({ label: name, score, tokens: 5, truncated: false });
  window.fetch = async (path, options) => {
    if (path !== "compare") return asked(path, options);
    await new Promise((resolve) => setTimeout(resolve));
    options.signal.throwIfAborted();
    const comparisons = JSON.parse(options.body).texts.map((text) => {
      const agree = text !== "row 0";
      const predictions = {
        dense: label(agree ? "positive" : "negative", 0.6), sparse: label("positive", 0.99996),
      };
      return { agree, predictions };
    });
    return new Response(JSON.stringify({ comparisons }));
  };
  window.longest = 0;
  new PerformanceObserver((tasks) => {
    for (const { duration } of tasks.getEntries()) longest = Math.max(longest, duration);
  }).observe({ type: "longtask" });
"""


def run(page: Page, lines: list[str], variant: str = "sparse") -> None:
    page.fill("#lines", "\n".join(lines))
    page.select_option("#batch-variant", variant)
    page.click("#batch-run")


def tile(page: Page, name: str) -> str:
    return page.locator("#batch-tiles div", has_text=name).locator("dd").inner_text()


def texts_of(route: Route) -> list[str]:
    return list(json.loads(route.request.post_data or "")["texts"])


def refusal(status: int, code: str = "", **headers: str) -> dict[str, Any]:
    return {
        "status": status,
        "json": {"error": {"code": code, "message": "it is so"}},
        "headers": headers,
    }


def test_a_row_that_the_service_refuses_does_not_stop_the_rest(open_page: Open) -> None:
    page = open_page("#batch", expected=("422",))
    page.evaluate("document.getElementById('lines').value = 'good\\n\\ud800\\nbad\\n\\udc00'")
    page.select_option("#batch-variant", "sparse")
    page.click("#batch-run")
    page.wait_for_selector("#download:visible")
    rows = downloaded(page)
    assert [bool(row["label"]) for row in rows] == [True, False, True, False]
    assert "surrogate" in rows[1]["error"]


def test_requests_shrink_until_the_service_takes_them(open_page: Open) -> None:
    page = open_page("#batch", expected=("413",))
    texts = ["good " * 700] * 9 + ["bad " * 6000, "dull"]
    page.fill("#lines", "\n".join(texts))
    page.select_option("#batch-variant", "sparse")
    page.click("#batch-run")
    page.wait_for_selector("#download:visible")
    rows = downloaded(page)
    assert [bool(row["label"]) for row in rows] == [True] * 9 + [False, True]
    assert "at most 20000 bytes" in rows[9]["error"]


def test_a_limit_that_is_not_known_is_found(open_page: Open) -> None:
    page = open_page(expected=("422", "ERR_FAILED"))
    page.route("**/docs.json", lambda route: route.abort())
    page.reload()
    page.click("#tab-batch")
    page.wait_for_selector("#batch-variant option[value=dense]", state="attached")
    page.fill("#lines", "\n".join(LINES * 10))
    page.click("#batch-run")
    page.wait_for_selector("#download:visible")
    assert all(row["label"] for row in downloaded(page))


def test_a_run_can_be_stopped(open_page: Open) -> None:
    page = open_page("#batch")
    page.route("**/predict", lambda _: None)  # never answered
    page.fill("#lines", "good\nbad")
    page.select_option("#batch-variant", "sparse")
    page.click("#batch-run")
    page.click("#batch-stop")
    page.wait_for_selector("#batch-stop", state="hidden")
    assert "Stopped after 0 of 2 texts" in page.locator("#batch-status").inner_text()
    page.unroute("**/predict")
    page.click("#batch-run")
    page.wait_for_selector("#download:visible")


def test_what_may_pass_is_waited_for(open_page: Open) -> None:
    page = open_page("#batch", expected=("ERR_CONNECTION_REFUSED", "502", "429"))
    # As of a service that is started anew, behind a proxy, and then has too much to do.
    trouble: list[Any] = ["connectionrefused", refusal(502)]
    trouble += [refusal(429, "overloaded", **{"Retry-After": "0.01"})] * 25

    def answer(route: Route) -> None:
        if not trouble:
            route.continue_()
        elif isinstance(trouble[0], str):
            route.abort(trouble.pop(0))
        else:
            route.fulfill(**trouble.pop(0))

    page.route("**/predict", answer)
    run(page, LINES)
    page.wait_for_selector("text=The service does not answer: trying again in 1 s.")
    page.wait_for_selector("#download:visible")
    assert not page.locator("#batch-error").is_visible()
    assert not page.locator("#batch-go-on").is_visible()
    assert all(row["label"] for row in downloaded(page))


def test_a_request_that_takes_too_long_is_halved(open_page: Open) -> None:
    page = open_page("#batch", expected=("504",))
    sizes: list[int] = []

    def answer(route: Route) -> None:
        texts = texts_of(route)
        sizes.append(len(texts))
        if len(texts) > 3 or "slow" in texts:
            route.fulfill(**refusal(504, "timeout"))
        else:
            route.continue_()

    page.route("**/predict", answer)
    run(page, ["good"] * 8 + ["slow", "bad"])
    page.wait_for_selector("#download:visible")
    assert sizes[:3] == [10, 5, 3]
    rows = downloaded(page)
    assert [row["text"] for row in rows if not row["label"]] == ["slow"]
    assert rows[8]["error"] == "It is so."


@pytest.mark.parametrize("status", [500, 403])
def test_a_run_that_failed_goes_on_where_it_was(open_page: Open, status: int) -> None:
    page = open_page("#batch", expected=(str(status),))
    asked: list[str] = []

    def answer(route: Route) -> None:
        texts = texts_of(route)
        if len(asked) < 10:
            asked.extend(texts)
            route.continue_()
        else:
            route.fulfill(**refusal(status))

    page.route("**/predict", answer)
    lines = [f"text {i}" for i in range(24)]
    run(page, ["", *lines])
    page.wait_for_selector("#batch-error:not([hidden])")
    assert page.locator("#batch-error").inner_text() == "It is so."
    lost = 3 if status == 500 else 0  # alone and one by one, before it is the service's fault
    assert page.locator("#batch-status").inner_text() == f"Stopped after {10 + lost} of 24 texts."
    rows = downloaded(page)
    assert [row["error"] for row in rows[10:]] == ["It is so."] * lost + ["not sent"] * (14 - lost)
    page.unroute("**/predict")
    page.on(
        "request", lambda request: asked.extend((request.post_data_json or {}).get("texts", []))
    )
    page.click("#batch-go-on")
    page.wait_for_selector("#batch-status:has-text('24 texts in')")
    assert asked == lines[:10] + lines[10 + lost :]
    assert not page.locator("#batch-error").is_visible()
    assert not page.locator("#batch-go-on").is_visible()
    assert [bool(row["label"]) for row in downloaded(page)] == (
        [True] * 10 + [False] * lost + [True] * (14 - lost)
    )


def test_very_many_rows_leave_the_page_responsive(open_page: Open) -> None:
    page = open_page("#batch")
    page.evaluate(QUICK)
    rows = "".join(f"row {i}\n" for i in range(200_000)).encode()
    file = {"name": "rows.txt", "mimeType": "text/plain", "buffer": rows}
    page.set_input_files("#file", file)  # type: ignore[arg-type]
    page.wait_for_selector("#file-facts:not([hidden])")
    page.select_option("#batch-variant", "")
    page.click("#batch-run")
    page.wait_for_function(
        """() => {
          const status = document.getElementById("batch-status").textContent;
          return parseInt(status.replaceAll(",", "")) > 150_000;
        }"""
    )
    page.click("#batch-stop")
    page.wait_for_selector("#batch-go-on:visible", timeout=5000)
    assert "Stopped after" in page.locator("#batch-status").inner_text()
    assert page.evaluate("longest") < 2000  # ms
    assert tile(page, "same label") == ">99.9 %"
    assert ">0.999" in page.locator("#batch-table").inner_text()


def test_rows_without_text_are_not_fast(open_page: Open, tmp_path: Path) -> None:
    page = open_page("#batch")
    page.route("**/predict", lambda route: (page.wait_for_timeout(500), route.continue_()))
    file = tmp_path / "reviews.csv"
    file.write_text("id,text\n" + "".join(f"{i},\n" for i in range(1000)) + "1,good\n")
    page.set_input_files("#file", file)
    page.wait_for_selector("#file-facts:not([hidden])")
    page.click("#batch-run")
    page.wait_for_selector("#download:visible")
    assert float(tile(page, "texts a second").replace(",", "")) < 2


def test_a_screen_reader_hears_little_of_the_progress(open_page: Open) -> None:
    page = open_page("#batch", expected=("429",))
    refused: list[bool] = []

    def answer(route: Route) -> None:
        refused.append(not (refused and refused[-1]))  # every other one
        if refused[-1]:
            route.fulfill(**refusal(429, "rate_limited", **{"Retry-After": "0.01"}))
        else:
            route.continue_()

    page.route("**/predict", answer)
    page.evaluate(
        """() => {
          window.heard = [];
          const says = document.getElementById("batch-says");
          new MutationObserver(() => heard.push(says.textContent)).observe(says, {childList: true});
        }"""
    )
    run(page, LINES * 100)  # 40 requests, and a wait before each
    page.wait_for_selector("#download:visible")
    heard = page.evaluate("heard")
    assert heard[0] == "0 of 400 texts"
    assert heard[-1].startswith("400 texts in")
    assert 1 <= sum("busy" in says for says in heard) <= 10
    assert 3 <= len(heard) <= 22
    assert page.locator("[role=status] #batch-status, #batch-status[role=status]").count() == 0
