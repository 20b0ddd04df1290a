"""The report: drawn from JSON alone, self-contained, and the same in a real browser."""

from __future__ import annotations

import base64
import copy
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from fake_service import fake_service
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from simulated import Simulated, nothing, simulated_campaign
from typer.testing import CliRunner

import crisp
from loadtests import changes, report, results
from loadtests.errors import LoadTestError
from loadtests.plan import Plan
from loadtests.report import charts, pictures, svg
from loadtests.report.story import REST, pareto, tell

FACTS = {
    "precision": "int8",
    "attention": {"name": "blocktopk", "k": 4, "size": 64},
    "pruning": {"keep": [1.0, 0.5, 0.1], "floor": 8},
    "bytes": 23_500_000,
    "measured": [
        {"data": {"name": "dev.tsv", "rows": 872}, "accuracy": 0.9, "low": 0.88, "high": 0.92}
    ],
}
COMPARED = {
    "data": {"name": "dev.tsv", "n": 872},
    "variants": {
        "dense": {"accuracy": {"value": 0.9, "low": 0.88, "high": 0.92}},
        "sparse": {"accuracy": {"value": 0.91, "low": 0.89, "high": 0.93}},
    },
    "comparisons": {
        "sparse": {
            "baseline": "dense",
            "mcnemar_p": 0.4,
            "accuracy_difference": {"value": 0.01, "low": -0.01, "high": 0.03},
        }
    },
}


def document(limits: dict[str, float] | None = None, **facts: Any) -> dict[str, Any]:
    """The results of a simulated load test, with the service's own times in its answers."""
    limits = limits or {"dense": 40.0, "sparse": 100.0, "peer <b>": 30.0}
    with fake_service() as server:
        peers = tuple(name for name in limits if name.startswith("peer"))
        plan = Plan(slo_ms=100, precision=0.2, fractions=(0.5, 0.9, 1.1))
        campaign = simulated_campaign(plan, Simulated(limits), server.url, peers)
        campaign.run(nothing)
    for window in campaign.windows:
        if window.contender not in peers:
            window.measurement.service.record(20.0)
            window.measurement.parts["queue"].record(3.0)
            window.measurement.parts["inference"].record(12.0)
        window.cores, window.rss_mib = 0.5, 300.0
    defaults = {
        "complete": True,
        "stopped_by": None,
        "command": "crisp loadtest --quick",
        "started": "2026-11-25T10:00:00+00:00",
        "finished": "2026-11-25T10:01:00+00:00",
        "environment": results.environment(),
        "accuracy": [],
    }
    content = results.document(campaign, **(defaults | facts))
    content["usage"] = [[at, "http://x", 0.5, 300.0 + at] for at in range(3)]
    for contender in content["contenders"].values():
        contender["facts"] = FACTS
        contender["server"]["url"] = "http://x"
    return json.loads(results.dump(content))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return document(accuracy=[COMPARED])


def written(content: dict[str, Any], folder: Path, **options: Any) -> str:
    report.write(content, folder, source=folder / "loadtest.json", **options)
    return (folder / "report.html").read_text(encoding="utf-8")


