"""`crisp bench`: lengths as documented, every contender on the same batches, figures that follow
from the raw times, and a whole run on tiny models. No test looks at how long anything took."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from bench_models import classifier, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from export.bench import command, report
from export.bench.measure import FEWEST_ROUNDS, WARM_UP_ROUNDS, Contender, Rounds, measure
from export.bench.report import Report, document, figures, padding
from export.bench.workloads import (
    IMDB,
    SST2,
    WINDOW,
    WORKLOADS,
    Batch,
    LengthMix,
    Workload,
    batches,
    check_limit,
    fixed,
    parse_workloads,
)
from export.errors import ExportError, ModelFolderError
from export.op_library import ENVIRONMENT_VARIABLE, OpLibrary, find_op_library
from training.pattern import AttentionPattern

VOCABULARY = 100
SHORT = Workload("sst-b1", fixed(3), 1)
LONG = Workload("imdb-b8", fixed(30), 8)


# --- lengths and batches ---------------------------------------------------------------------


@pytest.mark.parametrize(("mix", "mean"), [(SST2, 25.4), (IMDB, 209.4)])
def test_lengths_have_the_quantiles_and_the_mean_that_are_documented(
    mix: LengthMix, mean: float
) -> None:
    lengths = mix.draw(100_000, np.random.default_rng(0))
    assert lengths.mean() == pytest.approx(mean, rel=0.01)
    found = np.quantile(lengths, (0.05, 0.25, 0.5, 0.75, 0.95))
    assert found == pytest.approx(mix.quantiles[1:-1], rel=0.03)
    assert lengths.min() == mix.quantiles[0]
    assert lengths.max() <= mix.longest


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=str)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_batches_have_the_size_the_lengths_and_the_tokens_of_their_workload(
    workload: Workload, seed: int
) -> None:
    def draw() -> list[Batch]:
        random = np.random.default_rng(seed)
        return list(islice(batches(workload, vocabulary=VOCABULARY, random=random), WINDOW + 1))

    found = draw()
    assert found == draw()
    for batch in found:
        assert len(batch) == workload.size
        for ids in batch:
            assert workload.mix.quantiles[0] <= len(ids) <= workload.mix.longest
            assert min(ids) >= 0
            assert max(ids) < VOCABULARY


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_sorted_batches_hardly_pad_and_hold_the_texts_of_one_window(seed: int) -> None:
    random = np.random.default_rng(seed)
    supply = batches(WORKLOADS["sst-b32-sorted"], vocabulary=VOCABULARY, random=random)
    window = [[len(ids) for ids in batch] for batch in islice(supply, WINDOW)]
    window.sort()
    for shorter, longer in pairwise(window):
        assert max(shorter) <= min(longer)
    assert padding(window) < 1.2
    arrival = batches(WORKLOADS["sst-b32"], vocabulary=VOCABULARY, random=random)
    assert padding([[len(ids) for ids in batch] for batch in islice(arrival, WINDOW)]) > 1.5


def test_the_default_is_every_workload() -> None:
    default = typer.main.get_command(_app()).params
    value = next(p.default for p in default if p.name == "workloads")
    assert [w.name for w in parse_workloads(value)] == list(WORKLOADS)


def test_workloads_are_named_by_comma() -> None:
    assert [w.name for w in parse_workloads(" n512,sst-b1,n512,")] == ["n512", "sst-b1"]


@pytest.mark.parametrize(
    ("names", "complaint"), [("sst-b2,n512", "does not know sst-b2"), (",", "got none")]
)
def test_unknown_workloads_are_refused_by_name(names: str, complaint: str) -> None:
    with pytest.raises(ExportError, match=f"{complaint}; it takes a list of sst-b1"):
        parse_workloads(names)


def test_texts_longer_than_the_models_take_are_refused() -> None:
    check_limit(list(WORKLOADS.values()), 512)
    with pytest.raises(ExportError, match="n512 has texts of 512 tokens, and the models take 500"):
        check_limit(list(WORKLOADS.values()), 500)


# --- measuring, by a clock that only contenders move ------------------------------------------


class Clock:
    """A clock that stands still but for the seconds that a contender takes for a token."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[str, Batch]] = []

    def __call__(self) -> float:
        return self.now

    def contender(self, name: str, seconds: float) -> Contender:
        def run(batch: Batch) -> None:
            self.calls.append((name, batch))
            self.now += seconds * sum(map(len, batch))

        return Contender(name, lambda batch: batch, run)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(clock: Clock, **options: Any) -> dict[str, Rounds]:
    contenders = [clock.contender("slow", 2e-3), clock.contender("fast", 1e-3)]
    return measure(contenders, (SHORT, LONG), vocabulary=VOCABULARY, clock=clock, **options)


