"""What the page makes of files: rows and columns, or what is wrong with them, in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from page_steps import Open, choose_file, downloaded, needs_chromium
from running_server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest_plugins = "page_fixtures"
pytestmark = needs_chromium

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call(browser: Browser, server: Server) -> Iterator[Call]:
    """Calls a function of a module of the page."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(server.url)
        yield lambda module, name, *given: page.evaluate(
            "async ([module, name, given]) => (await import(`/page/${module}`))[name](...given)",
            [module, name, given],
        )


@pytest.fixture(scope="module")
def read(browser: Browser, server: Server) -> Iterator[Call]:
    """What the page reads of a file: a table, or what it says instead."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(server.url)
        yield lambda name, content: page.evaluate(
            """async ([name, bytes]) => {
              const { read } = await import("/page/file_reading.js");
              const file = new File([new Uint8Array(bytes)], name);
              return read(file).catch(({ message, hint }) => `${message} ${hint}`);
            }""",
            [name, list(content.encode() if isinstance(content, str) else content)],
        )


# CSV.


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("text\nGood, but far too long\nSlow; dull", [["Good, but far too long"], ["Slow; dull"]]),
        ('text\n"Good, but ""long"""\ndull\n', [['Good, but "long"'], ["dull"]]),
        ('text\n"two\nlines"\n"Slow" is, so\n', [["two\nlines"], ['"Slow" is, so']]),
        ('"a, b"\nc, d\n', [["c, d"]]),
    ],
)  # fmt: skip
def test_a_file_of_one_column_is_read_by_whole_lines(
    call: Call, text: str, rows: list[list[str]]
) -> None:
    table = call("csv.js", "parse", text)
    assert table["rows"][1:] == rows
    assert table["separator"] == ""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('id,text\n1,"dull\n2,fine\n', 2),
        ('id,text\n1,ok\n2,"dull\n3,"fine"\n', 3),
        ('text\r\nok\r\n"dull\r\nfine', 3),
    ],
)
def test_a_quotation_mark_that_nothing_closes_is_told_with_its_line(
    read: Call, text: str, line: int
) -> None:
    assert f"a quotation mark in line {line} that is not closed" in read("reviews.csv", text)


def test_only_empty_lines_are_no_rows(call: Call) -> None:
    table = call("csv.js", "parse", 'id,text\n\n1,\n,\n\r\n""\n , \n')
    assert table["rows"] == [["id", "text"], ["1", ""], ["", ""], [""], [" ", " "]]
    assert call("csv.js", "parseTabs", "a\tb\n\t\n\n1\t") == [["a", "b"], ["", ""], ["1", ""]]


def test_rows_that_do_not_fit_are_told(open_page: Open) -> None:
    page = open_page("#batch")
    choose_file(page, "a.csv", "id,text\n1,slow, dull\n2,so, so\n3\n4,fine\n5,fine\n")
    notice = (
        "2 rows have more cells than the first: quote texts that hold commas. "
        "1 row has fewer cells than the first."
    )
    assert page.locator("#file-notice").inner_text() == notice
    page.wait_for_selector(f"#batch-says:has-text('{notice}')")
    choose_file(page, "b.csv", "id,text\n1,slow\n")
    assert not page.locator("#file-notice").is_visible()


# The heading, and the column.


@pytest.mark.parametrize(
    ("rows", "column", "has_header"),
    [
        ([["id", "Review Text"], ["1", "slow"]], 1, True),
        ([["review_id", "opinion"], ["r1", "a fine film"]], 1, True),
        ([["summary", "reviewTexts"], ["so slow", "a film"]], 1, True),
        ([["tweets", "date"], ["slow", "x"]], 0, True),
        ([["opinion", "stars"], ["so slow", "5"], ["dull", ""], ["fine", "4,5"]], 0, True),
        ([["5", "slow"], ["4", "a film"]], 1, False),
        ([["a fine text", "5"], ["so slow", "4"]], 0, False),
        ([["This text is slow.", "no"], ["so slow", "yes"]], 0, False),
        ([["Great review"], ["so slow"]], 0, False),
        ([["https://example.org/a-film-that-is-long", "so slow"]], 1, False),
        ([["7f3a09c2d1e84b", "很慢的电影"]], 1, False),
        ([["", "text"], ["0", "a film"]], 1, True),
    ],
)
def test_the_heading_and_the_texts_are_found(
    call: Call, rows: list[list[str]], column: int, has_header: bool
) -> None:
    assert call("columns.js", "guess", rows) == {"column": column, "hasHeader": has_header}


def test_a_column_without_a_name_is_called_text_where_it_holds_the_texts(open_page: Open) -> None:
    page = open_page("#batch")
    choose_file(page, "a.csv", "5,a slow film\n4,so dull\n")
    page.click("#batch-run")
    page.wait_for_selector("#download:visible")
    rows = downloaded(page)
    assert [(row["column 1"], row["text"]) for row in rows] == [
        ("5", "a slow film"), ("4", "so dull")
    ]  # fmt: skip


