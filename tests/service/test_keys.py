"""API keys as a file: only hashes in it, never half-written, and seen by a running service."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import crisp
from service import keys
from service.errors import KeysError
from service.keys import KeyRing


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring looks for changes at every request."""
    monkeypatch.setattr(keys, "CHECK_SECONDS", 0)


def test_a_key_is_known_by_its_name_and_nothing_else_is(file: Path) -> None:
    key = keys.add(file, "shop")
    ring = KeyRing(file)
    found = ring.find(key.encode())
    assert found is not None
    assert (found.name, found.admin) == ("shop", False)
    for other in (b"", key.encode()[:-1], key.encode() + b"x", found.sha256.encode()):
        assert ring.find(other) is None


@given(st.binary(max_size=200))
def test_no_guess_is_a_key(tmp_path_factory: pytest.TempPathFactory, guess: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "guessed.json"
    if not file.exists():
        keys.add(file, "shop")
    assert KeyRing(file).find(guess) is None


def test_the_file_holds_no_key_and_is_its_owners_alone(file: Path) -> None:
    key = keys.add(file, "shop")
    keys.add(file, "ops", admin=True)
    assert key not in file.read_text()
    assert key.removeprefix(keys.PREFIX) not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [(k.name, k.admin) for k in keys.read(file)] == [("shop", False), ("ops", True)]
    assert [path.name for path in file.parent.iterdir()] == ["keys.json"]  # nothing temporary


def test_a_change_leaves_owner_and_rights_as_they_were(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root revokes a key of a service that runs as somebody else, which has to see it."""
    keys.add(file, "shop")
    keys.add(file, "ops")
    file.chmod(0o640)
    before = file.stat()
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(keys.os, "geteuid", lambda: before.st_uid + 1)
    monkeypatch.setattr(keys.os, "fchown", lambda _, owner, group: given.append((owner, group)))
    keys.revoke(file, "shop")
    assert given == [(before.st_uid, before.st_gid)]
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [key.name for key in keys.read(file)] == ["ops"]


def test_a_change_that_would_take_the_file_from_its_owner_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_root(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    keys.add(file, "shop")
    owner = file.stat().st_uid
    monkeypatch.setattr(keys.os, "geteuid", lambda: owner + 1)
    monkeypatch.setattr(keys.os, "fchown", not_root)
    with pytest.raises(KeysError, match=r"cannot write keys to .*: Operation not permitted"):
        keys.revoke(file, "shop")
    assert [key.name for key in keys.read(file)] == ["shop"]
    assert [path.name for path in file.parent.iterdir()] == ["keys.json"]  # nothing temporary


def test_two_keys_are_never_the_same(file: Path) -> None:
    assert len({keys.add(file, f"k{number}") for number in range(20)}) == 20


def test_keys_added_at_once_are_all_there(file: Path) -> None:
    threads = [threading.Thread(target=keys.add, args=(file, f"k{n}")) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in keys.read(file)} == {f"k{n}" for n in range(16)}


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "é", "x" * 65])
def test_a_bad_name_is_refused(file: Path, name: str) -> None:
    with pytest.raises(KeysError, match="is no name for a key: expected 1 to 64 letters"):
        keys.add(file, name)
    assert not file.exists()


def test_a_name_that_is_taken_is_refused(file: Path) -> None:
    keys.add(file, "shop")
    with pytest.raises(KeysError, match="there is a key shop in"):
        keys.add(file, "shop")
    with pytest.raises(KeysError, match=r"there is no key bank in .*; known: shop"):
        keys.revoke(file, "bank")


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"keys": [{"name": "a"}]}', '{"keys": [{"name": "a", "sha256": "00"}]}', "\xff"],
)
def test_a_damaged_file_is_refused(file: Path, content: str) -> None:
    file.write_text(content, encoding="latin-1")
    with pytest.raises(KeysError, match="is no file of keys"):
        KeyRing(file)


def test_a_name_that_stands_twice_is_refused(file: Path) -> None:
    keys.add(file, "shop")
    facts = json.loads(file.read_text())
    file.write_text(json.dumps({"keys": facts["keys"] * 2}))
    with pytest.raises(KeysError, match="names the key shop twice"):
        keys.read(file)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match=r"cannot write keys to .*: No such file"):
        keys.add(tmp_path / "none" / "keys.json", "shop")
    with pytest.raises(KeysError, match=r"cannot read the keys in .*: No such file"):
        KeyRing(tmp_path / "keys.json")


@pytest.mark.usefixtures("at_once")
def test_a_running_service_sees_new_and_revoked_keys(file: Path) -> None:
    first = keys.add(file, "shop")
    ring = KeyRing(file)
    second = keys.add(file, "bank")
    assert ring.find(second.encode()) is not None
    keys.revoke(file, "shop")
    assert ring.find(first.encode()) is None
    assert ring.find(second.encode()) is not None


@pytest.mark.usefixtures("at_once")
def test_a_file_that_is_damaged_meanwhile_locks_nobody_out(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = keys.add(file, "shop")
    ring = KeyRing(file)
    file.write_text("{")
    assert ring.find(key.encode()) is not None
    assert "the keys stay as they were" in caplog.text
    file.unlink()
    assert ring.find(key.encode()) is not None


@pytest.mark.usefixtures("at_once")
def test_what_could_not_be_read_is_tried_again_and_complained_of_once(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = keys.add(file, "shop")
    ring = KeyRing(file)
    keys.revoke(file, "shop")
    with monkeypatch.context() as patched:  # another may read it, or there are too many open files
        message = f"cannot read the keys in {file}: Permission denied"
        patched.setattr(keys, "read", Mock(side_effect=KeysError(message)))
        for _ in range(3):
            assert ring.find(shop.encode()) is not None
    assert ring.find(shop.encode()) is None
    assert caplog.text.count("Permission denied") == 1


@pytest.mark.usefixtures("at_once")
def test_a_process_that_starts_while_the_file_is_damaged_has_the_keys_that_others_read_last(
    file: Path, tmp_path: Path
) -> None:
    shop, kept = keys.add(file, "shop"), tmp_path / "kept" / "keys.json"
    kept.parent.mkdir()
    ring = KeyRing(file, kept)
    bank = keys.add(file, "bank")
    keys.revoke(file, "shop")
    assert ring.find(bank.encode()) is not None
    file.write_text("{")
    late = KeyRing(file, kept)
    assert late.find(bank.encode()) is not None
    assert late.find(shop.encode()) is None  # it was revoked before
    file.unlink()
    new = keys.add(file, "new")
    assert late.find(new.encode()) is not None
    assert late.find(bank.encode()) is None
    file.write_text("{")
    with pytest.raises(KeysError, match="is no file of keys"):
        KeyRing(file, tmp_path / "nothing")


def invoke(*arguments: str) -> str:
    done = CliRunner().invoke(crisp.app, ["keys", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_prints_the_key_once_and_lists_names(file: Path) -> None:
    key = invoke("add", "shop", "--file", str(file)).strip()
    assert KeyRing(file).find(key.encode()) is not None
    invoke("add", "ops", "--admin", "--file", str(file))
    shown = invoke("list", "--file", str(file))
    assert [line.split()[0] for line in shown.splitlines()] == ["shop", "ops"]
    assert shown.splitlines()[1].endswith("admin")
    facts = json.loads(invoke("list", "--json", "--file", str(file)))
    assert [set(fact) for fact in facts] == [{"name", "admin", "created"}] * 2
    invoke("revoke", "shop", "--file", str(file))
    assert KeyRing(file).find(key.encode()) is None
