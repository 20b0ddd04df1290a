"""The page in a real headless Chromium, in front of a real server: what a person does and sees.

Every test also fails on an error in the console, a refusal by the page's own policy included.
"""

from __future__ import annotations

import csv
import io
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import browser as browsers
import httpx
import pytest
from running_server import Server, crisp, free_port, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        browsers.executable() is None,
        reason=f"there is no Chromium: apt install chromium, or name one in {browsers.VARIABLE}",
    ),
]

TEXT = "This is not a good story, it is slow and long, ☃ 😀 and the plot is dull"
LONG = "fine warm film " * 20  # the models of the tests read 32 tokens
LINES = ["a warm film", "the plot is dull", "it is a long story, not bad", "slow, slow"]
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1100, "height": 900}

Open = Callable[..., "Page"]


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
    page.wait_for_selector("#look:not([hidden])")
    page.wait_for_selector("#cards:not(.busy)")


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
    assert "Type a text first" in page.locator("#try-error").inner_text()
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
    assert page.locator("#cards:not(.busy)").count() == 1


def test_a_service_that_is_gone_is_told(open_page: Open) -> None:
    page = open_page(expected=("ERR_FAILED",))
    page.route("**/compare", lambda route: route.abort())
    page.fill("#text", "a good film")
    page.click("text=Classify >> nth=0")
    page.wait_for_selector("#try-error:not([hidden])")
    assert "cannot be reached" in page.locator("#try-error").inner_text()


def downloaded(page: Page) -> list[dict[str, str]]:
    with page.expect_download() as waiting:
        page.click("#download")
    content = Path(waiting.value.path()).read_bytes().decode("utf-8")
    return list(csv.DictReader(io.StringIO(content, newline="")))


def test_lines_come_back_as_a_table_and_a_csv(open_page: Open, server: Server) -> None:
    page = open_page("#batch")
    texts = [f"{line} {'good ' * (i % 5)}".strip() for i, line in enumerate(LINES * 9)]
    page.fill("#lines", "\n\n".join(texts))
    page.select_option("#batch-variant", "")
    page.click("#batch-run")
    page.wait_for_selector("#download:visible")
    assert page.locator("#batch-status").inner_text().startswith("36 texts in")
    assert page.locator("#batch-table tbody tr").count() == 36
    rows = downloaded(page)
    assert [row["text"] for row in rows] == texts
    for row in rows[:8]:
        for variant, expected in compared(server, row["text"]).items():
            assert row[f"{variant}_label"] == expected["label"]
            assert float(row[f"{variant}_score"]) == pytest.approx(expected["score"], abs=1e-6)
            assert row[f"{variant}_truncated"] == str(expected["truncated"]).lower()
        labels = {row[f"{variant}_label"] for variant in ("dense", "sparse")}
        assert row["agree"] == str(len(labels) == 1).lower()
        assert row["error"] == ""


def test_a_csv_keeps_its_columns(open_page: Open, server: Server, tmp_path: Path) -> None:
    page = open_page("#batch")
    file = tmp_path / "reviews.csv"
    file.write_bytes(
        b"\xef\xbb\xbfid;review;note\r\n"
        b'1;"a warm film;\r\nwith ""good"" cast";x\r\n2;;y\r\n3;dull\r\n'
    )
    page.set_input_files("#file", file)
    page.wait_for_selector("#file-facts:not([hidden])")
    assert page.locator("#file-size").inner_text() == "3 rows"
    assert page.locator("#column option:checked").inner_text() == "review"
    page.select_option("#batch-variant", "dense")
    page.click("#batch-run")
    page.wait_for_selector("#download:visible")
    rows = downloaded(page)
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["review"] == 'a warm film;\r\nwith "good" cast'
    assert rows[0]["label"] == compared(server, rows[0]["review"])["dense"]["label"]
    assert rows[1]["error"] == "no text"
    assert (rows[2]["note"], rows[2]["error"]) == ("", "")
    page.click("#file-remove")
    assert page.locator("#lines").is_visible()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("reviews.tsv", "text\tlabel\nslow, grim, and; well, good\tx\na, film, with, a cast\ty\n"),
        ("reviews.csv", "id;text\n1;slow, grim, and well, good\n2;a, film, with, a cast\n"),
        ("tabs.csv", "a, b, c\t1\na film, a cast, and more\t2\n"),
        ("quoted.csv", '"slow, grim, and; well",1\n"a, film;\nwith; a, cast",2\n'),
    ],
)
def test_what_stands_in_sentences_separates_no_columns(
    open_page: Open, tmp_path: Path, name: str, content: str
) -> None:
    page = open_page("#batch")
    file = tmp_path / name
    file.write_text(content)
    page.set_input_files("#file", file)
    page.wait_for_selector("#file-facts:not([hidden])")
    assert page.locator("#file-size").inner_text() == "2 rows"
    assert page.locator("#column option").count() == 2


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("empty.txt", b"\n \n", "is empty"), ("latin.csv", b"text\ncaf\xe9", "not UTF-8")],
)
def test_a_file_that_cannot_be_read_is_told(
    open_page: Open, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    page = open_page("#batch")
    (tmp_path / name).write_bytes(content)
    page.set_input_files("#file", tmp_path / name)
    page.wait_for_selector("#batch-error:not([hidden])")
    assert words in page.locator("#batch-error").inner_text()


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


@pytest.mark.parametrize("lines", [3, 3000])
def test_lines_are_pasted_where_the_cursor_is(open_page: Open, lines: int) -> None:
    page = open_page("#batch")
    page.fill("#lines", "first\nlast")
    text = "a line in the middle\n" * lines
    page.evaluate(
        """text => {
          const field = document.getElementById('lines');
          field.focus();
          field.setSelectionRange(6, 6);
          const clipboardData = new DataTransfer();
          clipboardData.setData('text/plain', text);
          const options = {clipboardData, cancelable: true, bubbles: true};
          const letPass = field.dispatchEvent(new ClipboardEvent('paste', options));
          // The browser carries out no event that a script dispatches.
          if (letPass) document.execCommand('insertText', false, text);
        }""",
        text,
    )
    assert page.input_value("#lines") == f"first\n{text}last"


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
        page.wait_for_selector("#key-form:not([hidden])")
        assert "does not know this API key" in page.locator("#key-why").inner_text()
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
