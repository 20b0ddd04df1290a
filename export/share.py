"""Runs that go on at once share the processors: none gets more threads than its share.

ONNX Runtime gives every run all threads of its session. Two runs at once would then want twice as
many as there are processors, and each would wait for the other's at the end of every operator. The
operator library can be told how many threads an operator may use: all for a run that is alone, and
only its caller's own where there are as many runs as threads. Runs that begin and end change it for
those that go on, from their next operator.

    share = Share(library, threads=2)
    with share:
        session.run(...)
"""

from __future__ import annotations

import ctypes
import threading
from types import TracebackType

from export.op_library import OpLibrary

_ALL = 0


class Share:
    """To be entered around each run of sessions with `threads` threads, from any thread. Does
    nothing where the operator library is not in use, or is that of a GPU."""

    # The library is loaded once a process, and so are these.
    _lock = threading.Lock()
    _runs = 0

    def __init__(self, library: OpLibrary, threads: int) -> None:
        self._threads = threads
        on_cpu = library.path is not None and library.device == "cpu"
        # PyDLL: the call is over before another thread could take the interpreter.
        self._tell = ctypes.PyDLL(str(library.path)).CrispShare if on_cpu else None

    def __enter__(self) -> None:
        self._change(1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._change(-1)

    def _change(self, runs: int) -> None:
        if self._tell is None:
            return
        with Share._lock:
            Share._runs += runs
            shared = Share._runs > 1
            self._tell(max(1, self._threads // Share._runs) if shared else _ALL)
