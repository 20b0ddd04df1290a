"""What `crisp bench` makes of its times: medians, ratios, rates, shares of operators, tables, and a
picture, all of which follow from the figures that go in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench_models import classifier
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

from export.bench import picture, tables
from export.bench.measure import Rounds
from export.bench.profile import OperatorShare, operator_shares
from export.bench.report import Report, document, figures, padding
from export.bench.roofline import Architecture, Peaks, measure_peaks
from export.bench.workloads import KNOWN, Workload, parse_workloads
from export.op_library import OpLibrary
from training.narrow_model import set_feed_forward

TINY = Architecture(vocabulary=100, layers=2, hidden=64, inner=(96, 96), heads=4, labels=2)
PEAKS = Peaks(fp32={"a": 1e9, "b": 2e9}, int8={"c": 4e9})


# --- figures ---------------------------------------------------------------------------------


def test_figures_follow_from_the_times() -> None:
    rounds = Rounds([[5, 7], [6, 6], [1, 9]], {"stock": [10, 30, 20], "engine": [5, 10, 2.5]})
    found = figures(rounds, "stock", TINY)
    assert found["stock"].median_ms == 20
    assert found["engine"].median_ms == 5
    assert found["stock"].texts_per_second == 6 / 0.060
    assert found["engine"].texts_per_second == pytest.approx(6 / 0.0175)
    work = sum(TINY.multiply_adds(lengths) for lengths in rounds.lengths)
    assert found["engine"].multiply_adds_per_second == pytest.approx(work / 0.0175)
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
    speedup = figures(rounds, "stock", TINY)["engine"].speedup
    assert (speedup.value, speedup.low, speedup.high) == pytest.approx((factor,) * 3)


def test_padding_is_the_share_of_tokens_that_a_padded_batch_computes() -> None:
    assert padding([[4, 4], [4, 4]]) == 1
    assert padding([[1, 3]]) == 1.5


# --- the roofline ------------------------------------------------------------------------------


@given(length=st.integers(1, 60), narrow=st.booleans())
@settings(max_examples=10)
def test_multiply_adds_are_those_of_the_matrix_products_that_torch_does(
    length: int, *, narrow: bool
) -> None:
    model = classifier()
    sizes = TINY
    if narrow:
        set_feed_forward(model, (40, 16))
        sizes = dataclasses.replace(TINY, inner=(40, 16))
    counted = 0

    def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal counted
        assert isinstance(module, nn.Linear)
        counted += output.numel() * module.in_features

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(count)
    with torch.inference_mode():
        model(input_ids=torch.ones((1, length), dtype=torch.int64))
    # Scores q·k and the sum over v, of each head, in each layer.
    counted += model.config.n_layers * 2 * model.config.dim * length**2
    assert Architecture.of(model.config) == sizes
    assert sizes.multiply_adds([length]) == counted


@given(st.lists(st.integers(1, 500), min_size=1, max_size=8))
def test_multiply_adds_of_a_batch_are_those_of_its_texts(lengths: list[int]) -> None:
    assert TINY.multiply_adds(lengths) == sum(TINY.multiply_adds([n]) for n in lengths)


def test_every_peak_is_measured_and_the_higher_counts() -> None:
    found = measure_peaks(threads=1)
    rates = [*found.fp32.values(), *found.int8.values()]
    assert len(rates) == 4
    assert all(np.isfinite(rate) and rate > 0 for rate in rates)
    assert found.highest_fp32 == max(found.fp32.values())
    assert PEAKS.or_higher(Peaks({"a": 3e9, "b": 1e9}, {"c": 1e9})) == Peaks(
        {"a": 3e9, "b": 2e9}, {"c": 4e9}
    )


# --- profiles ----------------------------------------------------------------------------------


def event(name: str, start: int, duration: int, operator: str = "", category: str = "Node") -> Any:
    return {
        "cat": category,
        "name": name,
        "ts": start,
        "dur": duration,
        "args": {"op_name": operator},
    }


def test_shares_are_those_of_the_runs_after_the_first() -> None:
    events = [
        event("model_run", 0, 100, category="Session"),
        event("a_kernel_time", 10, 90, "MatMul"),  # of the run that warms up
        event("model_run", 200, 100, category="Session"),
        event("a_kernel_time", 210, 60, "MatMul"),
        event("a_fence_before", 210, 1, "MatMul"),
        event("b_kernel_time", 280, 20, "Gelu"),
        event("model_run", 400, 100, category="Session"),
        event("a_kernel_time", 410, 60, "MatMul"),
        event("c_kernel_time", 480, 60, "MatMul"),
    ]
    assert operator_shares(events) == [
        OperatorShare("MatMul", 0.9, 1.5, 0.09),
        OperatorShare("Gelu", 0.1, 0.5, 0.01),
    ]


# --- what is shown -----------------------------------------------------------------------------


def synthetic(**changes: Any) -> Report:
    report = Report(
        contenders={
            "stock fp32": {"kind": "stock"},
            "rival int8": {"kind": "peer"},
            "engine": {"kind": "engine", "accuracy": [ACCURACY]},
        },
        rounds={
            "sst-b1": Rounds(
                [[5]] * 5,
                {"stock fp32": [9.0] * 5, "rival int8": [6.0] * 5, "engine": [3.0] * 5},
                ways={"stock fp32": "Attention"},
            ),
            "n4096-b1": Rounds(
                [[4096]] * 5,
                {"stock fp32": [900.0] * 5, "engine": [90.0] * 5},
                errors={"rival int8": "out of memory"},
            ),
        },
        baseline={"weights": "models/dense"},
        architecture=TINY,
        peaks=PEAKS,
        library=OpLibrary(Path("libcrisp_ops.so"), "found"),
        settings={"threads": 2},
        command="crisp bench",
        started="2026-01-01T00:00:00+00:00",
        environment={"processor": "a CPU", "cores": 2, "load_average": 0.1, "versions": {}},
        profiles={"sst-b1": {"engine": [OperatorShare("MatMul", 0.75, 24, 2.25)]}},
    )
    return dataclasses.replace(report, **changes)


ACCURACY = {
    "name": "sst2/dev.tsv",
    "rows": 872,
    "sha256": None,
    "accuracy": 0.9037,
    "low": 0.8823,
    "high": 0.9215,
    "from": "manifest",
}


def shown(found: Report) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        tables.show(console, found)
    return captured.get()


def test_the_tables_show_times_ratios_peaks_accuracy_and_shares() -> None:
    text = shown(synthetic())
    assert "9.00" in text
    assert "3.00 (3.00 to 3.00)" in text  # over stock
    assert "2.00 (2.00 to 2.00)" in text  # over the rival
    assert "333.3" in text  # texts a second
    rate = TINY.multiply_adds([5]) / 0.003
    assert f"{rate / 2e9:.2f}" in text
    assert f"{rate / 4e9:.2f}" in text
    assert "90.37 % (88.23 to 92.15)" in text
    assert "75% (24)" in text
    assert "stock fp32: Attention was faster on sst-b1." in text
    assert "rival int8 failed on n4096-b1: out of memory" in text
    assert "busy" not in text
    assert "Without the compiled operators" not in text


def test_no_figure_is_folded_on_a_narrow_terminal() -> None:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(tables.times(synthetic()))
        console.print(tables.efficiency(synthetic()))
    assert "3.00 (3.00 to 3.00)" in captured.get()
    assert "2.00 (2.00 to 2.00)" in captured.get()


def test_a_busy_machine_missing_peers_and_a_missing_operator_library_are_told() -> None:
    busy = {**synthetic().environment, "load_average": 3.0}
    assert "The machine was busy (load 3.0 on 2 cores)" in shown(synthetic(environment=busy))
    assert "Without Rival" in shown(synthetic(missing=["Without Rival"]))
    missing = synthetic(library=OpLibrary(None, "it has not been built"))
    assert "Without the compiled operators: it has not been built" in shown(missing)
    assert document(missing)["operators"]["compiled"] is False


def test_a_few_rounds_make_no_interval() -> None:
    """One of them would have the narrowest there is."""
    times = {"stock fp32": [9.0] * 4, "rival int8": [6.0] * 4, "engine": [3.0] * 4}
    few = synthetic(rounds={"sst-b1": Rounds([[5]] * 4, times)}, profiles={})
    text = shown(few)
    assert "3.00 (–)" in text
    assert "2.00 (–)" in text
    assert "3.00 to 3.00" not in text
    workload = document(few)["workloads"]["sst-b1"]
    for ratio in (
        workload["figures"]["engine"]["speedup"],
        workload["over_peers"]["rival int8"]["engine"],
    ):
        assert ratio["value"] in (3, 2)
        assert (ratio["low"], ratio["high"]) == (None, None)


def test_repeated_position_tables_are_told() -> None:
    longer = {"kind": "stock", "positions": 4096, "positions_repeated_from": 512}
    text = shown(synthetic(contenders={**synthetic().contenders, "stock fp32": longer}))
    assert "repeated from 512 rows to 4096" in " ".join(text.split())


def test_the_document_holds_everything_as_json() -> None:
    found = json.loads(json.dumps(document(synthetic())))
    assert found["schema_version"] == 3
    workload = found["workloads"]["sst-b1"]
    assert workload["ways"] == {"stock fp32": "Attention"}
    assert workload["over_peers"]["rival int8"]["engine"]["value"] == 2
    engine = workload["figures"]["engine"]
    assert engine["speedup"]["value"] == 3
    assert engine["of_fp32_peak"] == pytest.approx(engine["multiply_adds_per_second"] / 2e9)
    assert engine["of_int8_peak"] == pytest.approx(engine["multiply_adds_per_second"] / 4e9)
    assert workload["profiles"]["engine"][0]["operator"] == "MatMul"
    longest = found["workloads"]["n4096-b1"]
    assert longest["errors"] == {"rival int8": "out of memory"}
    assert "rival int8" not in longest["times_ms"]
    assert found["contenders"]["engine"]["accuracy"] == [ACCURACY]
    assert found["peaks"]["int8"] == {"c": 4e9}


@pytest.mark.parametrize("workload", parse_workloads(",".join(KNOWN)), ids=lambda each: each.name)
def test_every_workload_that_is_taken_can_be_reported(workload: Workload) -> None:
    rounds = {workload.name: Rounds([[5]] * 5, {"stock fp32": [9.0] * 5})}
    found = document(dataclasses.replace(synthetic(), rounds=rounds, profiles={}))
    assert found["workloads"][workload.name]["description"] == str(workload)


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_picture_is_drawn_in_the_format_of_its_name(
    ending: str, start: bytes, tmp_path: Path
) -> None:
    file = tmp_path / f"bench.{ending}"
    picture.save(synthetic(), file)
    assert file.read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_the_picture_names_every_contender_and_draws_what_was_measured(tmp_path: Path) -> None:
    picture.save(synthetic(), tmp_path / "bench.svg")
    text = (tmp_path / "bench.svg").read_text()
    for words in ("rival int8", "engine", "3.0", "10.0", "times faster than stock fp32", "900 ms"):
        assert f"<!-- {words} -->" in text, words
