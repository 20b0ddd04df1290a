"""The second tab of the page in a real headless Chromium: lines or a file in, table and CSV out."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_steps import LINES, Open, compared, downloaded, needs_chromium
from running_server import Server

pytest_plugins = "page_fixtures"
pytestmark = needs_chromium


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
    rows = downloaded(page, separator=";", start="\ufeff")
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


def test_a_quotation_mark_in_a_tsv_is_a_character(open_page: Open, tmp_path: Path) -> None:
    page = open_page("#batch")
    file = tmp_path / "reviews.tsv"
    file.write_text('id\ttext\n1\t"Slow" is the word\n2\t"An open quote, dull\n3\ta film\n')
    page.set_input_files("#file", file)
    page.wait_for_selector("#file-facts:not([hidden])")
    assert page.locator("#file-size").inner_text() == "3 rows"
    page.click("#batch-run")
    page.wait_for_selector("#download:visible")
    texts = [row["text"] for row in downloaded(page)]
    assert texts == ['"Slow" is the word', '"An open quote, dull', "a film"]


def test_results_keep_the_name_of_their_file(open_page: Open, tmp_path: Path) -> None:
    page = open_page("#batch")
    for name in ("first.csv", "second.txt"):
        (tmp_path / name).write_text("text\na film\n")
    page.set_input_files("#file", tmp_path / "first.csv")
    page.wait_for_selector("#file-facts:not([hidden])")
    page.click("#batch-run")
    page.wait_for_selector("#download:visible")
    page.set_input_files("#file", tmp_path / "second.txt")
    page.wait_for_selector("#file-name:text-is('second.txt')")
    with page.expect_download() as waiting:
        page.click("#download")
    assert waiting.value.suggested_filename == "first-sentiment.csv"


def test_the_file_that_was_given_last_counts(open_page: Open, tmp_path: Path) -> None:
    page = open_page("#batch")
    page.evaluate(
        """() => {
          const read = File.prototype.arrayBuffer;
          File.prototype.arrayBuffer = async function () {
            if (this.name === "slow.txt") await new Promise((resolve) => { window.go = resolve; });
            window.done = this.name;
            return read.call(this);
          };
        }"""
    )
    for name in ("slow.txt", "quick.txt"):
        (tmp_path / name).write_text("a film\n")
        page.set_input_files("#file", tmp_path / name)
    page.wait_for_selector("#file-name:text-is('quick.txt')")
    page.evaluate("go()")
    page.wait_for_function("() => done === 'slow.txt'")
    page.wait_for_timeout(200)
    assert page.locator("#file-name").inner_text() == "quick.txt"
