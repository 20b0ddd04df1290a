"""The files in which prometheus_client keeps what each process counts, with room on the disk.

It makes them as files with holes and maps them into memory. Where the disk is full by the time that
a hole is written to, the system has no other word for it than SIGBUS, which ends the process.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

from prometheus_client import mmap_dict, values

logger = logging.getLogger("crisp.service")

_ENTRY = 64  # bytes of one at most, beside its key


class ReservedDict(mmap_dict.MmapedDict):
    """As prometheus_client's. What there is no room for is kept in this process: nobody sees it,
    but neither does a request fail for it."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        self._unseen: dict[str, tuple[float, float]] = {}
        self._positions: dict[str, int] = {}
        self._f: Any = None
        try:
            if not read_mode:
                _reserve(filename)
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]
        except OSError as error:
            _complain(error, filename)

    def read_value(self, key: str) -> tuple[float, float]:
        if not self._has(key):
            return self._unseen.get(key, (0.0, 0.0))
        value: tuple[float, float] = super().read_value(key)  # type: ignore[no-untyped-call]
        return value

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        if self._has(key):
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
        else:
            self._unseen[key] = value, timestamp

    def _has(self, key: str) -> bool:
        """Whether the file has a place for `key`, or can be given one."""
        if key in self._positions:
            return True
        if self._f is None or key in self._unseen:
            return False
        size = self._capacity
        while self._used + len(key.encode()) + _ENTRY > size:
            size *= 2
        if size > self._capacity:
            try:
                os.posix_fallocate(self._f.fileno(), 0, size)
            except OSError as error:
                self._unseen[key] = 0.0, 0.0
                _complain(error, self._f.name)
                return False
        return True


def _reserve(filename: str) -> None:
    file = Path(filename)
    with file.open("ab") as opened:
        there = os.fstat(opened.fileno()).st_size
        try:
            os.posix_fallocate(opened.fileno(), 0, max(there, mmap_dict._INITIAL_MMAP_SIZE))
        except OSError:
            if not there:  # else whoever adds the files up finds an empty one
                file.unlink()
            raise


def _complain(error: OSError, filename: str) -> None:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise error
    logger.error("no room for what is counted, which /metrics will lack: %s: %s", filename, error)


def install() -> None:
    """Lets prometheus_client in this process use it; it names the class in one place only."""
    vars(values)["MmapedDict"] = ReservedDict
