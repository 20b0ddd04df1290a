"""The page and the report as they are sent: policy, caching, and files that fit together. What they
do in a browser is in test_page_browser.py."""

from __future__ import annotations

import asyncio
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_api import started

from service.api import Api
from service.endpoints.page import FOLDER
from service.report import newest_comparisons, newest_load_test
from service.settings import Settings

PARTS = sorted(file.name for file in FOLDER.iterdir() if file.suffix in (".js", ".css", ".svg"))
RESULTS = Path(__file__).resolve().parent.parent.parent / "docs" / "results"


def fetched(
    models: Path, *requests: tuple[str, dict[str, str]], reports: Path | None = None
) -> list[httpx.Response]:
    """The answers to GETs of paths with headers, from an application in this process."""

    async def scenario() -> list[httpx.Response]:
        api = Api(Settings(models=models, threads=1, reports=reports))
        async with started(api) as client:
            return [await client.get(path, headers=headers) for path, headers in requests]

    return asyncio.run(scenario())


def policy_of(response: httpx.Response) -> dict[str, str]:
    directives = response.headers["content-security-policy"].split("; ")
    return dict(directive.partition(" ")[::2] for directive in directives)


class Tags(HTMLParser):
    """Every tag of a document with its attributes, and what stands in scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.inline += data.strip()

    def handle_endtag(self, _: str) -> None:
        self._inside = ""


@pytest.fixture(scope="module")
def everything(models_dir: Path) -> dict[str, httpx.Response]:
    paths = ["/", *(f"/page/{name}" for name in PARTS), "/page/index.html", "/page/..%2Fapi.py"]
    return dict(zip(paths, fetched(models_dir, *((path, {}) for path in paths)), strict=True))


def test_every_part_is_sent_as_what_it_is_and_under_a_strict_policy(
    everything: dict[str, httpx.Response],
) -> None:
    kinds = {"": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    for path in ("/", *(f"/page/{name}" for name in PARTS)):
        response = everything[path]
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kinds[Path(path).suffix])
        policy = policy_of(response)
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert "unsafe" not in response.headers["content-security-policy"]


def test_nothing_else_of_the_folder_is_sent(everything: dict[str, httpx.Response]) -> None:
    assert everything["/page/index.html"].status_code == 404
    assert everything["/page/..%2Fapi.py"].status_code == 404


def test_a_browser_that_has_a_part_is_told_so(models_dir: Path) -> None:
    (first,) = fetched(models_dir, ("/page/main.js", {}))
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    again, weak, several, other = fetched(
        models_dir,
        ("/page/main.js", {"If-None-Match": etag}),
        ("/page/main.js", {"If-None-Match": f"W/{etag}"}),
        ("/page/main.js", {"If-None-Match": f'"x", {etag}'}),
        ("/page/main.js", {"If-None-Match": '"x"'}),
    )
    for response in (again, weak, several):
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == etag
    assert (other.status_code, other.content) == (200, first.content)


def test_the_page_needs_nothing_but_its_own_files(everything: dict[str, httpx.Response]) -> None:
    html = Tags(everything["/"].text)
    assert html.inline == ""
    for tag, attributes in html.tags:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            target = attributes.get(name)
            if target and not target.startswith("#"):
                assert not re.match(r"[a-z]+:|/", target), target  # relative: works below a prefix
                if tag in ("script", "link"):
                    assert f"/{target}" in everything
    for path, response in everything.items():
        if path.endswith((".js", ".css")):
            for imported in re.findall(r'from "\./([^"]+)"', response.text):
                assert f"/page/{imported}" in everything
            assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", response.text)
            assert "innerHTML" not in response.text  # texts are text, whatever is in them


def test_every_id_that_the_scripts_ask_for_is_there(everything: dict[str, httpx.Response]) -> None:
    there = {attributes.get("id") for _, attributes in Tags(everything["/"].text).tags}
    scripts = "".join(r.text for path, r in everything.items() if path.endswith(".js"))
    asked = set(re.findall(r'byId\("([^"]+)"\)', scripts))
    assert asked
    assert asked <= there


# The report.


def write(folder: Path, name: str, content: str, age: int) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    os.utime(file, (1_700_000_000 - age, 1_700_000_000 - age))
    return file


def changed(report: dict[str, Any], **data: Any) -> str:
    return json.dumps({**report, "data": {**report["data"], **data}})


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / "compare-sst2.json").read_text())
    return found


def test_the_newest_comparison_of_each_data_set_is_shown(
    tmp_path: Path, report: dict[str, Any]
) -> None:
    write(tmp_path, "old.json", changed(report, name="a"), age=30)
    write(tmp_path, "b/new.json", changed(report, name="b"), age=20)
    write(tmp_path, "newer.json", changed({**report, "command": "newer"}, name="a"), age=10)
    write(tmp_path, "other.json", '{"variants": 3}', age=0)
    write(tmp_path, "broken.json", "{", age=0)
    found = newest_comparisons(tmp_path)
    assert [table.title for table in found] == ["a, 872 texts", "b, 872 texts"]
    assert found[0].command == "newer"
    assert found[0].columns == ("dense", "sparse", "sparse against dense")
    rows = {row.name: row.cells for row in found[0].rows}
    assert len(rows) == len(found[0].rows)  # each is called otherwise
    assert rows["accuracy"] == ("89.79 %", "90.37 %", "+0.57 points")
    assert rows["texts a second"] == ("499", "652", "1.31×")
    assert all(len(row.cells) == 3 for row in found[0].rows)


def test_a_report_that_is_written_anew_is_read_anew(tmp_path: Path, report: dict[str, Any]) -> None:
    write(tmp_path, "one.json", changed(report, name="a"), age=10)
    assert newest_comparisons(tmp_path)[0].title.startswith("a,")
    write(tmp_path, "one.json", changed(report, name="b"), age=5)
    assert newest_comparisons(tmp_path)[0].title.startswith("b,")


def test_the_report_page_shows_what_there_is(
    models_dir: Path, tmp_path: Path, report: dict[str, Any]
) -> None:
    write(tmp_path, "c.json", changed(report, name="<b>set</b>"), age=10)
    write(tmp_path, "old.html", "<p>old", age=20)
    head = '<meta name="generator" content="crisp loadtest">'
    load = write(tmp_path, "results/load.html", f"{head}<p>load</p><script>1</script>", age=10)
    write(tmp_path, "results/coverage.html", "<p>of another kind, and newer", age=5)
    assert newest_load_test(tmp_path) == load
    page, alone = fetched(models_dir, ("/report", {}), ("/report/load", {}), reports=tmp_path)
    assert page.status_code == 200
    regions = [
        attributes.get("aria-label") or attributes.get("aria-labelledby")
        for _, attributes in Tags(page.text).tags
    ]
    named = [name for name in regions if name]
    assert sorted(set(named)) == sorted(named)
    assert "&lt;b&gt;set&lt;/b&gt;, 872 texts" in page.text  # a name is no markup
    assert 'src="report/load"' in page.text
    assert policy_of(page)["default-src"] == "'none'"
    assert "script-src" not in policy_of(page)
    assert alone.content == load.read_bytes()
    policy = policy_of(alone)
    assert policy["sandbox"] == "allow-downloads"  # not the page's origin: its key is out of reach
    assert "script-src" not in policy
    assert (policy["default-src"], policy["frame-ancestors"]) == ("'none'", "'self'")


@pytest.mark.parametrize("folder", [None, "empty", "missing"])
def test_without_reports_the_page_says_how_to_make_some(
    models_dir: Path, tmp_path: Path, folder: str | None
) -> None:
    (tmp_path / "empty").mkdir()
    reports = None if folder is None else tmp_path / folder
    page, load = fetched(models_dir, ("/report", {}), ("/report/load", {}), reports=reports)
    assert page.status_code == 200
    assert "crisp compare --data" in page.text
    assert str(tmp_path) not in page.text
    assert load.status_code == 404
