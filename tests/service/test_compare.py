"""`crisp compare` on two tiny models and texts of our own: every figure recomputed another way,
with stock ONNX Runtime and scipy's tests, not with our engine, operators and statistics.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, contingency
from tokenizers import Tokenizer
from typer.testing import CliRunner, Result

import crisp
from export import manifest
from service.compare.measure import BATCH, Runs, blocks, measure, work
from service.engine import Engine
from service.errors import ModelsError
from training.errors import DataError

WORDS = ("a", "bad", "cast", "dull", "film", "fine", "good", "is", "not", "slow", "story", "warm")
LABELS = ("negative", "positive")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """75 short texts and two that exceed the tiny models' 32 tokens, with labels by chance."""
    random = Random(7)
    lengths = [random.randint(1, 12) for _ in range(75)] + [31, 60]
    rows = [(" ".join(random.choices(WORDS, k=n)), random.choice("01")) for n in lengths]
    path = tmp_path_factory.mktemp("data") / "texts.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(crisp.app, ["compare", *map(str, arguments)])


def rows(data: Path) -> list[tuple[str, str]]:
    lines = data.read_text().splitlines()[1:]
    return [(text, LABELS[int(label)]) for text, label in (line.split("\t") for line in lines)]


def labels_by_hand(folder: Path, texts: list[str]) -> list[str]:
    """The model's answers, one text a run, from ONNX Runtime without our operators and engine."""
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(32)
    answers = []
    for encoding in tokenizer.encode_batch(texts):
        ids = np.array(encoding.ids, np.int64)
        feeds = {"input_ids": ids, "cu_seqlens": np.array([0, len(ids)], np.int32)}
        answers.append(LABELS[session.run(["logits"], feeds)[0][0].argmax()])
    return answers


@pytest.fixture(scope="module")
def report(data: Path, models_dir: Path) -> dict[str, Any]:
    done = run("--data", data, "--models", models_dir, "--passes", 2, "--json", "-")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_accuracy_agreement_and_tests_are_those_computed_by_hand(
    report: dict[str, Any], data: Path, models_dir: Path
) -> None:
    texts, truth = (list(column) for column in zip(*rows(data), strict=True))
    answers = {name: labels_by_hand(models_dir / name, texts) for name in ("dense", "sparse")}
    right = {
        name: [a == t for a, t in zip(labels, truth, strict=True)]
        for name, labels in answers.items()
    }
    assert report["labels"] == truth
    for name in ("dense", "sparse"):
        found, correct = report["variants"][name], sum(right[name])
        interval = binomtest(correct, len(truth)).proportion_ci(method="wilson")
        assert report["runs"][name]["labels"] == answers[name]
        assert (found["n"], found["correct"]) == (len(truth), correct)
        assert found["accuracy"] == pytest.approx(
            {"value": correct / len(truth), "low": interval.low, "high": interval.high}
        )
    table = contingency.crosstab(right["dense"], right["sparse"], levels=([0, 1], [0, 1])).count
    against = report["comparisons"]["sparse"]
    assert against["baseline"] == "dense"
    assert against["outcomes"] == {
        "both_right": table[1, 1],
        "only_first_right": table[1, 0],
        "only_second_right": table[0, 1],
        "both_wrong": table[0, 0],
    }
    discordant = int(table[1, 0] + table[0, 1])
    assert discordant > 0, "the two tiny models are meant to differ"
    assert against["mcnemar_p"] == pytest.approx(binomtest(int(table[1, 0]), discordant).pvalue)
    difference = against["accuracy_difference"]
    assert difference["value"] == pytest.approx((table[0, 1] - table[1, 0]) / len(truth))
    assert difference["low"] < difference["value"] < difference["high"]
    same = np.mean(np.array(answers["dense"]) == np.array(answers["sparse"]))
    assert against["agreement"] == pytest.approx(same)


