"""The peers of `crisp bench`: other runtimes with the same weights, each an optional extra.

A peer whose package is missing is left out, and said to be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from transformers import DistilBertForSequenceClassification

from export.bench.measure import Contender
from export.errors import ExportError

PEERS = ("openvino", "torch")
_INSTALL = "`pip install -c constraints.txt -e '.[bench]'`"


def parse_peers(names: str) -> list[str]:
    """The peers of a list of names by comma; `none` is none. Raises ExportError for others."""
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if wanted in ([], ["none"]):
        return []
    unknown = [name for name in wanted if name not in PEERS]
    if unknown:
        raise ExportError(
            f"--peers does not know {', '.join(unknown)}; it takes a list of {', '.join(PEERS)}, "
            "or none"
        )
    return wanted


def peer_entries(
    names: Sequence[str],
    model: DistilBertForSequenceClassification,
    *,
    threads: int,
    calibration: Callable[[], tuple[Sequence[list[int]], str]],
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[list[tuple[Contender, dict[str, Any]]], list[str]]:
    """Contenders with their facts, and a line for each that is missing."""
    entries: list[tuple[Contender, dict[str, Any]]] = []
    missing: list[str] = []
    for name in names:
        if name == "torch":
            from export.bench.torch_peer import torch_entry

            progress("opening torch")
            entries.append(torch_entry(model, threads=threads))
        elif find_spec("openvino") is None:
            missing.append(f"Without OpenVINO, which is not installed: {_INSTALL}")
        else:
            from export.bench.openvino_peer import openvino_entries

            entries += openvino_entries(
                model, threads=threads, calibration=calibration, progress=progress
            )
            if find_spec("nncf") is None:
                missing.append(f"Without OpenVINO int8: nncf is not installed: {_INSTALL}")
    return entries, missing
