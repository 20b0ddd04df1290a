"""What is asked all day is answered in time, whatever the models do: in a real `crisp serve`."""

from __future__ import annotations

import concurrent.futures
import time
from pathlib import Path

import httpx
from running_server import crisp, free_port, running

SOON = 2.0  # seconds: probes of Kubernetes give up after one, unless told otherwise

# Python runs a module of this name when it starts. In a process that serves, runs of models begin
# and do not end while the file HELD is there, and leave a file beside it.
SITECUSTOMIZE = """
import os, pathlib, sys, time

if sys.orig_argv[1:3] == ["-m", "service.worker"]:
    sys.path.insert(0, os.getcwd())
    from service.engine import Engine

    held, logits = pathlib.Path(os.environ["HELD"]), Engine.logits

    def waiting(self, sequences):
        if held.exists():
            held.with_name("begun").touch()
        while held.exists():
            time.sleep(0.01)
        return logits(self, sequences)

    Engine.logits = waiting
"""


def test_probes_answer_in_time_while_a_run_of_a_model_does_not_end(
    models_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    held, begun = tmp_path / "held", tmp_path / "begun"
    port = free_port()
    command = crisp("serve", "--models", str(models_dir), "--port", str(port), "--threads", "1")
    variables = {"PYTHONPATH": str(tmp_path), "HELD": str(held)}
    with (
        running(command, port, tmp_path / "log", **variables) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        predict = {"texts": ["film " * 100] * 50}  # several runs
        assert client.post("/predict", json=predict).is_success  # now it is known how fast it is
        held.touch()
        try:
            answer = pool.submit(client.post, "/predict", json=predict)
            while not begun.exists():
                assert not answer.done()
                time.sleep(0.01)
            for path in ("/readyz", "/livez", "/metrics", "/models"):
                assert httpx.get(server.url + path, timeout=SOON).is_success
            assert not answer.done()
        finally:
            held.unlink()
        assert answer.result().is_success