def test_timings_are_complete_and_their_figures_follow_from_them(report: dict[str, Any]) -> None:
    blocks_a_pass = -(-77 // BATCH)
    medians = {}
    for name in ("dense", "sparse"):
        run, found = report["runs"][name], report["variants"][name]
        assert len(run["single_ms"]) == 2 * blocks_a_pass * BATCH
        assert len(run["batch_seconds"]) == 2 * blocks_a_pass
        for quantile in (50, 95, 99):
            expected = np.percentile(run["single_ms"], quantile)
            assert found["latency_ms"][f"p{quantile}"] == pytest.approx(expected, abs=1e-3)
        rate = BATCH / np.median(run["batch_seconds"])
        assert found["texts_per_second"] == pytest.approx(rate, rel=0.01)
        assert found["tokens_per_second"] > found["texts_per_second"]
        by_text = [
            np.median([ms for t, ms in zip(run["text"], run["single_ms"], strict=True) if t == i])
            for i in range(77)
        ]
        medians[name] = np.median(by_text), np.median(run["batch_seconds"])
    for figure, i in (("latency_speedup", 0), ("throughput_speedup", 1)):
        speedup = report["comparisons"]["sparse"][figure]
        assert speedup["value"] == pytest.approx(
            medians["dense"][i] / medians["sparse"][i], rel=0.01
        )
        assert speedup["low"] <= speedup["value"] <= speedup["high"]


def test_further_passes_are_no_further_texts() -> None:
    runs = Runs(single_ms=[5.0, 1.0, 2.0, 3.0, 9.0], timed=[1, 0, 0, 1, 1])
    assert runs.typical_ms() == [1.5, 5.0]


def test_the_report_says_what_was_compared(
    report: dict[str, Any], data: Path, models_dir: Path
) -> None:
    assert report["data"]["sha256"] == manifest.sha256_of(data)
    assert report["data"]["n"] == 77
    assert report["settings"] == {
        "passes": 2,
        "seed": 0,
        "limit": None,
        "threads": None,
        "batch": BATCH,
    }
    assert report["environment"]["versions"]["numpy"] == np.__version__
    sparse = report["variants"]["sparse"]
    assert sparse["truncated"] == 2
    size = (models_dir / "sparse" / "model.onnx").stat().st_size
    assert sparse["model"]["model_bytes"] == size
    assert sparse["model"]["precision"] == "fp32"
    assert sparse["changed_in_batch"] == 0  # fp32: a batch changes nothing


def test_the_table_shows_both_variants_and_the_comparison(data: Path, models_dir: Path) -> None:
    done = run("--data", data, "--models", models_dir, "--passes", 1, "--limit", 10)
    assert done.exit_code == 0, done.output
    for words in ("10 texts", "dense", "sparse", "accuracy", "McNemar", "p99", "tokens/s"):
        assert words in done.stdout


def test_a_few_batches_make_no_interval(data: Path, models_dir: Path) -> None:
    for passes, none in ((1, True), (2, False)):  # of 3 batches each
        done = run("--data", data, "--models", models_dir, "--passes", passes)
        *_, of_latency, of_throughput = (
            line for line in done.stdout.splitlines() if "95 % interval" in line
        )
        assert " to " in of_latency
        assert ("–" in of_throughput) is none


def test_a_busy_machine_is_told(
    data: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for load, told in ((64.0, True), (0.0, False)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        done = run("--data", data, "--models", models_dir, "--passes", 1, "--limit", 4)
        assert ("The machine was busy (load 64.0 on" in done.stdout) is told


def test_a_limited_comparison_draws_the_same_texts_again(
    data: Path, models_dir: Path, tmp_path: Path
) -> None:
    drawn = []
    for name in ("one.json", "two.json"):
        options = ("--passes", 1, "--limit", 20, "--seed", 3, "--json", tmp_path / name)
        done = run("--data", data, "--models", models_dir, *options)
        assert done.exit_code == 0, done.output
        drawn.append(json.loads((tmp_path / name).read_text()))
    first, second = drawn
    assert first["labels"] == second["labels"]
    assert first["runs"]["dense"]["labels"] == second["runs"]["dense"]["labels"]
    assert first["data"]["n"] == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.json", "two.json"]


@given(count=st.integers(1, 200), seed=st.integers())
def test_blocks_hold_every_text_and_are_full(count: int, seed: int) -> None:
    found = blocks(count, Random(seed))
    assert all(len(block) == BATCH for block in found)
    times = Counter(i for block in found for i in block)
    assert set(times) == set(range(count))
    assert sum(times.values()) == work(1, count) == -(-count // BATCH) * BATCH
    assert max(times.values()) - min(times.values()) <= 1


def test_all_variants_answer_a_text_before_the_next_in_changing_order() -> None:
    calls: list[tuple[str, tuple[str, ...]]] = []

    class Recorder:
        """Answers like an engine and keeps what it was asked."""

        def __init__(self, name: str, engine: Engine) -> None:
            self.name, self.engine = name, engine

        def predict(self, texts: list[str]) -> Any:
            calls.append((self.name, tuple(texts)))
            return self.engine.predict(texts)

    class Constant:
        def predict(self, texts: list[str]) -> Any:
            from service.engine import Answer, Prediction, Timing

            one = Prediction("positive", 1.0, {"negative": 0.0, "positive": 1.0}, 3, False)
            logits, manifest = [[0.0, 1.0] for _ in texts], cast(Any, None)  # nobody reads that
            return Answer([one for _ in texts], Timing(0, 0, 0), logits, manifest)

    constant: Any = Constant()
    engines: dict[str, Any] = {name: Recorder(name, constant) for name in ("dense", "sparse")}
    texts = [f"text {i}" for i in range(10 * BATCH)]
    advanced: list[int] = []
    runs = measure(engines, texts, passes=1, seed=0, advance=advanced.append)
    timed = calls[len(engines) * (BATCH + 1) :]  # the first block warms up
    orders: Counter[tuple[int, str]] = Counter()
    for (first, asked_first), (second, asked_second) in zip(timed[::2], timed[1::2], strict=True):
        assert {first, second} == {"dense", "sparse"}
        assert asked_first == asked_second
        orders[len(asked_first), first] += 1
    assert {length for length, _ in orders} == {1, BATCH}
    for length, times in ((1, len(texts)), (BATCH, 10)):
        assert orders[length, "dense"] + orders[length, "sparse"] == times
        assert min(orders[length, "dense"], orders[length, "sparse"]) >= times / 10
    assert sum(advanced) == work(2, len(texts))
    assert isinstance(runs["dense"], Runs)
    assert len(runs["dense"].predictions) == len(texts)


def test_missing_data_is_refused(models_dir: Path, tmp_path: Path) -> None:
    done = run("--data", tmp_path / "missing.tsv", "--models", models_dir)
    assert isinstance(done.exception, DataError)
    assert "missing.tsv does not exist" in str(done.exception)


def test_labels_that_the_model_does_not_know_are_refused(models_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "topics.tsv"
    path.write_text("text\tlabel\na warm story\tsports\n")
    done = run("--data", path, "--models", models_dir)
    assert isinstance(done.exception, DataError)
    assert "unknown label 'sports'; known: negative, positive" in str(done.exception)


def test_an_unknown_variant_is_refused_with_those_there_are(data: Path, models_dir: Path) -> None:
    done = run("--data", data, "--models", models_dir, "--variants", "dense,tiny")
    assert isinstance(done.exception, ModelsError)
    assert "has no variant 'tiny'; it has dense, sparse" in str(done.exception)


@pytest.mark.parametrize("variants", ["dense", "dense,dense", ",", ""])
def test_one_variant_is_nothing_to_compare(data: Path, models_dir: Path, variants: str) -> None:
    done = run("--data", data, "--models", models_dir, "--variants", variants)
    assert done.exit_code == 2
    assert "at least two different names" in " ".join(done.output.replace("│", " ").split())


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    data: Path, models_dir: Path, tmp_path: Path
) -> None:
    for place in (tmp_path, tmp_path / "missing" / "report.json"):
        done = run("--data", data, "--models", models_dir, "--json", place)
        assert done.exit_code == 2
        assert "cannot be written" in " ".join(done.output.replace("│", " ").split())


def test_results_are_saved_before_they_are_shown(
    data: Path, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `crisp compare ... | head -1`."""

    def gone(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("service.compare.report.show", gone)
    file = tmp_path / "found.json"
    done = run("--data", data, "--models", models_dir, "--passes", 1, "--json", file)
    assert done.exit_code != 0
    assert json.loads(file.read_text())["comparisons"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_does_not_cost_the_table(data: Path, models_dir: Path) -> None:
    done = run("--data", data, "--models", models_dir, "--passes", 1, "--json", "/dev/full")
    assert isinstance(done.exception, OSError)
    assert "McNemar" in done.stdout
    assert "Saved" not in done.stdout


def test_variants_with_different_labels_are_refused(
    data: Path, models_dir: Path, tmp_path: Path
) -> None:
    for name, labels in (("dense", LABELS), ("sparse", ("bad", "good"))):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("model.onnx", "tokenizer.json"):
            (folder / file).write_bytes((models_dir / name / file).read_bytes())
        facts = json.loads((models_dir / name / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(facts | {"labels": labels}))
    done = run("--data", data, "--models", tmp_path)
    assert isinstance(done.exception, ModelsError)
    assert "different labels" in str(done.exception)
