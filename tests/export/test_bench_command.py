"""The `crisp bench` command: a whole run on tiny models, and what it refuses before it measures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from bench_models import classifier, write_folder
from typer.testing import CliRunner

from export.bench import command, inputs
from export.bench.workloads import WORKLOADS, parse_workloads
from export.errors import ExportError, ModelFolderError
from export.op_library import ENVIRONMENT_VARIABLE, find_op_library
from training.errors import DataError
from training.pattern import AttentionPattern

ROOT = Path(__file__).resolve().parents[2]


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


def test_the_default_is_every_workload() -> None:
    default = typer.main.get_command(_app()).params
    value = next(p.default for p in default if p.name == "workloads")
    assert [w.name for w in parse_workloads(value)] == list(WORKLOADS)


def test_a_whole_bench_saves_every_time_it_took(folders: Path, tmp_path: Path) -> None:
    file, drawn = tmp_path / "bench.json", tmp_path / "bench.png"
    names = ["sst-b1", "sst-b32-sorted", "n512-b1"]
    result = invoke(
        *("--model", str(folders / "sparse"), "--model", str(folders / "dense")),
        *("--workloads", ",".join(names), "--rounds", "2", "--threads", "1", "--peers", "torch"),
        *("--accuracy", str(ROOT / "examples" / "dev.tsv"), "--profile"),
        *("--plot", str(drawn), "--json", str(file)),
    )
    assert result.exit_code == 0, result.output
    assert drawn.read_bytes().startswith(b"\x89PNG")
    found = json.loads(file.read_text())
    assert list(found["workloads"]) == names
    contenders = ["stock fp32", "stock int8", "torch sdpa fp32", "sparse", "dense"]
    assert list(found["contenders"]) == contenders
    for name in names:
        workload = found["workloads"][name]
        assert [len(row) for row in workload["lengths"]] == [WORKLOADS[name].size] * 2
        assert set(workload["times_ms"]) == set(contenders) == set(workload["figures"])
        for times in workload["times_ms"].values():
            assert len(times) == 2
            assert min(times) > 0
        assert workload["figures"]["dense"]["n"] == 2
        assert workload["ways"].keys() == {"stock fp32", "stock int8"}
        assert set(workload["over_peers"]["torch sdpa fp32"]) == {"sparse", "dense"}
        profiles = workload["profiles"]
        assert set(profiles) == set(contenders) - {"torch sdpa fp32"}
        assert {share["operator"] for share in profiles["stock fp32"]} >= {
            workload["ways"]["stock fp32"],
            "SkipLayerNormalization",
        }
        for shares in profiles.values():
            assert sum(share["share"] for share in shares) == pytest.approx(1)
    assert found["reference"] == "stock fp32"
    assert found["baseline"]["weights"] == str(folders / "dense")  # the first with dense attention
    assert found["baseline"]["fused"]["Attention"]["Attention"] == 2
    # The baseline and the engine have the same weights, and compute the same.
    assert found["baseline"]["fp32_largest_difference_from_torch"] < 1e-3
    assert found["contenders"]["dense"]["largest_difference_from_torch"] < 1e-3
    assert found["contenders"]["dense"]["positions"] == 512
    accuracies = {name: found["contenders"][name]["accuracy"][0] for name in contenders}
    assert {measured["rows"] for measured in accuracies.values()} == {16}
    same = {accuracies[name]["accuracy"] for name in ("stock fp32", "torch sdpa fp32", "dense")}
    assert len(same) == 1
    assert found["settings"]["threads"] == 1
    assert found["environment"]["versions"]["torch"]
    assert found["operators"]["compiled"] == find_op_library().available
    for name in (*names, *contenders):
        assert name in result.output


@pytest.mark.skipif(
    find_spec("openvino") is None or find_spec("nncf") is None,
    reason="openvino and nncf are not installed: the extra [bench] brings them",
)
def test_texts_longer_than_the_models_take_are_measured_by_everyone(
    folders: Path, tmp_path: Path
) -> None:
    file, few = tmp_path / "bench.json", tmp_path / "few.tsv"
    few.write_text("sentence\tlabel\n" + "ab cd\tpositive\n" * 3)
    result = invoke(
        *("--model", str(folders / "dense"), "--model", str(folders / "sparse")),
        *("--workloads", "n2048-b1", "--rounds", "1", "--threads", "1", "--json", str(file)),
        *("--calibration", str(few)),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())
    workload = found["workloads"]["n2048-b1"]
    assert workload["lengths"] == [[2048]]
    assert not workload["errors"]
    assert set(workload["times_ms"]) == set(found["contenders"])
    assert {"openvino fp32", "openvino int8"} < set(found["contenders"])
    assert (
        found["contenders"]["openvino int8"]["calibration"] == f"3 texts of {tmp_path.name}/few.tsv"
    )
    for facts in found["contenders"].values():
        assert (facts["positions_repeated_from"], facts["positions"]) == (512, 2048)
    assert "repeated from 512 rows to 2048" in " ".join(result.output.split())


def test_json_alone_goes_to_standard_output_and_tells_of_the_fallback(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "none")
    result = invoke(
        *("--model", str(folders / "sparse"), "--workloads", "sst-b1", "--rounds", "1"),
        *("--threads", "1", "--peers", "none", "--json", "-"),
    )
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["baseline"]["weights"] == str(folders / "sparse")
    assert "largest_difference_from_torch" not in found["contenders"]["sparse"]  # not dense
    assert found["operators"]["compiled"] is False
    assert "stock fp32" in result.stderr
    assert "Without the compiled operators" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_costs_neither_the_tables_nor_the_other_file(
    folders: Path, tmp_path: Path
) -> None:
    drawn = tmp_path / "bench.png"
    result = invoke(
        *("--model", str(folders / "sparse"), "--workloads", "sst-b1", "--rounds", "1"),
        *("--threads", "1", "--peers", "none", "--json", "/dev/full", "--plot", str(drawn)),
    )
    assert isinstance(result.exception, OSError)
    assert "stock fp32" in result.output
    assert drawn.is_file()
    assert f"Saved {drawn}" in result.output.replace("\n", "")
    assert "Saved /dev/full" not in result.output


def test_fp16_models_run_on_their_fallback_and_it_is_told(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "half", classifier(), AttentionPattern("dense"), "fp16").path
    file = tmp_path / "bench.json"
    result = invoke(
        *("--model", str(path), "--workloads", "sst-b1", "--rounds", "1"),
        *("--threads", "1", "--peers", "none", "--json", str(file)),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())["contenders"]["half"]
    assert found["precision"] == "fp16"
    assert found["largest_difference_from_torch"] < 0.1
    assert ("fallback" in found) == find_op_library().available
    assert "built-in fallback" in result.output or not find_op_library().available


def test_models_of_another_architecture_are_refused(folders: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "wide", classifier(hidden_dim=128), AttentionPattern("dense"))
    result = invoke("--model", str(tmp_path / "wide"), "--model", str(folders / "sparse"))
    assert isinstance(result.exception, ExportError)
    assert "one architecture" in str(result.exception)


def test_missing_bundled_models_are_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "BUNDLED_MODELS", tmp_path)
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
        (("--plot", "missing/bench.png"), "folder that exists"),
        (("--plot", "bench.gif"), "a .png or .svg file"),
        (("--plot", "closed/bench.png"), "nothing may be written in"),
    ],
)
def test_bad_options_are_refused(
    arguments: tuple[str, ...], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    monkeypatch.chdir(tmp_path)
    # As for somebody who may not write; root, who may run this, is asked by nobody.
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "closed")
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "kind", "complaint"),
    [
        (("--workloads", "n512"), ExportError, "--workloads does not know n512"),
        (("--peers", "tvm"), ExportError, "--peers does not know tvm"),
        (("--accuracy", "missing.tsv"), DataError, "missing.tsv does not exist"),
        (("--calibration", "missing.tsv"), DataError, "missing.tsv does not exist"),
    ],
)
def test_bad_input_is_refused_before_anything_is_exported(
    arguments: tuple[str, ...],
    kind: type[Exception],
    complaint: str,
    folders: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "_report", None)  # whoever gets there fails otherwise
    result = invoke("--model", str(folders / "dense"), *arguments)
    assert isinstance(result.exception, kind)
    assert complaint in str(result.exception)


def test_accuracy_needs_models_with_the_same_labels(folders: Path, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other", classifier(), AttentionPattern("dense"))
    file = other.path / "manifest.json"
    facts = json.loads(file.read_text())
    facts["labels"].reverse()
    file.write_text(json.dumps(facts))
    result = invoke(
        *("--model", str(folders / "dense"), "--model", str(other.path)),
        *("--accuracy", str(ROOT / "examples" / "dev.tsv")),
    )
    assert isinstance(result.exception, ExportError)
    assert "dense and other have different labels" in str(result.exception)
