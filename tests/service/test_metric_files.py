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
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from service.metric_files import ReservedDict
counted = ReservedDict(sys.argv[1])
written = 0
try:
    for written in range(3000):
        counted.write_value(f"name of a series {written}", 1.0, 0.0)
except OSError as error:
    print(written, len(list(counted.read_all_values())), error.strerror)
"""


def test_where_there_is_no_room_it_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ON_A_SMALL_DISK, str(tmp_path / "counter_1.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    written, kept, why = done.stdout.split(maxsplit=2)
    assert written == kept
    assert int(written) > 500
    assert why.strip() == "File too large"


def test_a_full_disk_at_the_start_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ReservedDict(str(tmp_path / "gone" / "counter_1.db"))
