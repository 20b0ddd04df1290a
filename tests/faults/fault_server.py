"""A real `crisp serve` for the scripts of this folder, which import this file by its name."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "service"))
from running_server import ROOT, Server, crisp, free_port, running

TEXTS = ["A warm, funny film that never talks down to its audience.", "Two hours that I want back."]

__all__ = ["ROOT", "Served", "good_answer", "memory", "post", "serve", "workers"]


@dataclass(frozen=True)
class Served:
    """A running server; its log so far can be read after its end too."""

    server: Server
    port: int
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def log(self) -> str:
        return self.server.log


@contextlib.contextmanager
def serve(*options: str, **environment: str) -> Iterator[Served]:
    """`crisp serve` with the bundled models on a free port, without access log; ends with the
    block. What it says is kept until then, and printed where the block fails."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        log = Path(folder) / "log"
        command = crisp("serve", "--port", str(port), "--no-access-log", *options)
        with running(command, port, log, **environment) as server:
            served = Served(server, port)
            try:
                yield served
            except BaseException:
                print(server.log, file=sys.stderr)
                raise
        kept = log.read_text(encoding="utf-8", errors="replace")
        object.__setattr__(server, "log_file", _Kept(kept))


class _Kept:
    """The text of a file that is gone."""

    def __init__(self, text: str) -> None:
        self.text = text

    def read_text(self, **_: Any) -> str:
        return self.text


def post(served: Served, path: str, body: object, timeout: float = 60) -> Any:
    """The JSON answer to a request; raises urllib.error.HTTPError for errors."""
    request = urllib.request.Request(
        served.url + path,
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)


def good_answer(served: Served) -> list[Any]:
    """What the service says of TEXTS, time aside."""
    return list(post(served, "/predict", {"texts": TEXTS})["predictions"])


def workers(served: Served) -> list[psutil.Process]:
    """The processes that serve, oldest first."""
    children = psutil.Process(served.server.process.pid).children(recursive=True)
    return sorted(children, key=lambda process: process.create_time())


def memory(served: Served) -> int:
    """Bytes of memory that the processes have for themselves (USS)."""
    main = psutil.Process(served.server.process.pid)
    return sum(p.memory_full_info().uss for p in (main, *main.children(recursive=True)))