def test_every_contender_runs_every_batch_in_an_order_that_changes(clock: Clock) -> None:
    run(clock, seconds=1, rounds=20)
    pairs = list(zip(clock.calls[::2], clock.calls[1::2], strict=True))
    assert len(pairs) == 2 * (20 + WARM_UP_ROUNDS)
    assert all(first[1] == second[1] for first, second in pairs)
    assert {(first[0], second[0]) for first, second in pairs} == {
        ("slow", "fast"),
        ("fast", "slow"),
    }


def test_rounds_are_as_many_as_asked_for_without_the_warm_up(clock: Clock) -> None:
    shares: list[float] = []
    found = run(clock, seconds=1, rounds=7, advance=shares.append)
    for name, tokens in (("sst-b1", 3), ("imdb-b8", 240)):
        assert found[name].lengths == [
            [tokens // len(row)] * len(row) for row in found[name].lengths
        ]
        assert found[name].times_ms["slow"] == pytest.approx([2 * tokens] * 7)
        assert found[name].times_ms["fast"] == pytest.approx([tokens] * 7)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_time_is_shared_equally_between_workloads(clock: Clock) -> None:
    found = run(clock, seconds=60)
    spent = {
        name: sum(sum(times) for times in rounds.times_ms.values()) / 1e3
        for name, rounds in found.items()
    }
    assert spent["sst-b1"] == pytest.approx(30, abs=1)
    assert spent["imdb-b8"] == pytest.approx(30, abs=1)


def test_every_workload_gets_the_fewest_rounds_that_tell_anything(clock: Clock) -> None:
    found = run(clock, seconds=0.1)
    assert len(found["imdb-b8"].lengths) == FEWEST_ROUNDS
    assert len(found["sst-b1"].lengths) >= FEWEST_ROUNDS


def test_the_same_seed_gives_the_same_batches() -> None:
    clocks = Clock(), Clock(), Clock()
    for clock, seed in zip(clocks, (1, 1, 2), strict=True):
        run(clock, seconds=1, rounds=3, seed=seed)
    assert clocks[0].calls == clocks[1].calls != clocks[2].calls


# --- figures ---------------------------------------------------------------------------------


def test_figures_follow_from_the_times() -> None:
    rounds = Rounds([[5, 7], [6, 6], [1, 9]], {"stock": [10, 30, 20], "engine": [5, 10, 2.5]})
    found = figures(rounds, "stock")
    assert found["stock"].median_ms == 20
    assert found["engine"].median_ms == 5
    assert found["stock"].texts_per_second == 6 / 0.060
    assert found["engine"].texts_per_second == pytest.approx(6 / 0.0175)
    assert found["engine"].n == 3
    assert found["engine"].speedup.value == 4
    assert found["engine"].speedup.low <= 4 <= found["engine"].speedup.high
    stock = found["stock"].speedup
    assert (stock.value, stock.low, stock.high) == (1, 1, 1)


@given(
    times=st.lists(st.floats(0.1, 1e4), min_size=2, max_size=20), factor=st.sampled_from([2.0, 8.0])
)
@settings(max_examples=20)
def test_what_always_takes_half_as_long_is_twice_as_fast(times: list[float], factor: float) -> None:
    rounds = Rounds([[1]] * len(times), {"stock": times, "engine": [t / factor for t in times]})
    speedup = figures(rounds, "stock")["engine"].speedup
    assert (speedup.value, speedup.low, speedup.high) == pytest.approx((factor,) * 3)


def test_padding_is_the_share_of_tokens_that_a_padded_batch_computes() -> None:
    assert padding([[4, 4], [4, 4]]) == 1
    assert padding([[1, 3]]) == 1.5


def synthetic(load: float | None = 0.1, library: OpLibrary | None = None) -> Report:
    return Report(
        contenders={"stock fp32": {"kind": "stock"}, "engine": {"kind": "engine"}},
        rounds={"sst-b1": Rounds([[5]] * 5, {"stock fp32": [9.0] * 5, "engine": [3.0] * 5})},
        baseline={"weights": "models/dense"},
        library=library or OpLibrary(Path("libcrisp_ops.so"), "found"),
        settings={"threads": 2},
        command="crisp bench",
        started="2026-01-01T00:00:00+00:00",
        environment={"processor": "a CPU", "cores": 2, "load_average": load, "versions": {}},
    )


def shown(found: Report) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        report.show(console, found)
    return captured.get()


def test_the_table_shows_times_ratios_and_rounds() -> None:
    text = shown(synthetic())
    assert "9.00" in text
    assert "3.00 (3.00 to 3.00)" in text
    assert "333.3" in text  # texts a second
    assert "busy" not in text
    assert "Without the compiled operators" not in text


def test_a_busy_machine_and_a_missing_operator_library_are_told() -> None:
    assert "The machine was busy (load 3.0 on 2 cores)" in shown(synthetic(load=3.0))
    missing = OpLibrary(None, "it has not been built")
    assert "Without the compiled operators: it has not been built" in shown(
        synthetic(library=missing)
    )
    assert document(synthetic(library=missing))["operators"]["compiled"] is False


# --- the command -----------------------------------------------------------------------------


def _app() -> typer.Typer:
    app = typer.Typer()
    app.command()(command.bench)
    return app


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(_app(), arguments)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Model folders `dense` (fp32) and `sparse` (int8), with different weights."""
    path = tmp_path_factory.mktemp("models")
    write_folder(path / "dense", classifier(0), AttentionPattern("dense"))
    write_folder(path / "sparse", classifier(1), AttentionPattern("topk", density=0.2), "int8")
    return path


def test_a_whole_bench_saves_every_time_it_took(folders: Path, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    names = ["sst-b1", "sst-b32-sorted", "n512"]
    result = invoke(
        *("--model", str(folders / "sparse"), "--model", str(folders / "dense")),
        *("--workloads", ",".join(names), "--rounds", "2", "--threads", "1", "--json", str(file)),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())
    assert list(found["workloads"]) == names
    contenders = ["stock fp32", "stock int8", "sparse", "dense"]
    assert list(found["contenders"]) == contenders
    for name in names:
        workload = found["workloads"][name]
        assert [len(row) for row in workload["lengths"]] == [WORKLOADS[name].size] * 2
        assert list(workload["times_ms"]) == contenders == list(workload["figures"])
        for times in workload["times_ms"].values():
            assert len(times) == 2
            assert min(times) > 0
        assert workload["figures"]["dense"]["n"] == 2
    assert found["reference"] == "stock fp32"
    assert found["baseline"]["weights"] == str(folders / "dense")  # the first with dense attention
    assert found["baseline"]["fused"]["Attention"] == 2
    # The baseline and the engine have the same weights, and compute the same.
    assert found["baseline"]["fp32_largest_difference_from_torch"] < 1e-3
    assert found["contenders"]["dense"]["largest_difference_from_torch"] < 1e-3
    assert found["settings"]["threads"] == 1
    assert found["environment"]["versions"]["torch"]
    assert found["operators"]["compiled"] == find_op_library().available
    for name in (*names, *contenders):
        assert name in result.output


def test_json_alone_goes_to_standard_output_and_tells_of_the_fallback(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "none")
    result = invoke(
        *("--model", str(folders / "sparse"), "--workloads", "sst-b1", "--rounds", "1"),
        *("--threads", "1", "--json", "-"),
    )
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["baseline"]["weights"] == str(folders / "sparse")
    assert "largest_difference_from_torch" not in found["contenders"]["sparse"]  # not dense
    assert found["operators"]["compiled"] is False
    assert "stock fp32" in result.stderr
    assert "Without the compiled operators" in result.stderr


def test_models_of_another_architecture_are_refused(folders: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "wide", classifier(hidden_dim=128), AttentionPattern("dense"))
    result = invoke("--model", str(tmp_path / "wide"), "--model", str(folders / "sparse"))
    assert isinstance(result.exception, ExportError)
    assert "one architecture" in str(result.exception)


def test_short_models_are_refused_before_anything_is_exported(model_folder: Any) -> None:
    result = invoke("--model", str(model_folder.path))
    assert isinstance(result.exception, ExportError)
    assert "the models take 32" in str(result.exception)


def test_missing_bundled_models_are_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "BUNDLED_MODELS", tmp_path)
    result = invoke("--workloads", "sst-b1")
    assert isinstance(result.exception, ModelFolderError)
    assert f"{tmp_path / 'dense'} is missing" in str(result.exception)
    assert "--model" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--rounds", "0"), "--rounds"),
        (("--threads", "0"), "--threads"),
        (("--seconds", "0"), "--seconds"),
        (("--json", "missing/bench.json"), "folder that exists"),
    ],
)
def test_bad_options_are_refused(arguments: tuple[str, ...], complaint: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert complaint in result.output
