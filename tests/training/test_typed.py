"""What a report shows of the command that made it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from training.typed import typed


def test_it_tells_of_no_folder_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here, elsewhere = str(tmp_path / "out" / "a.json"), str(tmp_path.parent / "models" / "dense")
    words = ["crisp", "bench", "--json", here, f"--model={elsewhere}", "--plot", "b/c.png"]
    monkeypatch.setattr(sys, "argv", words)
    assert typed() == "crisp bench --json out/a.json --model=dense --plot b/c.png"


def test_what_is_no_path_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["crisp", "compare", "--data", "hub:stanfordnlp/sst2", "--url=http://a/b", "a b", "--x"]
    monkeypatch.setattr(sys, "argv", words)
    assert typed() == "crisp compare --data hub:stanfordnlp/sst2 --url=http://a/b 'a b' --x"
