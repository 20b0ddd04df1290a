"""A full disk ends no process: what counts is on the disk before it is written to."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import mmap_dict

from service.metric_files import ReservedDict


def has_holes(file: Path) -> bool:
    facts = file.stat()
    return facts.st_blocks * 512 < facts.st_size


def test_the_files_have_no_holes_however_they_grow(tmp_path: Path) -> None:
    file = tmp_path / "counter_1.db"
    counted = ReservedDict(str(file))
    assert not has_holes(file)
    before = file.stat().st_size
    for i in range(3000):
        counted.write_value(f"name of a series {i}", float(i), 0.0)
        if i % 100 == 0:
            assert not has_holes(file)
    assert file.stat().st_size > before
    counted.close()
    again = ReservedDict(str(file))
    assert again.read_value("name of a series 2999")[0] == 2999
    again.close()


@given(st.lists(st.text(max_size=300), unique=True, max_size=30))
def test_it_holds_what_the_librarys_own_holds(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for kind in (ReservedDict, mmap_dict.MmapedDict):
            counted = kind(f"{folder}/{kind.__name__}")
            for i, name in enumerate(names):
                counted.write_value(name, float(i), 1.0)
            found.append(list(counted.read_all_values()))
            counted.close()
        assert found[0] == found[1]


_ON_A_SMALL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
from service.metric_files import ReservedDict
counted = ReservedDict(sys.argv[1])
for i in range(3000):
    name = f"name of a series {i}"
    assert counted.read_value(name)[0] == 0
    for times in range(2):
        counted.write_value(name, i + times, 0.0)
assert all(counted.read_value(f"name of a series {i}")[0] == i + 1 for i in range(3000))
"""


@pytest.mark.parametrize(("room", "least"), [(0, 0), (70_000, 500), (10_000_000, 3000)])
def test_where_there_is_no_room_nothing_fails_and_the_log_says_so(
    tmp_path: Path, room: int, least: int
) -> None:
    file = tmp_path / "counter_1.db"
    command = [sys.executable, "-c", _ON_A_SMALL_DISK, str(file), str(room)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert bool(done.stderr) == (least < 3000)
    assert all("no room for what is counted" in line for line in done.stderr.splitlines())
    assert file.exists() == (room > 0)
    if room:
        seen = list(mmap_dict.MmapedDict.read_all_values_from_file(str(file)))
        assert least <= len(seen) <= 3000
        assert [value for _, value, _, _ in seen] == [i + 1 for i in range(len(seen))]


def test_any_other_error_is_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ReservedDict(str(tmp_path / "gone" / "counter_1.db"))
