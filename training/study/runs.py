"""The runs of a study as folders: what is asked, how far it is, and what came out.

<root>/<study>/<name>/settings.json    the run as it was asked for
                      progress         the share that is done, while it runs
                      log.txt          what it printed
                      failure.txt      why it failed, if it did
                      result.json      what came out: a run that has it is finished
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.files import held, write_atomically
from training.study.errors import StudyError

SETTINGS_FILE = "settings.json"
RESULT_FILE = "result.json"
PROGRESS_FILE = "progress"
LOG_FILE = "log.txt"
FAILURE_FILE = "failure.txt"


@dataclass(frozen=True)
class Run:
    """A run: the study it belongs to, a name that is unique there, its settings as JSON values, and
    how much work it is, in any unit that all runs of the study share.

    `extends` names a setting that may grow, if there is one: the run then goes on from where it
    ended. `follows` says what else decides a setting than the option of its name.
    """

    study: str
    name: str
    settings: dict[str, Any]
    work: float
    extends: str | None = None
    follows: Mapping[str, str] = field(default_factory=dict)

    def folder(self, root: Path) -> Path:
        return root / self.study / self.name

    def prepare(self, root: Path) -> bool:
        """Writes what is asked into the folder; False where that is already finished.

        Raises StudyError where the folder holds a run of other settings.
        """
        folder = self.folder(root)
        file = folder / SETTINGS_FILE
        asked = json.loads(json.dumps(self.settings))
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))["settings"]
            differing = sorted(
                key
                for key in asked.keys() | found.keys()
                if key != self.extends and asked.get(key) != found.get(key)
            )
            if differing:
                key = differing[0]
                why = f", which follows from {self.follows[key]}" if key in self.follows else ""
                raise StudyError(
                    f"{folder} holds a run with another {key} ({found.get(key)!r} there, "
                    f"{asked.get(key)!r} now){why}; give another --out, or remove it"
                )
            if (folder / RESULT_FILE).is_file() and self._covers(folder, asked):
                return False
        folder.mkdir(parents=True, exist_ok=True)
        values = {"study": self.study, "name": self.name, "settings": asked}
        write_atomically(file, json.dumps(values, indent=1) + "\n")
        return True

    def _covers(self, folder: Path, asked: dict[str, Any]) -> bool:
        if self.extends is None:
            return True
        done = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))["settings"]
        return bool(done[self.extends] >= asked[self.extends])


class Progress:
    """Tells whoever watches the folder how far its run is, about once a second."""

    def __init__(self, folder: Path) -> None:
        self.file, self.share, self.told = folder / PROGRESS_FILE, 0.0, 0.0

    def reach(self, share: float) -> None:
        self.share = share
        if time.monotonic() - self.told > 1:
            self.told = time.monotonic()
            write_atomically(self.file, f"{share:.4f}")


def progress_of(folder: Path) -> float:
    """The share of a run that is done, 0 where nothing says so."""
    try:
        return float((folder / PROGRESS_FILE).read_text())
    except (OSError, ValueError):
        return 0.0


def write_result(folder: Path, settings: dict[str, Any], found: dict[str, Any]) -> None:
    """Finishes the run in `folder`."""
    head = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    values = {"study": head["study"], "name": head["name"], "settings": settings} | found
    write_atomically(folder / RESULT_FILE, json.dumps(values, separators=(",", ":")) + "\n")
    write_atomically(folder / PROGRESS_FILE, "1")


def read_results(root: Path, study: str) -> list[dict[str, Any]]:
    """The results of all finished runs of a study, by name: of run folders, or of a folder of
    JSON files that `crisp study report --collect` made."""
    files = sorted((root / study).glob(f"*/{RESULT_FILE}")) + sorted((root / study).glob("*.json"))
    found = []
    for file in files:
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            if values["study"] != study:
                raise ValueError(f"it belongs to {values['study']}")
        except (ValueError, KeyError, TypeError) as error:
            raise StudyError(f"{file} is not the result of a run of {study}: {error!r}") from None
        found.append(values)
    return found


def failures(root: Path, study: str) -> dict[str, str]:
    """Why each failed run of a study failed, by name."""
    return {
        file.parent.name: file.read_text(encoding="utf-8").strip()
        for file in sorted((root / study).glob(f"*/{FAILURE_FILE}"))
    }


def alone(folder: Path) -> AbstractContextManager[None]:
    """Holds the run in `folder` for this process. Raises StudyError where another one holds it."""
    return held(folder, StudyError)
