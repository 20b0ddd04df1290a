"""The folder of a run from its beginning to its end: free, taken by a run at work, finished.

refuse_if_taken(out, settings)            # before any work
begin(out, settings, noted)
with alone(out), full_disk_is_said(out):
    ...
save_run(out, model, tokenizer, record)
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from training.config import RUN_FILE, RunRecord, TrainingSettings
from training.data import LabelledTexts
from training.errors import RunError
from training.files import held, write_atomically

SETTINGS_FILE = "settings.json"


def is_first_process() -> bool:
    """Of those that torchrun starts; the others write nothing."""
    return int(os.environ.get("RANK", "0")) == 0


def content_of(sets: Sequence[LabelledTexts]) -> dict[str, Any]:
    """What is noted of data sets when a run begins: to go on with it, they must be the same."""
    return {"content": [[texts.name, texts.sha256] for texts in sets]}


def begin(out: Path, settings: TrainingSettings, noted: dict[str, Any]) -> None:
    """Makes `out` the folder of an unfinished run; `noted` is what else decides its outcome."""
    out.mkdir(parents=True, exist_ok=True)
    values = json.dumps(settings.to_dict() | noted, indent=2, ensure_ascii=False)
    write_atomically(out / SETTINGS_FILE, values + "\n")


def refuse_if_taken(
    out: Path, settings: TrainingSettings, noted: dict[str, Any] | None = None
) -> None:
    """Raises RunError unless `out` is free, or holds an unfinished run of the same settings and
    with the same `noted`, as far as it noted them, and can be written."""
    if not is_first_process():
        return  # the first one may already have made it
    if (out / RUN_FILE).exists():
        raise RunError(f"{out} holds a finished run; give another --out, or remove it first")
    nearest = next(each for each in (out, *out.absolute().parents) if os.path.lexists(each))
    if not nearest.is_dir():
        raise RunError(f"{nearest} is no folder; give another --out")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RunError(f"nothing may be written in {nearest}; give another --out")
    file = out / SETTINGS_FILE
    if not file.is_file():
        if out.exists() and any(out.iterdir()):
            raise RunError(f"{out} is not empty and holds no run; give another --out")
        return
    found = json.loads(file.read_text(encoding="utf-8"))
    asked = json.loads(json.dumps(settings.to_dict()))
    asked |= {key: value for key, value in (noted or {}).items() if key in found}
    differing = [key for key in asked if found.get(key) != asked[key]]
    if differing == ["content"]:
        there, now = ({tuple(each) for each in values["content"]} for values in (found, asked))
        changed = sorted({name for name, _ in there ^ now})
        raise RunError(
            f"{out} holds an unfinished run, and {', '.join(changed)} has changed since it began; "
            "put back what it was, give another --out, or remove it"
        )
    if differing:
        first = differing[0]
        raise RunError(
            f"{out} holds an unfinished run with other settings ({first}: {found.get(first)!r} "
            f"there, {asked[first]!r} now); give another --out, or remove it"
        )


def alone(out: Path) -> AbstractContextManager[None]:
    """Holds the run in `out` for this process, or for those that torchrun started with it. Raises
    RunError where another one is at work on it: each would take the other's checkpoints for its
    own."""
    return held(out, RunError) if is_first_process() else nullcontext()


@contextmanager
def full_disk_is_said(out: Path) -> Iterator[None]:
    """Raises RunError where a library could not write its file into `out`: it raises no OSError."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if not re.search(r"No space left|File too large|[Qq]uota|file write failed", str(error)):
            raise
        raise RunError(
            f"there is no room to write in {out}; make some, and give the same command again: it "
            "goes on from the last checkpoint"
        ) from None


def save_run(
    out: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, record: RunRecord
) -> None:
    """Writes a run into the folder `out`; the record last, which says that it is whole."""
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(out)
    # safetensors lets nobody else read it, whatever the umask says.
    (out / "model.safetensors").chmod((out / "config.json").stat().st_mode)
    tokenizer.save_pretrained(out)
    # The name that transformers 4 knows too.
    file = out / "tokenizer_config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_atomically(file, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    record.save(out)
