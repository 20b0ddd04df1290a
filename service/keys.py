"""API keys as a file: names and SHA-256 hashes, never the keys themselves.

A key is 256 random bits, so that a plain hash of it cannot be guessed back and needs no salt. The
file is replaced as a whole, is readable by its owner alone unless someone allowed more, and a
running service sees a change within a second.

    key = add(Path("keys.json"), "shop")      # the only time that it is seen
    KeyRing(Path("keys.json")).find(key)      # Key(name="shop", ...)
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import KeysError

PREFIX = "crisp_"  # by which scanners for leaked secrets know it
CHECK_SECONDS = 1.0

logger = logging.getLogger("crisp.service")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Key(_Model):
    """One key: whose it is, what it may do, and by what it is known."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    admin: bool = False  # may load other models
    created: str = ""


class _File(_Model):
    keys: list[Key]


def read(file: Path) -> list[Key]:
    """The keys in `file`; raises KeysError where it is missing or damaged."""
    try:
        keys = _File.model_validate_json(file.read_bytes()).keys
    except OSError as error:
        raise KeysError(f"cannot read the keys in {file}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise KeysError(f"{file} is no file of keys: {where or 'it'}: {first['msg']}") from None
    names = [key.name for key in keys]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise KeysError(f"{file} names the key {twice} twice: remove one")
    return keys


def add(file: Path, name: str, *, admin: bool = False) -> str:
    """Adds a new key to `file`, which is made where it is missing, and returns the key.

    Raises KeysError where the name is taken or no good, or the file cannot be written.
    """
    key = PREFIX + secrets.token_urlsafe(32)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        new = Key(name=name, sha256=digest(key.encode()), admin=admin, created=created)
    except ValidationError:
        raise KeysError(
            f"{name[:80]!r} is no name for a key: expected 1 to 64 letters, digits, dots, dashes "
            "or underscores"
        ) from None
    with _locked(file):
        keys = read(file) if file.exists() else []
        if any(other.name == name for other in keys):
            raise KeysError(f"there is a key {name} in {file} already: revoke it first")
        _write(file, [*keys, new])
    return key


def revoke(file: Path, name: str) -> None:
    """Removes the key called `name` from `file`; raises KeysError where there is none."""
    with _locked(file):
        keys = read(file)
        kept = [key for key in keys if key.name != name]
        if len(kept) == len(keys):
            known = ", ".join(key.name for key in keys) or "none"
            raise KeysError(f"there is no key {name} in {file}; known: {known}")
        _write(file, kept)


def digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


class KeyRing:
    """The keys of a file, read again when it changes.

    A file that is damaged or gone while the service runs leaves the keys as they were, and the log
    says so: a slip of the pen must not lock everyone out. A process that starts meanwhile begins
    with those that others have left in `kept`, if that is given.
    """

    def __init__(self, file: Path, kept: Path | None = None) -> None:
        """Raises KeysError where there are none."""
        self._file = file
        self._kept = kept
        self._stamp: tuple[int, ...] | None = None  # of the file that was read
        self._complaint: object = None  # that the log has already
        self._checked = time.monotonic()
        try:
            self._read()
        except KeysError as error:
            if kept is None or not kept.exists():
                raise
            self._keys = read(kept)
            self._complain(error)

    def find(self, presented: bytes) -> Key | None:
        """The key that was presented, if it is one of ours.

        Takes the same time for every wrong key: hashes are compared, all of them, each whole.
        """
        self._look_for_changes()
        hashed = digest(presented)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, hashed):
                found = key
        return found

    def _look_for_changes(self) -> None:
        now = time.monotonic()
        if now - self._checked < CHECK_SECONDS:
            return
        self._checked = now
        if self._stamp is not None and self._stamp_now() == self._stamp:
            return
        try:
            self._read()
        except KeysError as error:  # and is tried again: who may read it leaves no mark on a file
            self._complain(error)
        else:
            logger.info("%d keys read anew from %s", len(self._keys), self._file)

    def _read(self) -> None:
        stamp = self._stamp_now()
        self._keys = read(self._file)
        self._stamp, self._complaint = stamp, None
        if self._kept is not None:
            with contextlib.suppress(KeysError):  # its disk may be full
                _write(self._kept, self._keys)

    def _complain(self, error: KeysError) -> None:
        complaint = str(error), self._stamp_now()
        if complaint != self._complaint:
            self._complaint = complaint
            logger.error("the keys stay as they were: %s", error)

    def _stamp_now(self) -> tuple[int, ...] | None:
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Two commands at once do not lose each other's key."""
    try:
        folder = os.open(file.parent, os.O_RDONLY)
    except OSError as error:
        raise KeysError(f"cannot write keys to {file}: {error.strerror}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(file: Path, keys: list[Key]) -> None:
    content = _File(keys=keys).model_dump_json(indent=2).encode() + b"\n"
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                _make_like(descriptor, file)
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise KeysError(f"cannot write keys to {file}: {error.strerror}") from None


def _make_like(descriptor: int, file: Path) -> None:
    """Gives it the owner and rights of `file`, where that exists.

    Root may change the keys of a service that runs as somebody else, which would go on with a
    revoked key if it could not read them any more.
    """
    with contextlib.suppress(FileNotFoundError):
        there = file.stat()
        if (there.st_uid, there.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, there.st_uid, there.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(there.st_mode))
