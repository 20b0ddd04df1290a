"""Which names the service answers to: a page of another site must not reach it by its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import RequestError, SettingsError
from service.host_names import HostNames
from service.settings import Settings, resolve

LOOPBACK = ("127.0.0.1", "127.0.1.1", "::1", "::ffff:127.0.0.1")


def is_answered(settings: Settings, host: str | None, server: str = "127.0.0.1") -> bool:
    headers = [] if host is None else [(b"host", host.encode("latin-1"))]
    refused = None
    try:
        HostNames(settings).check({"type": "http", "server": (server, 3000), "headers": headers})
    except RequestError as error:
        refused = (error.status, error.code)
    assert refused in (None, (421, "unknown_host"))
    return refused is None


@pytest.mark.parametrize("server", LOOPBACK)
@pytest.mark.parametrize("port", ["", ":3000", ":"])
def test_on_this_machine_alone_only_its_names_and_addresses_are_answered(
    server: str, port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Desk")
    for host in (
        *("localhost", "LocalHost", "localhost.", "crisp.localhost", "desk", "own.example"),
        *("127.0.0.1", "127.0.1.1", "[::1]", "10.1.2.3", "[fe80::1]"),
    ):
        assert is_answered(Settings(host="own.example"), host + port, server), host
    for host in (
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost"),
        *("", "x", "evil.example, localhost", "user@localhost", "é", "[::1]x", "a" * 5000),
    ):
        assert not is_answered(Settings(host="own.example"), host + port, server), host


def test_a_request_without_the_header_comes_from_no_browser() -> None:
    assert is_answered(Settings(), None)


def test_every_host_header_counts() -> None:
    headers = [(b"host", b"localhost"), (b"host", b"evil.example")]
    with pytest.raises(RequestError, match=r"does not answer to evil\.example"):
        HostNames(Settings()).check({"server": ("::1", 1), "headers": headers})


@given(st.text(st.characters(max_codepoint=255)))
def test_any_header_is_answered_or_refused(host: str) -> None:
    is_answered(Settings(), host)


@pytest.mark.parametrize("server", ["10.0.0.7", "2001:db8::7", "service", None])
def test_where_others_reach_it_any_name_is_answered(server: str | None) -> None:
    settings = Settings(host="0.0.0.0")
    scope = {"server": server and (server, 3000), "headers": [(b"host", b"crisp.example")]}
    HostNames(settings).check(scope)


def test_a_page_has_no_key_so_with_keys_any_name_is_answered(tmp_path: Path) -> None:
    assert is_answered(Settings(keys=tmp_path / "keys.json"), "crisp.example")


@pytest.mark.parametrize("server", ["127.0.0.1", "10.0.0.7"])
@pytest.mark.parametrize("keys", [None, Path("keys.json")])
def test_names_that_are_allowed_are_answered_and_no_others_anywhere(
    server: str, keys: Path | None
) -> None:
    settings = Settings(allowed_hosts="crisp.example, Other", keys=keys)
    for host in ("crisp.example:443", "other", "localhost", "10.0.0.7"):
        assert is_answered(settings, host, server), host
    assert not is_answered(settings, "evil.example", server)
    assert is_answered(Settings(allowed_hosts="*"), "evil.example", server)


@pytest.mark.parametrize("bad", ["", ",", "http://crisp.example", "a:80", "*.example", "a b"])
def test_what_is_no_name_cannot_be_allowed(bad: str) -> None:
    with pytest.raises(SettingsError, match=r"--allowed-hosts .*: expected names with commas"):
        resolve({"allowed_hosts": bad}, {})
