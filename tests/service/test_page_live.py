"""The third tab of the page in a real headless Chromium: figures and charts of what happens now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from page_steps import TEXT, Open, classify, needs_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytest_plugins = "page_fixtures"
pytestmark = needs_chromium


def test_live_charts_follow_the_metrics(open_page: Open) -> None:
    page = open_page("#live")
    page.wait_for_selector("#live-tiles div")
    page.evaluate(
        """async () => {
          for (let i = 0; i < 5; i += 1) {
            await fetch('compare', {method: 'POST', body: JSON.stringify({texts: ['good', 'bad']}),
                                    headers: {'Content-Type': 'application/json'}});
          }
        }"""
    )
    chart = page.locator("#chart-latency svg[role=img]")
    page.wait_for_function(
        "() => /median [0-9]/.test(document.querySelector('#chart-latency svg').ariaLabel)"
    )
    assert chart.locator("polyline, circle").count() > 0
    assert page.get_by_text("nothing compared yet").is_visible()
    page.click("#tab-try")
    classify(page, TEXT)
    page.click("#tab-live")
    page.wait_for_function(
        "() => /this page (0|100)/.test(document.querySelector('#chart-agreement svg').ariaLabel)"
    )
    answered = page.locator("#live-tiles div", has_text="texts answered").locator("dd")
    assert int(answered.inner_text().replace(",", "")) >= 20


def metrics(texts: int, ok: int, refused: int) -> str:
    return f"""
crisp_texts_total{{variant="dense",outcome="ok"}} {texts}
crisp_texts_total{{variant="other",outcome="ok"}} {texts}
crisp_http_requests_total{{endpoint="/predict",status="200"}} {ok}
crisp_http_requests_total{{endpoint="/predict",status="429"}} {refused}
crisp_http_requests_total{{endpoint="/metrics",status="429"}} 1000
crisp_http_request_seconds_bucket{{endpoint="/predict",le="0.1"}} {ok}
crisp_http_request_seconds_bucket{{endpoint="/predict",le="+Inf"}} {ok}
crisp_shadow_texts_total{{variant="other",result="agree"}} {9999 * ok}
crisp_shadow_texts_total{{variant="other",result="disagree"}} {ok}
crisp_rejections_total{{reason="max_wait"}} {refused}
"""


def test_live_shows_what_the_metrics_say(open_page: Open) -> None:
    page = open_page("#live")
    numbers = iter(range(0, 100_000, 10))

    def answer(route: Route) -> None:
        n = next(numbers)
        route.fulfill(status=200, body=metrics(texts=n, ok=3 * n, refused=n))

    page.route("**/metrics", answer)
    page.reload()
    page.wait_for_selector("#latency-note:not([hidden])")
    assert (
        page.locator("#latency-note").inner_text().startswith("25.0 % of the requests were refused")
    )
    throughput = page.locator("#chart-throughput li").all_inner_texts()
    assert [name.split("\n")[0].rstrip("0123456789.–") for name in throughput] == ["dense", "other"]
    assert "shadow mode >99.9" in (
        page.locator("#chart-agreement svg[role=img]").get_attribute("aria-label") or ""
    )


def test_figures_of_a_service_that_is_gone_are_dimmed_and_told_once(open_page: Open) -> None:
    page = open_page("#live", expected=("ERR_FAILED",))
    page.wait_for_selector("#live-tiles div")
    page.evaluate(
        """() => {
          window.told = 0;
          const note = document.getElementById("live-note");
          new MutationObserver(() => { told += 1; }).observe(note, { childList: true });
        }"""
    )
    tries: list[Route] = []
    page.route("**/metrics", lambda route: (tries.append(route), route.abort()))
    page.wait_for_selector("#live-tiles.old")
    page.wait_for_selector("#live-note:has-text('cannot be reached')")
    told = page.evaluate("told")
    while len(tries) < 3:
        page.wait_for_timeout(100)
    assert page.evaluate("told") == told
    page.unroute("**/metrics")
    page.wait_for_selector("#live-tiles:not(.old)")
    assert not page.locator("#live-note").is_visible()
