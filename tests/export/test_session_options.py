"""The settings that export/bench/session_options measures are those that it names, and all of them
run. No test looks at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from bench_models import classifier, write_folder
from typer.testing import CliRunner

from export.bench import session_options as bench
from export.manifest import ModelFolder
from export.op_library import make_session
from training.pattern import AttentionPattern


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    path = tmp_path_factory.mktemp("options") / "model"
    return write_folder(path, classifier(), AttentionPattern("blocktopk", size=8, density=0.5))


@pytest.mark.parametrize("name", bench.SETTINGS)
def test_a_setting_reaches_the_session(name: str, folder: ModelFolder) -> None:
    setting = bench.SETTINGS[name]
    found = setting.open(folder.model).get_session_options()
    assert found.intra_op_num_threads == setting.threads == (1 if name == "1 thread" else 2)
    spins = found.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert spins == setting.spinning == name.startswith("spinning")
    assert found.enable_cpu_mem_arena == setting.arena == (name != "no arena")
    assert found.enable_mem_pattern == setting.pattern == (name != "no memory pattern")
    levels = {"level basic": "ORT_ENABLE_BASIC", "level extended": "ORT_ENABLE_EXTENDED"}
    assert found.graph_optimization_level.name == levels.get(name, "ORT_ENABLE_ALL")
    assert setting.idle == name.endswith("idle second session")


def test_the_reference_is_what_is_served(folder: ModelFolder) -> None:
    served = make_session(folder.model, threads=2).get_session_options()
    chosen = bench.CHOSEN.open(folder.model).get_session_options()
    for name in (
        *("intra_op_num_threads", "inter_op_num_threads", "enable_cpu_mem_arena"),
        *("enable_mem_pattern", "graph_optimization_level", "execution_mode"),
    ):
        assert getattr(served, name) == getattr(chosen, name), name


@pytest.mark.slow
def test_every_part_is_measured_and_saved(folder: ModelFolder, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(bench.main)
    file = tmp_path / "options.json"
    options = ["--workloads", "sst-b1", "--seconds", "0", "--repeats", "2", "--json", str(file)]
    done = CliRunner().invoke(app, [str(folder.path), *options])
    assert done.exit_code == 0, done.output
    parts = json.loads(file.read_text())["parts"]
    assert set(parts) == set(bench.PARTS)
    assert [row["name"] for row in parts["settings"]] == list(bench.SETTINGS)
    assert {row["name"] for row in parts["creation"]} == {"exported", "saved"}
    for row in (row for rows in parts.values() for row in rows):
        assert row["n"] == len(row["ms"]) >= 2
        assert row["ratio"]["low"] <= row["ratio"]["value"] <= row["ratio"]["high"]
        assert row["name"] in done.output
    reference = parts["settings"][0]
    assert reference["name"] == "chosen"
    assert reference["ratio"]["value"] == 1


def test_an_unknown_part_is_refused(folder: ModelFolder) -> None:
    with pytest.raises(typer.BadParameter, match="no part 'x'; there are settings, creation"):
        bench.main(folder.path, parts="settings,x")
