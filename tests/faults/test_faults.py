"""The scripts of this folder in short, as docs/reliability.md shows them at length."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SHORT = {
    "hostile.py": (),
    "fuzz_http.py": ("--requests", "500"),
    "fuzz_tokenise.py": ("--runs", "5000"),
    "connections.py": ("--idle", "500", "--slow", "100", "--seconds", "1", "--timeout", "5"),
    "killed.py": ("--kills", "1"),
    "damaged.py": (),
    "disk_full.py": (),
    "clock_jump.py": (),
    "reloads.py": ("--reloads", "8"),
    "soak.py": ("--minutes", "0.5", "--allowed", "30"),
    # What a busy machine does under load says nothing about the service: only that nothing breaks.
    "overload.py": ("--seconds", "2", "--times", "3", "--keep", "0", "--max-wait", "20"),
}
HELPERS = {"fault_server.py", "plateau.py", "test_plateau.py", Path(__file__).name}
WALL_CLOCK = {"time.time", "datetime.now", "datetime.utcnow"}
MAY_TELL_THE_TIME = {"logs.py", "keys.py"}  # when a line was written, when a key was made


@pytest.mark.slow
@pytest.mark.parametrize("script", SHORT)
def test_in_short(script: str, tmp_path: Path) -> None:
    if script == "fuzz_tokenise.py":
        pytest.importorskip("atheris")
    done = subprocess.run(
        [sys.executable, str(HERE / script), *SHORT[script]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=290,
    )
    if done.returncode == 3:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def test_every_script_is_tried_and_has_its_row() -> None:
    scripts = {path.name for path in HERE.glob("*.py")} - HELPERS
    assert scripts == set(SHORT)
    table = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert set(re.findall(r"tests/faults/(\w+\.py)", table)) >= scripts


def test_the_service_measures_time_by_clocks_that_do_not_jump() -> None:
    for file in (ROOT / "service").rglob("*.py"):
        if file.name in MAY_TELL_THE_TIME or "compare" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called = f"{node.value.id}.{node.attr}"
                assert called not in WALL_CLOCK, f"{file.name}, line {node.lineno}: {called}"
