"""Runs that go on at once, and how many threads the operators of each may use."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.manifest import ModelFolder
from export.op_library import OpLibrary, find_op_library, make_session
from export.packing import pack
from export.share import Share


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """What the library is told, in place of the library."""
    found: list[int] = []
    monkeypatch.setattr(Share, "_runs", 0)
    yield found
    assert Share._runs == 0


def share_of(threads: int, told: list[int]) -> Share:
    share = Share(OpLibrary(None, "none"), threads)
    share._tell = told.append  # type: ignore[assignment]
    return share


def test_a_run_alone_has_every_thread(told: list[int]) -> None:
    with share_of(4, told):
        assert told == [0]
    assert told == [0, 0]


@given(threads=st.integers(1, 64), runs=st.integers(2, 100))
def test_shares_do_not_exceed_the_threads_unless_there_are_more_runs(
    threads: int, runs: int
) -> None:
    told: list[int] = []
    shares = [share_of(threads, told) for _ in range(runs)]
    for share in shares:
        share.__enter__()
    try:
        assert told[-1] >= 1
        assert told[-1] * runs <= max(threads, runs)
    finally:
        for share in shares:
            share.__exit__(None, None, None)
    assert told[-1] == 0


def test_a_run_that_fails_has_ended_too(told: list[int]) -> None:
    share = share_of(2, told)
    with share, pytest.raises(ValueError, match="bad"), share:
        raise ValueError("bad")
    assert told == [0, 1, 0, 0]


def test_without_the_library_nothing_is_told() -> None:
    with Share(OpLibrary(None, "none"), 2):
        pass


def test_results_do_not_depend_on_the_share(model_folder: ModelFolder) -> None:
    library = find_op_library()
    if not library.available:
        pytest.skip(library.reason)
    session = make_session(model_folder.model, threads=2, library=library)
    share = Share(library, 2)
    packed = pack([[2 + i % 20 for i in range(length)] for length in range(1, 33)])

    def run(_: int) -> list[list[float]]:
        with share:
            logits: list[list[float]] = session.run(["logits"], packed)[0].tolist()
        return logits

    alone = run(0)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(40))) == [alone] * 40


def test_the_library_leaves_threads_alone_that_are_not_in_the_share(
    model_folder: ModelFolder,
) -> None:
    """Which threads ran is seen in their time on a processor: zero is zero, whatever else runs."""
    library = find_op_library()
    if library.path is None:
        pytest.skip(library.reason)
    tasks = Path("/proc/self/task")
    if not Path("/proc/self/schedstat").is_file():
        pytest.skip("this system does not say which threads ran")
    before = {task.name for task in tasks.iterdir()}
    session = make_session(model_folder.model, threads=2, library=library)
    (own,) = {task.name for task in tasks.iterdir()} - before  # beside the one that calls
    packed = pack([[2 + i % 20 for i in range(30)] for _ in range(60)])
    tell = ctypes.PyDLL(str(library.path)).CrispShare

    def time() -> str:
        """What the session's thread has run so far; it sleeps, and nobody has woken it."""
        while (tasks / own / "stat").read_text().rpartition(")")[2].split()[0] != "S":
            pass
        return (tasks / own / "schedstat").read_text()

    def runs_that_use_it() -> int:
        found = 0
        for _ in range(20):
            start = time()
            session.run(["logits"], packed)
            found += time() != start
        return found

    try:
        tell(0)
        assert runs_that_use_it() > 0
        tell(1)
        assert runs_that_use_it() == 0
    finally:
        tell(0)
