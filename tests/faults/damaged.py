"""Starts the service with model folders that are damaged in every way, and without its operators.

    python tests/faults/damaged.py

Prints what it said of each. Fails where it starts all the same, says it in more than one line, or
does not name the file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from fault_server import ROOT, crisp, free_port, good_answer, post, serve

MODELS = ROOT / "service" / "models"


def truncated(folder: Path) -> None:
    os.truncate(folder / "model.onnx", (folder / "model.onnx").stat().st_size // 2)


def empty(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"")


def one_bit(folder: Path) -> None:
    with (folder / "model.onnx").open("r+b") as stream:
        stream.seek(1_000_000)
        byte = stream.read(1)[0]
        stream.seek(1_000_000)
        stream.write(bytes([byte ^ 1]))


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def other_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def cut_manifest(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 100)


def _changed(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    facts = json.loads((folder / "manifest.json").read_text())
    change(facts)
    (folder / "manifest.json").write_text(json.dumps(facts))


def wrong_hash(folder: Path) -> None:
    def change(facts: dict[str, object]) -> None:
        facts["files"]["model.onnx"]["sha256"] = "0" * 64  # type: ignore[index]

    _changed(folder, change)


def newer_schema(folder: Path) -> None:
    _changed(folder, lambda facts: facts.update(schema_version=99))


def path_outside(folder: Path) -> None:
    def change(facts: dict[str, object]) -> None:
        facts["files"]["../dense/model.onnx"] = facts["files"]["model.onnx"]  # type: ignore[index]

    _changed(folder, change)


DAMAGES = (truncated, empty, one_bit, no_tokenizer, other_tokenizer, no_manifest, cut_manifest,
           wrong_hash, newer_schema, path_outside)  # fmt: skip


def start(models: Path) -> subprocess.CompletedProcess[str]:
    command = crisp("serve", "--models", str(models), "--port", str(free_port()))
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def main() -> int:
    argparse.ArgumentParser(description=__doc__.split("\n", 1)[0]).parse_args()
    wrong = []
    for damage in DAMAGES:
        with tempfile.TemporaryDirectory() as folder:
            models = Path(folder) / "models"
            shutil.copytree(MODELS, models, ignore=shutil.ignore_patterns("*.md"))
            damage(models / "sparse")
            done = start(models)
        lines = done.stderr.strip().splitlines()
        print(f"{damage.__name__}: exit code {done.returncode}, {done.stderr.strip()}")
        if done.returncode != 2 or len(lines) != 1 or "sparse" not in done.stderr:
            wrong.append(f"{damage.__name__}: {done.stderr}")
    with serve() as served:
        expected = [prediction["label"] for prediction in good_answer(served)]
    with serve(CRISP_OP_LIBRARY="/nowhere/libcrisp_ops.so") as served:
        found = [prediction["label"] for prediction in good_answer(served)]
        body = {"texts": ["film " * 300] * 4}
        many = post(served, "/predict", body)["predictions"]
    said = [line for line in served.log.splitlines() if "operators are not in use" in line]
    print(f"no operator library: the same answers on the fallback, and the log says: {said[:1]}")
    if found != expected or len(many) != 4 or not said:
        wrong.append(f"without the operators: {served.log}")
    print(*wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
