"""What every report of measurements names: the machine and the versions.

Imports no torch; `crisp bench` and `crisp compare` use it.
"""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    *("onnxruntime", "onnx", "numpy", "scipy", "tokenizers", "torch", "transformers"),
    *("openvino", "nncf"),
)
_INSTRUCTION_SETS = re.compile(r"^(avx|fma$|amx|asimd|sve|i8mm|bf16)")


def environment() -> dict[str, Any]:
    """The machine and the versions of installed packages that figures hold for."""
    affinity = getattr(os, "sched_getaffinity", None)
    processor, flags = _processor()
    return {
        "platform": platform.platform(),
        "processor": processor,
        "instruction_sets": sorted(flag for flag in flags if _INSTRUCTION_SETS.match(flag)),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        # The same module comes in two packages.
        return _version("onnxruntime-gpu") if package == "onnxruntime" else None


def _processor() -> tuple[str, list[str]]:
    """Its name, and what it can do, where the system says."""
    file = Path("/proc/cpuinfo")
    facts = file.read_text() if file.is_file() else ""
    name = re.search(r"^model name\s*: (.*)", facts, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)", facts, re.MULTILINE)
    return name[1] if name else platform.processor(), flags[1].split() if flags else []
