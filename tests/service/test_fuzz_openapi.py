"""schemathesis holds a real server against its own /docs.json: no 5xx, no answer that the document
does not describe, nothing taken that it forbids, nothing refused that it allows, no key ignored.

SCHEMATHESIS_EXAMPLES says how many requests it makes up for each endpoint, beside those that it
derives from the document.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from running_server import crisp, free_port, running

from service import keys

pytestmark = pytest.mark.slow

EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "50")


def test_the_service_is_what_its_document_says(models_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    file = tmp_path / "keys.json"
    key = keys.add(file, "fuzz", admin=True)
    port = free_port()
    options = ("--port", str(port), "--threads", "1", "--keys", str(file))
    command = crisp("serve", "--models", str(models_dir), *options)
    with running(command, port, tmp_path / "log") as server:
        done = subprocess.run(
            [
                *(str(Path(sys.executable).parent / "schemathesis"), "--no-color", "run"),
                *(f"{server.url}/docs.json", "--header", f"Authorization: Bearer {key}"),
                *("--checks", "all", "--phases", "examples,coverage,fuzzing", "--seed", "1"),
                *("--max-examples", EXAMPLES, "--continue-on-failure"),
                *("--generation-database", "none"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stdout[-5000:] + server.log[-5000:]
        tried = re.search(r"(\d+) generated", done.stdout)
        assert tried is not None
        assert int(tried[1]) > 100
        assert httpx.get(f"{server.url}/readyz").status_code == 200
    assert "Traceback" not in server.log
    assert key not in server.log