class Parsed(HTMLParser):
    """Tags that are open, links, and all text."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_everything_and_needs_nothing(
    content: dict[str, Any], tmp_path: Path
) -> None:
    page = written(content, tmp_path)
    parsed = Parsed(page)
    assert parsed.open == []
    assert "script" not in parsed.tags
    assert [link for link in parsed.links if not link.startswith("data:")] == []
    assert "@import" not in page
    assert re.findall(r"url\(", page) == []
    for words in (
        *("Sparse carries", "Capacity, and what it costs in accuracy", "Latency over load"),
        *("Where the time goes", "crisp loadtest --quick", "blocktopk (k 4, size 64)"),
        *("pruned to 10 % of the tokens", "91.00 %", "+1.00", "23.5 MB", "300 MiB"),
        *("queue", "inference", "objective: 100 ms", content["environment"]["processor"]),
    ):
        assert words in parsed.text
    assert {"latency.png", "capacity.png", "trade.png", "time.png"} <= {
        path.name for path in tmp_path.iterdir() if path.read_bytes().startswith(b"\x89PNG")
    }


def test_the_page_holds_the_raw_json(content: dict[str, Any], tmp_path: Path) -> None:
    (link,) = Parsed(written(content, tmp_path)).links
    raw = base64.b64decode(link.removeprefix("data:application/json;base64,"))
    assert json.loads(raw) == content


def test_names_from_outside_are_text_and_never_markup(
    content: dict[str, Any], tmp_path: Path
) -> None:
    parsed = Parsed(written(content, tmp_path))
    assert "peer <b>" in parsed.text
    hostile = json.loads(json.dumps(content).replace("peer <b>", "</title><script>x</script>"))
    assert "script" not in Parsed(written(hostile, tmp_path)).tags


def test_a_partial_result_says_so(tmp_path: Path) -> None:
    content = document(complete=False, stopped_by="interrupted")
    assert "Partial: the test was stopped (interrupted)." in Parsed(written(content, tmp_path)).text


def test_a_result_without_any_capacity_is_drawn_all_the_same(tmp_path: Path) -> None:
    content = document(complete=False, stopped_by="the service went away")
    content |= {"windows": content["windows"][:1], "capacities": {}, "ratios": {}}
    assert "No contender met the objective" in Parsed(written(content, tmp_path)).text


def test_a_contender_that_met_no_objective_keeps_its_row(tmp_path: Path) -> None:
    content = document({"dense": 0.0, "sparse": 100.0})
    text = Parsed(written(content, tmp_path)).text
    assert "dense meets no objective of 100 ms" in text
    assert "Sparse" in text or "sparse carries" in text


def test_a_document_that_is_not_whole_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match="is not whole"):
        written({k: v for k, v in content.items() if k != "capacities"}, tmp_path)


def test_the_story_takes_a_request_apart(content: dict[str, Any]) -> None:
    story = tell(content)
    (half, near) = story.rows[0].shares
    assert (half.load, near.load) == pytest.approx((0.5, 0.9), rel=0.02)
    assert half.parts["queue"] == pytest.approx(3.0, rel=0.01)
    assert half.parts["inference"] == pytest.approx(12.0, rel=0.01)
    assert half.parts[REST] == pytest.approx(5.0, rel=0.02)
    assert [(name, other) for name, other, _ in story.ratios] == [
        ("sparse", "dense"),
        ("sparse", "peer <b>"),
        ("dense", "peer <b>"),
    ]


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=8))
def test_the_pareto_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    front = pareto(points)
    for i, point in enumerate(points):
        beaten = any(a >= point[0] and b >= point[1] and (a, b) != point for a, b in points)
        assert (i in front) is not beaten


@given(st.floats(0.001, 1e6), st.floats(1.01, 1e4), st.booleans())
def test_ticks_are_few_round_and_within_the_scale(low: float, span: float, log: bool) -> None:
    scale = svg.Scale(low, low * span, logarithmic=log)
    ticks = scale.ticks()
    assert len(ticks) <= 14
    assert ticks == sorted(ticks)
    assert all(low * (1 - 1e-6) <= tick <= low * span * (1 + 1e-6) for tick in ticks)
    assert all(0 <= scale.share(tick) <= 1 for tick in ticks)


def test_a_short_logarithmic_scale_has_ticks_to_read_it_by() -> None:
    assert svg.Scale(12.0, 80.0, logarithmic=True).ticks() == pytest.approx([20, 50])
    for low, high in ((21.0, 49.0), (2.05, 3.4)):
        assert len(svg.Scale(low, high, logarithmic=True).ticks()) >= 2


def test_windows_with_failures_are_hollow_and_say_how_many(content: dict[str, Any]) -> None:
    failing = copy.deepcopy(content)
    window = next(w for w in failing["windows"] if w["phase"] == "curve")
    window["measurement"]["faults"] = {"HTTP 500": window["measurement"]["right"]}
    hollow, title = re.compile(r'style="fill:none;stroke:var\(--s0\)"'), "50 % failed"
    for document, times in ((content, 0), (failing, 1)):
        drawn = charts.latency(tell(document), "p99")
        assert len(hollow.findall(drawn)) == times
        assert (title in drawn) is (times > 0)
    axes = pictures._latency(tell(failing)).axes
    assert [text.get_text() for each in axes for text in each.texts] == [title] * 3
    assert all(len(each.get_yticks()) >= 2 for each in axes)


def test_the_picture_of_the_trade_begins_at_zero_and_shows_both_intervals(
    content: dict[str, Any],
) -> None:
    (axes,) = pictures._trade(tell(content), "dev.tsv").axes
    assert axes.get_xlim()[0] == 0
    story = tell(content)
    lines = [path for bars in axes.collections for path in getattr(bars, "get_segments", list)()]
    level = [path for path in lines if path[0][1] == path[1][1]]
    for row in story.with_capacity:
        found = row.capacity
        assert found is not None
        if row.accuracies:
            assert any(path[:, 0] == pytest.approx([found.low, found.high]) for path in level)


def test_a_service_elsewhere_is_not_said_to_be_on_this_machine(
    content: dict[str, Any], tmp_path: Path
) -> None:
    elsewhere = copy.deepcopy(content)
    text = Parsed(written(elsewhere, tmp_path)).text  # the fake service was not started here
    assert "asked from this machine" in text
    assert "generator's machine" in text
    for contender in elsewhere["contenders"].values():
        contender["server"]["started_with"] = "crisp serve"
    text = Parsed(written(elsewhere, tmp_path)).text
    assert " on this machine" in text
    assert "generator's machine" not in text


def test_the_load_is_that_of_before_the_test_or_said_to_be_another(
    content: dict[str, Any], tmp_path: Path
) -> None:
    content = copy.deepcopy(content)
    content["environment"]["load_average_before"] = 0.25
    assert "0.25 before the test" in Parsed(written(content, tmp_path)).text
    del content["environment"]["load_average_before"]
    content["environment"]["load_average"] = 1.75  # of an older result
    assert "1.75 at the end" in Parsed(written(content, tmp_path)).text


# What changed.


def test_the_same_result_twice_is_within_noise(content: dict[str, Any], tmp_path: Path) -> None:
    found = changes.changes(content, content)
    assert {change.verdict for change in found} == {"within noise"}
    assert {change.what for change in found} >= {"requests of sparse to dense"}
    assert "within noise" in Parsed(written(content, tmp_path, against=content)).text


def slower(content: dict[str, Any], factor: float) -> dict[str, Any]:
    """As `content`, but sparse carries `factor` of what it did."""
    found = copy.deepcopy(content)
    for ratio in found["ratios"]["sparse"].values():
        for key in ("value", "low", "high"):
            ratio[key] *= factor
    return found


def of_sparse_to_dense(new: dict[str, Any], old: dict[str, Any]) -> changes.Change:
    found = changes.changes(new, old)
    return next(change for change in found if change.what == "requests of sparse to dense")


def test_a_drop_beyond_noise_is_found_and_fails(content: dict[str, Any], tmp_path: Path) -> None:
    change = of_sparse_to_dense(slower(content, 0.5), content)
    assert (change.verdict, change.dropped) == ("lower", True)
    assert change.change.value == pytest.approx(0.5)
    change = of_sparse_to_dense(content, slower(content, 0.5))
    assert (change.verdict, change.dropped) == ("higher", False)
    new, old = tmp_path / "new.json", tmp_path / "old.json"
    new.write_text(results.dump(slower(content, 0.5)))
    old.write_text(results.dump(content))
    for first, second, code in ((new, old, 1), (old, new, 0), (old, old, 0)):
        options = ["--against", str(second), "--fail-on-drop", "--out", str(tmp_path / "out")]
        done = CliRunner().invoke(crisp.app, ["loadtest", "report", str(first), *options])
        assert done.exit_code == code, done.output


def bench(value: float, half: float) -> dict[str, Any]:
    speedup = {"value": value, "low": value - half, "high": value + half}
    figures = {"stock fp32": {"speedup": {}}, "sparse": {"speedup": speedup}}
    kinds = {"stock fp32": {"kind": "stock"}, "sparse": {"kind": "engine"}}
    return {"contenders": kinds, "workloads": {"sst-b1": {"figures": figures}}}


@pytest.mark.parametrize(
    ("new", "old", "verdict"),
    [
        (bench(2.0, 0.1), bench(3.0, 0.1), "lower"),
        (bench(3.0, 0.1), bench(2.0, 0.1), "higher"),
        (bench(2.9, 0.2), bench(3.0, 0.2), "within noise"),
        (bench(2.85, 0.01), bench(3.0, 0.01), "within noise"),  # of where memory lies
        (bench(2.70, 0.01), bench(3.0, 0.01), "lower"),
    ],
)
def test_speedups_of_the_engine_are_compared_by_their_intervals(
    new: dict[str, Any], old: dict[str, Any], verdict: str
) -> None:
    (change,) = changes.changes(new, old)
    assert (change.what, change.verdict) == ("sparse, sst-b1", verdict)
    console = Console(record=True, width=100)
    changes.show(console, [change])
    assert verdict in console.export_text()


def test_a_model_that_fails_where_it_did_not_is_a_drop(tmp_path: Path) -> None:
    """As one whose kernel does not run any more: it has no figures, and the gate must not pass."""
    old, new = bench(3.0, 0.1), bench(3.0, 0.1)
    del new["workloads"]["sst-b1"]["figures"]["sparse"]
    (change,) = changes.changes(new, old)
    assert (change.verdict, change.dropped) == ("missing", True)
    for path, content in ((tmp_path / "new", new), (tmp_path / "old", old)):
        path.write_text(json.dumps(content))
    command = typer.Typer()
    command.command()(changes.main)
    done = CliRunner().invoke(command, [str(tmp_path / "new"), str(tmp_path / "old")])
    assert done.exit_code == 1
    assert "missing" in done.output
    for section in ("contenders", "workloads"):  # what was not run again is not missing
        for name in ("sparse", "sst-b1"):
            less = copy.deepcopy(new)
            if less[section].pop(name, None):
                with pytest.raises(LoadTestError, match="no ratio in common"):
                    changes.changes(less, old)


def test_a_contender_that_carries_nothing_any_more_is_a_drop(
    content: dict[str, Any], tmp_path: Path
) -> None:
    broken = copy.deepcopy(content)
    del broken["ratios"]["sparse"], broken["capacities"]["sparse"]
    found = {change.what: change.verdict for change in changes.changes(broken, content)}
    assert found == {
        "requests of sparse to dense": "missing",
        "requests of sparse to peer <b>": "missing",
        "requests of dense to peer <b>": "within noise",
    }
    shown = Parsed(written(broken, tmp_path, against=content)).text
    assert "missing" in shown
    assert "nan" not in shown.lower().split()
    del broken["contenders"]["sparse"]  # did not take part
    assert [change.what for change in changes.changes(broken, content)] == [
        "requests of dense to peer <b>"
    ]


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({"settings": {"threads": 4}}, r"differ in threads \(2, now 4\), .*; give both"),
        ({"operators": {"compiled": False}}, r"differ in compiled \(True, now False\), .*make ops"),
    ],
)
def test_benchmarks_of_different_things_cannot_be_compared(
    facts: dict[str, Any], match: str
) -> None:
    old = bench(3.0, 0.1) | {"settings": {"threads": 2}, "operators": {"compiled": True}}
    with pytest.raises(LoadTestError, match=match):
        changes.changes(old | facts, old)
    assert len(changes.changes(old, bench(3.0, 0.1))) == 1  # unknown is not different


def test_a_partial_result_is_compared_with_a_warning(content: dict[str, Any]) -> None:
    partial = content | {"complete": False}
    assert changes.warnings(content, content) == []
    (warning,) = changes.warnings(partial, content)
    assert warning == "the newer result is of a test that was stopped: it is partial"
    assert "older" in changes.warnings(content, partial)[0]


def test_results_without_a_common_ratio_cannot_be_compared(content: dict[str, Any]) -> None:
    alone = document({"dense": 40.0}) | {"plan": content["plan"]}
    for other in (bench(1.0, 0.1), {}, alone):
        with pytest.raises(LoadTestError, match="no ratio in common"):
            changes.changes(content, other)


def test_load_tests_of_different_things_cannot_be_compared(content: dict[str, Any]) -> None:
    other = copy.deepcopy(content)
    other["plan"]["workload"] = "imdb"
    with pytest.raises(LoadTestError, match=r"differ in workload \(imdb, now sst\), .*things$"):
        changes.changes(content, other)


def test_capacities_of_windows_of_other_lengths_cannot_be_compared(content: dict[str, Any]) -> None:
    other = copy.deepcopy(content)
    other["plan"]["seconds"] = 2.5
    match = r"differ in seconds \(2.5, now [\d.]+\), .*; give both the same --seconds"
    with pytest.raises(LoadTestError, match=match):
        changes.changes(content, other)
    del other["plan"]["seconds"]  # unknown is not different
    assert of_sparse_to_dense(content, other).verdict == "within noise"
    assert of_sparse_to_dense(other, content).verdict == "within noise"


def test_a_result_of_another_machine_is_compared_with_a_warning(
    content: dict[str, Any], tmp_path: Path
) -> None:
    there = copy.deepcopy(content)
    there["environment"]["processor"] = "Another 9000"
    new, same, old = (tmp_path / f"{name}.json" for name in ("new", "same", "old"))
    for path, document in ((new, content), (same, content), (old, there)):
        path.write_text(results.dump(document))
    command = typer.Typer()
    command.command()(changes.main)
    for against, warned in ((old, True), (same, False)):
        report_options = ["report", str(new), "--against", str(against), "--fail-on-drop"]
        for done in (
            CliRunner().invoke(crisp.app, ["loadtest", *report_options]),
            CliRunner().invoke(command, [str(new), str(against)]),
        ):
            assert done.exit_code == 0, done.output
            shown = " ".join(done.output.split())
            assert ("was measured on another machine (Another 9000, here" in shown) is warned


# In a real browser.


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("Chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with playwright() as tool:
        browser = tool.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_fits_and_reads_in_a_browser(
    content: dict[str, Any], scheme: str, width: int, tmp_path: Path, chromium: Any
) -> None:
    written(content, tmp_path)
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    assert complaints == []
    assert requests == [(tmp_path / "report.html").as_uri()]
    overflow = "document.documentElement.scrollWidth - window.innerWidth"
    assert page.evaluate(overflow) <= 0
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg.chart text')]"
        ".map(text => Math.max(text.getBoundingClientRect().height,"
        " text.getBoundingClientRect().width)))"
    )
    assert smallest >= 7, "text of a chart is too small to read"
    assert page.locator("h1").inner_text().startswith("Sparse carries")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    levels = [int(level) for level in re.findall(r"[0-9]+", background)]
    assert (sum(levels) < 200) is (scheme == "dark")
    page.get_by_text("All ").first.click()
    assert page.evaluate(overflow) <= 0
    page.close()
