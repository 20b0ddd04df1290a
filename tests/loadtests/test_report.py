"""Summaries and ratios against figures computed by hand; JSON and picture hold them all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from loadtests import picture, report
from loadtests.drive import Plan, Turn


def turn(
    number: int,
    variant: str,
    latencies: list[float],
    *,
    seconds: float = 2.0,
    complete: bool = True,
    faults: dict[str, int] | None = None,
) -> Turn:
    texts = 3 * len(latencies)
    return Turn(
        number, variant, complete, seconds, tuple(latencies), texts, 10 * texts, faults or {}
    )


TURNS = [
    turn(1, "sparse", [1.0, 2.0, 3.0, 4.0, 5.0]),
    turn(1, "dense", [2.0, 4.0, 6.0], faults={"late": 1}),
    turn(2, "dense", [4.0, 4.0, 4.0]),
    turn(2, "sparse", [4.0, 4.0, 4.0], faults={"late": 2, "wrong": 1}),
]


def test_a_summary_pools_the_turns_of_a_variant() -> None:
    found = report.summaries(TURNS)
    assert list(found) == ["dense", "sparse"]  # the baseline comes first
    sparse = found["sparse"]
    assert (sparse.requests, sparse.failures, sparse.seconds) == (11, 3, 4.0)
    assert sparse.requests_per_second == pytest.approx(8 / 4)
    assert sparse.texts_per_second == pytest.approx(24 / 4)
    assert sparse.tokens_per_second == pytest.approx(240 / 4)
    assert sparse.latency_ms["p50"] == pytest.approx(4.0)  # of 1 2 3 4 4 4 4 5
    assert sparse.latency_ms["p95"] == pytest.approx(4.65)
    assert sparse.faults == {"late": 2, "wrong": 1}


def test_ratios_are_above_one_where_the_variant_is_better() -> None:
    found = report.ratios(TURNS)["sparse"]
    rate, p50 = found["requests_per_second"], found["p50"]
    assert (rate.lowest, rate.median, rate.highest) == pytest.approx((1, 4 / 3, 5 / 3))
    assert (p50.lowest, p50.median, p50.highest) == pytest.approx((1, 7 / 6, 4 / 3))


def test_ratios_leave_out_rounds_that_one_of_the_two_did_not_finish() -> None:
    broken = turn(3, "dense", [100.0], complete=False)
    unanswered = [turn(4, "dense", [1.0]), turn(4, "sparse", [], faults={"late": 9})]
    alone = turn(5, "sparse", [0.1])
    turns = [*TURNS, broken, turn(3, "sparse", [1.0]), *unanswered, alone]
    assert report.ratios(turns) == report.ratios(TURNS)
    assert report.ratios([broken, alone]) == {}


def test_without_dense_the_first_variant_is_the_baseline() -> None:
    turns = [turn(1, "small", [1.0]), turn(1, "large", [2.0])]
    assert list(report.summaries(turns)) == ["small", "large"]
    assert list(report.ratios(turns)) == ["large"]


def test_the_table_shows_the_figures_and_the_faults() -> None:
    console = Console(record=True, width=120, quiet=False)
    report.show(console, TURNS)
    shown = console.export_text()
    for figure in ("requests/s", "1.33× (1.00 to 1.67)", "sparse against dense", "dense: 1 × late"):
        assert figure in shown


def test_the_table_of_a_variant_that_answered_nothing() -> None:
    console = Console(record=True, width=120)
    report.show(console, [turn(1, "sparse", [], faults={"wrong": 4})])
    shown = console.export_text()
    assert "no answer" in shown
    assert "sparse: 4 × wrong" in shown


def test_a_saturated_client_is_told() -> None:
    console = Console(record=True, width=120)
    report.show(console, [*TURNS, replace(TURNS[0], client_saturated=True)])
    shown = console.export_text()
    assert "sparse: Locust itself was at the limit" in shown
    assert "dense: Locust itself" not in shown


def test_json_round_trips_and_keeps_every_latency(tmp_path: Path) -> None:
    plan = Plan(("dense", "sparse"), texts=Path("texts.txt"))
    content = report.document(TURNS, complete=True, plan=plan.to_dict())
    report.write(report.dump(content), tmp_path / "load.json")
    text = (tmp_path / "load.json").read_text()
    loaded = json.loads(text)
    assert [t["latencies_ms"] for t in loaded["turns"]] == [list(t.latencies_ms) for t in TURNS]
    assert loaded["summary"]["dense"]["faults"] == {"late": 1}
    assert loaded["plan"]["texts"] == "texts.txt"
    assert "[ 1.0, 2.0, 3.0, 4.0, 5.0 ]" in text  # lists of numbers stay on one line
    assert [path.name for path in tmp_path.iterdir()] == ["load.json"]


@pytest.mark.parametrize("turns", [TURNS, [turn(1, "sparse", [], faults={"wrong": 1})]])
def test_the_picture_is_a_png(tmp_path: Path, turns: list[Turn]) -> None:
    picture.save(turns, tmp_path / "load.png")
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["load.png"]
