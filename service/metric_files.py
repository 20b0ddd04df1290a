"""The files in which prometheus_client keeps what each process counts, with room on the disk.

It makes them as files with holes and maps them into memory. Where the disk is full by the time that
a hole is written to, the system has no other word for it than SIGBUS, which ends the process.
"""

from __future__ import annotations

import os
from typing import Any

from prometheus_client import mmap_dict, values


class ReservedDict(mmap_dict.MmapedDict):
    """As prometheus_client's; raises OSError where there is no room, and nothing has changed."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if not read_mode:
            descriptor = os.open(filename, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                size = max(os.fstat(descriptor).st_size, mmap_dict._INITIAL_MMAP_SIZE)
                os.posix_fallocate(descriptor, 0, size)
            finally:
                os.close(descriptor)
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        most = len(key.encode()) + 64  # of its entry, which is padded and has two numbers
        size: Any = self._capacity
        while self._used + most > size:
            size *= 2
        if size > self._capacity:
            os.posix_fallocate(self._f.fileno(), 0, size)
        super()._init_value(key)  # type: ignore[no-untyped-call]


def install() -> None:
    """Lets prometheus_client in this process use it; it names the class in one place only."""
    vars(values)["MmapedDict"] = ReservedDict
