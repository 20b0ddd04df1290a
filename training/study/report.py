"""Draws every table and picture of the studies anew from the JSON of their runs.

    <out>/semantic-focus.md, crisp-attention.md, flops.md and their pictures
    <out>/runs/<study>/<name>.json     the results themselves, where they are collected

Nothing is trained, and the same results make the same files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.files import write_atomically
from training.study import (
    crisp_attention,
    flops_report,
    focus_pictures,
    focus_report,
    focus_results,
    semantic_focus,
    tuning_pictures,
    tuning_report,
)
from training.study.errors import StudyError
from training.study.runs import failures, read_results

RUNS = "runs"
_NOTE = "<!-- Written by `crisp study report` from the runs' JSON: change it there. -->\n"


def write_report(runs: Path, out: Path, *, collect: bool = False) -> list[Path]:
    """Writes the reports of what `runs` holds into `out`; with `collect`, the JSON as well, so that
    `out/runs` can take the place of `runs` from then on. Returns the reports.

    Raises StudyError where there is no finished run, or a collected run would be lost to another.
    """
    focus = read_results(runs, semantic_focus.STUDY)
    tuning = read_results(runs, crisp_attention.STUDY)
    if not focus and not tuning:
        raise StudyError(f"{runs} holds no finished run; see `crisp study --help`")
    out.mkdir(parents=True, exist_ok=True)
    written = []
    if focus:
        text = _focus(focus, out) + _failed(runs, semantic_focus.STUDY) + _machine(focus)
        written.append(_write(out / "semantic-focus.md", text))
    if tuning:
        text = _tuning(tuning, out) + _failed(runs, crisp_attention.STUDY) + _machine(tuning)
        written.append(_write(out / "crisp-attention.md", text))
    flops_report.draw(out / "flops.png")
    text = f"# Operations of a layer\n\n{flops_report.report()}\n![savings](flops.png)\n"
    written.append(_write(out / "flops.md", text))
    if collect:
        for result in (*focus, *tuning):
            keep(result, out / RUNS)
    return written


def keep(result: dict[str, Any], runs: Path) -> Path:
    """Writes a result as one JSON file. Raises StudyError where there is another run of that name,
    which would be lost; one of fewer epochs is not another."""
    file = runs / str(result["study"]) / f"{result['name']}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file():
        there = json.loads(file.read_text(encoding="utf-8"))["settings"]
        now = result["settings"]
        other = sorted(k for k in there.keys() | now.keys() if there.get(k) != now.get(k))
        if other not in ([], ["epochs"]) or there["epochs"] > now["epochs"]:
            raise StudyError(
                f"{file} holds another run of that name, which differs in {', '.join(other)}; "
                "collect into another --out, or remove it"
            )
    write_atomically(file, json.dumps(result, separators=(",", ":")) + "\n")
    return file


def _focus(results: Sequence[dict[str, Any]], out: Path) -> str:
    parts = ["# Semantic Focus: the runs\n"]
    for title, found in focus_results.settings_of(results).items():
        task = next(iter(found.values()))["settings"]["task"]
        picture = f"{_file_name(title)}.png"
        focus_pictures.draw(out / picture, title, found)
        parts += [f"## {title}\n", f"![curves]({picture})\n", focus_report.speed_table(found)]
        parts += [focus_report.progress_table(found)]
        parts += ["### Stability of the softmax\n", focus_report.stability_table(task, found)]
        parts += [focus_report.condition_table(found)]
        parts += ["### Steepness of the loss\n", focus_report.slope_table(found)]
    parts += ["## The first condition, from what the authors' code records\n"]
    parts += [focus_report.authors_conditions()]
    return "\n".join(parts)


def _tuning(results: Sequence[dict[str, Any]], out: Path) -> str:
    parts = ["# Crisp Attention: the runs\n"]
    for title, group in tuning_report.settings_of(results).items():
        parts.append(f"## {title}\n")
        for dev in next(iter(group.values()))[0]["dev"]:
            picture = f"{_file_name(f'{title} {dev}')}.png"
            tuning_pictures.draw(out / picture, title, group, dev)
            n = len(next(iter(group.values()))[0]["dev"][dev]["right"])
            parts += [f"### {dev} (n = {n})\n", f"![curves]({picture})\n"]
            parts += [tuning_report.accuracy_table(group, dev)]
            parts += [tuning_report.mcnemar_table(group, dev)]
            parts += [tuning_report.gap_table(group, dev)]
            parts += ["To show a difference of 1 point with 80 % power:\n"]
            parts += [tuning_report.power_table(group, dev)]
            best = tuning_report.best_dropout(group, dev)
            parts += [] if best is None else [f"{best}\n"]
    return "\n".join(parts)


def _failed(runs: Path, study: str) -> str:
    found = failures(runs, study)
    if not found:
        return ""
    lines = [f"- {name}: {reason}" for name, reason in found.items()]
    return "\n".join(["\n## Runs that failed\n", *lines, ""])


def _machine(results: Sequence[dict[str, Any]]) -> str:
    """Where and for how long the runs ran."""
    seconds = sum(result["seconds"] for result in results)
    machines = {
        f"{e['processor']}, {e['cores']} cores, torch {e['versions']['torch']}"
        for e in (result["environment"] for result in results)
    }
    return (
        f"\n## Where\n\n{len(results)} runs, {seconds / 3600:.1f} hours in all (of a run that was "
        f"resumed, its last part), on {'; '.join(sorted(machines))}.\n"
    )


def _write(file: Path, text: str) -> Path:
    write_atomically(file, f"{_NOTE}\n{text.strip()}\n")
    return file


def _file_name(title: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", title.lower()).strip("-")
