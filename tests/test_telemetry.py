"""Nothing tells anyone about the machine: ONNX Runtime would, from its first import on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import crisp

CODE = """
import {module}
import onnxruntime
assert onnxruntime.get_available_providers()
"""


@pytest.mark.parametrize("module", ["crisp", "export.op_library", "service.engine"])
def test_onnx_runtime_keeps_what_it_knows(module: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run(
        [sys.executable, "-c", CODE.format(module=module)],
        env=environment,
        cwd=Path(crisp.__file__).parent,
        check=True,
        timeout=120,
    )
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