# Other kinds.


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        (
            "a.jsonl",
            '{"text": "slow\\nfilm", "stars": 5}\n\n{"text": null, "more": {"a": [1]}}\n',
            [["text", "stars", "more"], ["slow\nfilm", "5", ""], ["", "", '{"a":[1]}']],
        ),
        ("a.txt", '{"keys": "x"}\n{"at": "y"}', [["keys", "at"], ["x", ""], ["", "y"]]),
        ("a.json", '["slow", "a, film"]', [["slow"], ["a, film"]]),
        ("a.json", '[{"text": "slow"}]', [["text"], ["slow"]]),
        ("a.json", '{"text": "slow"}\n{"text": "film"}', [["text"], ["slow"], ["film"]]),
        ("a.txt", "1\tslow\n2\tfilm\n", [["1", "slow"], ["2", "film"]]),
        ("a.txt", "1\tslow\nfilm\n", [["1\tslow"], ["film"]]),
        ("a.txt", "{not JSON}\n", [["{not JSON}"]]),
        ("a.csv", "id;text\n1;schön".encode("utf-16"), [["id", "text"], ["1", "schön"]]),
        ("a.txt", b"\xfe\xff" + "schön".encode("utf-16-be"), [["schön"]]),
    ],
)  # fmt: skip
def test_a_file_is_read_as_what_it_is(
    read: Call, name: str, content: str | bytes, rows: list[list[str]]
) -> None:
    assert read(name, content)["rows"] == rows


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", '{"data": ["slow"]}', "no list of texts"),
        ("a.json", '["slow", 5]', "no list of texts"),
        ("a.json", "[]", "is empty"),
        ("a.json", "[{}]", "is empty"),
        ("a.jsonl", '{"text": "slow"}\nfilm', "not JSON lines"),
        ("a.txt", "slow".encode("utf-16-le"), "not UTF-8"),
        ("a.txt", "slow\x00", "not UTF-8"),
        ("a.csv", b"PK\x03\x04\x14\x00", "Save it as CSV UTF-8"),
        ("a.csv", b"\n\n", "is empty"),
    ],
)
def test_a_file_that_is_no_table_of_texts_is_told(
    read: Call, name: str, content: str | bytes, words: str
) -> None:
    assert words in read(name, content)


def test_json_comes_back_as_csv(open_page: Open) -> None:
    page = open_page("#batch")
    lines = [{"id": 1, "review": "a slow film"}, {"id": 2, "review": ""}]
    choose_file(page, "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert page.locator("#column option:checked").inner_text() == "review"
    assert not page.locator("#has-header").is_visible()
    page.click("#batch-run")
    page.wait_for_selector("#download:visible")
    rows = downloaded(page)
    assert [(row["id"], row["review"], row["error"]) for row in rows] == [
        ("1", "a slow film", ""), ("2", "", "no text")
    ]  # fmt: skip


# What comes back.


def titles(call_page: Any, heading: list[str], variants: list[str]) -> list[str]:
    found: list[str] = call_page.evaluate(
        """async ([heading, variants]) => {
          const { Outcome } = await import("/page/batch_outcome.js");
          const outcome = new Outcome({ name: "a", heading, rows: [["x"]], column: 0 }, null);
          outcome.put(0, { predictions: Object.fromEntries(variants.map((name) => [name, {}])) });
          return outcome.titles();
        }""",
        [heading, variants],
    )
    return found


def test_no_column_of_the_results_is_called_as_one_of_the_file(open_page: Open) -> None:
    page = open_page()
    plain = ["label", "score", "tokens", "truncated", "error"]
    apart = ["sparse_label", "sparse_score", "sparse_tokens", "sparse_truncated"]
    assert titles(page, ["text"], ["sparse"]) == plain
    assert titles(page, ["text", "label"], ["sparse"]) == [*apart, "error"]
    assert titles(page, ["text", "error"], ["sparse"]) == [*plain[:4], "crisp_error"]
    again = titles(page, [*apart, "agree", "error"], ["sparse", "dense"])
    assert again[0] == "crisp_sparse_label"
    assert again[4] == "dense_label"
    assert again[-2:] == ["crisp_agree", "crisp_error"]


def test_a_file_with_a_heading_only_is_told(open_page: Open) -> None:
    page = open_page("#batch")
    choose_file(page, "a.csv", "id,text\n")
    page.click("#batch-run")
    page.wait_for_selector("#batch-error:has-text('a.csv has no rows below its heading.')")


def test_what_is_chosen_is_told(open_page: Open) -> None:
    page = open_page("#batch")
    choose_file(page, "good.csv", "id,text\n1,slow\n2,fine\n")
    page.wait_for_selector("#batch-says:text-is('good.csv: 2 rows; texts are in text.')")
    file: Any = {"name": "bad.csv", "mimeType": "", "buffer": b'text\n"open'}
    page.set_input_files("#file", file)
    page.wait_for_selector("#batch-error:has-text('bad.csv has a quotation mark in line 2')")
    assert "good.csv is still chosen." in page.locator("#batch-error").inner_text()


def test_a_long_name_fits(open_page: Open) -> None:
    page = open_page("#batch", viewport={"width": 360, "height": 740})
    choose_file(page, f"{'reviews_' * 30}.txt", "slow\n")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
