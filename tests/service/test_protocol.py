"""What a client may send or withhold before its body: a real uvicorn with our protocol in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
import uvicorn.config
import uvloop
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from service import protocol
from service.exchange import CONNECTION, Connection
from service.settings import Settings

MAX_HEADERS = 2048
SOON = 0.3  # seconds for the headers, in these tests


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the length of the body."""
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    if scope["path"] == "/large":
        parts = (b"x" * (LARGE // 10) for _ in range(10))
        await StreamingResponse(parts)(scope, receive, send)
        SENT.set()
        return
    if scope["path"] == "/wait":
        await lost(scope["extensions"][CONNECTION])
    if scope["path"] == "/held":
        HELD.release()
        await asyncio.to_thread(RELEASED.wait, 30)
    await PlainTextResponse(f"{scope['path']} {length}")(scope, receive, send)


LARGE = 50_000_000  # bytes: more than kernels keep for a client that does not read
SENT = threading.Event()  # set when the answer to a request to /large is out of hand
HELD = threading.Semaphore(0)  # released when a request to /held is there
RELEASED = threading.Event()  # set when it may be answered
LOST = threading.Event()  # set when the client of a request to /wait has gone


async def lost(connection: Connection) -> None:
    gone = asyncio.Event()
    connection.on_lost = gone.set
    await gone.wait()
    connection.on_lost = None
    LOST.set()


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[int]:
    """uvicorn with the bounds of `settings` in a thread of this process; its port."""
    kept = dict(uvicorn.config.HTTP_PROTOCOLS)
    protocol.install(settings)
    config = uvicorn.Config(echo, log_config=None, lifespan="off", timeout_keep_alive=1)
    config.load()
    uvicorn.config.HTTP_PROTOCOLS.update(kept)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        thread = threading.Thread(target=lambda: uvloop.run(server.serve([listener])))
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    settings = Settings(max_header_bytes=MAX_HEADERS, header_timeout_seconds=SOON)
    with serving(settings) as port:
        yield port


def exchange(port: int, *parts: bytes) -> bytes:
    """All that comes back until the connection is closed."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
    return answer


def get(path: str = "/x", *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def error_of(answer: bytes, status: int) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"connection: close" in head
    return dict(json.loads(body)["error"])


@pytest.mark.parametrize("reads", [True, False])
def test_an_answer_that_nobody_reads_is_not_kept(reads: bool) -> None:
    """Whoever reads, however slowly, gets all of it."""
    SENT.clear()
    with (
        serving(Settings(timeout_seconds=SOON)) as port,
        socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
    ):
        connection.sendall(get("/large", "Connection: close"))
        received = 0
        if not reads:
            assert SENT.wait(30)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(1 << 20):
                received += len(part)
                time.sleep(0.01)
    assert SENT.is_set()
    assert (received > LARGE) is reads


def test_an_ordinary_request_is_answered(port: int) -> None:
    answer = exchange(port, get("/x", "Connection: close"))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"/x 0")


@pytest.mark.parametrize("size", [1000, MAX_HEADERS + 1, 300_000])
@pytest.mark.parametrize("parts", [1, 7])
@pytest.mark.parametrize("kind", ["one header", "many headers", "path"])
def test_headers_are_bounded_however_they_come(port: int, size: int, parts: int, kind: str) -> None:
    match kind:
        case "one header":
            request = get("/x", "A: " + "a" * size, "Connection: close")
        case "many headers":
            request = get("/x", *["A: 45678"] * (size // 10), "A: b", "Connection: close")
        case _:
            request = get("/" + "x" * size, "Connection: close")
    step = -(-len(request) // parts)
    answer = exchange(port, *(request[i : i + step] for i in range(0, len(request), step)))
    if size <= 1000:
        assert answer.startswith(b"HTTP/1.1 200 OK")
    elif answer or size == MAX_HEADERS + 1:  # it may be lost where a client goes on sending
        assert error_of(answer, 431)["code"] == "headers_too_large"


@pytest.mark.parametrize(
    "sent", [b"GET /x HTTP/1.1\r\nHost", b"G", b"POST /x HTTP/1.1\r\nHost: x\r\nA: b\r\n"]
)
def test_headers_that_do_not_come_are_not_waited_for(port: int, sent: bytes) -> None:
    error = error_of(exchange(port, sent), 408)
    assert error["code"] == "incomplete_headers"
    assert f"{SOON:g} seconds" in error["message"]


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n\r\n\r\n"])
def test_a_connection_that_says_nothing_is_closed(port: int, sent: bytes) -> None:
    assert exchange(port, sent) == b""


def test_a_trickle_between_requests_holds_no_connection(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(get())
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.settimeout(SOON / 6)
        ended = False
        for _ in range(1000):
            with contextlib.suppress(TimeoutError):
                try:
                    connection.sendall(b"\r\n")
                    ended = connection.recv(1) == b""
                except ConnectionError:
                    ended = True
            if ended:
                break
        assert ended


def test_requests_follow_each_other_on_one_connection(port: int) -> None:
    long = get("/b", "A: " + "a" * 1500)
    answer = exchange(port, get("/a") + long + get("/c", "Connection: close"))
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert [answer.index(b"/%b 0" % name) for name in (b"a", b"b", b"c")] == sorted(
        answer.index(b"/%b 0" % name) for name in (b"a", b"b", b"c")
    )


def test_a_body_may_take_longer_than_the_headers(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(get("/x", "Content-Length: 4", "Connection: close"))
        for _ in range(4):
            threading.Event().wait(SOON / 2)
            connection.sendall(b"a")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_a_body_is_sent_when_the_server_says_so(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        headers = ["POST /x HTTP/1.1", "Host: x", "Expect: 100-continue", "Content-Length: 4"]
        connection.sendall("\r\n".join([*headers, "Connection: close", "", ""]).encode())
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"body")
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200 "), answer


def test_a_head_alone_is_answered(port: int) -> None:
    answer = exchange(port, b"HEAD /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert answer.endswith(b"\r\n\r\n")


H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIA")
WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")


@pytest.mark.parametrize("offer", [H2C, WEBSOCKET])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_upgrade_is_not_taken(port: int, offer: tuple[str, ...], version: bytes) -> None:
    answer = exchange(port, get("/x", *offer).replace(b"HTTP/1.1", b"HTTP/" + version))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"/x 0")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("offer", [H2C, WEBSOCKET])
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Content-Length: 30"], get("/y").ljust(30)),  # that looks like a request
        (["Transfer-Encoding: chunked"], b"3\r\nabc\r\n1b\r\n%s\r\n0\r\n\r\n" % (b"x" * 27)),
    ],
)
def test_the_body_of_a_request_that_offers_an_upgrade_is_its_body(
    port: int, offer: tuple[str, ...], headers: list[str], body: bytes
) -> None:
    """Java's HttpClient and `curl --http2` offer one with every request."""
    assert len(get("/y")) <= 30
    sent = get("/x", *headers, *offer).replace(b"GET", b"POST") + body
    whole = len(sent)
    sent += get("/z", "Connection: close")
    for cut in (len(sent), sent.index(b"Upgrade"), sent.index(body), whole - 2):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(sent[:cut])
            time.sleep(0.05)
            client.sendall(sent[cut:])
            answer = b""
            while part := client.recv(65536):
                answer += part
        assert answer.count(b"HTTP/1.1 200") == answer.count(b"HTTP/1.1") == 2
        assert answer.index(b"/x 30") < answer.index(b"/z 0")


def test_a_head_with_an_upgrade_is_read_as_any_other(port: int) -> None:
    assert error_of(exchange(port, get("/x", *H2C, "X: " + "a" * MAX_HEADERS)), 431)
    both = get("/x", *H2C, "Content-Length: 3", "Transfer-Encoding: chunked")
    assert error_of(exchange(port, both.replace(b"GET", b"POST") + b"abc"), 400)
    folded = get("/x", *H2C, "X: a\r\n Content-Length: 3")
    assert exchange(port, folded + get("/z")).count(b"HTTP/1.1") <= 2
    assert exchange(port, get("/x", *H2C) * 5000).count(b"/x 0") <= protocol.MOST_WAITING


@pytest.mark.parametrize(
    "sent",
    [b"garbage\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET /x HTTP/9.9\r\n\r\n"],
)
def test_what_is_no_http_gets_the_one_error_shape(port: int, sent: bytes) -> None:
    assert error_of(exchange(port, sent), 400)["code"] == "invalid_http"


@given(st.binary(max_size=300))
@hypothesis_settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_bring_it_down(port: int, sent: bytes) -> None:
    address = ("127.0.0.1", port)
    with (
        socket.create_connection(address, timeout=30) as connection,
        contextlib.suppress(ConnectionError),
    ):
        connection.sendall(sent)
    assert exchange(port, get("/x", "Connection: close")).startswith(b"HTTP/1.1 200 OK")


def test_connections_beyond_the_limit_are_refused_and_others_go_on() -> None:
    with serving(Settings(max_connections=3, header_timeout_seconds=20)) as port:
        held = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(3)]
        try:
            refused = exchange(port)
            assert error_of(refused, 503)["code"] == "too_many_connections"
            assert b"retry-after: 1" in refused
            for connection in held:
                connection.sendall(get())
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        finally:
            for connection in held:
                connection.close()


def test_whoever_answers_is_told_when_the_client_of_a_whole_request_goes(port: int) -> None:
    LOST.clear()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(get("/wait"))
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):  # it waits for an answer, and is not taken for gone
            client.recv(1)
        assert not LOST.is_set()
    assert LOST.wait(30)


CHUNKED = b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"


@pytest.mark.parametrize("rest", [b"", get("/held")[:-2], CHUNKED[:-10]])
def test_a_client_that_goes_before_its_answers_is_no_failure(
    port: int, rest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    HELD.acquire(blocking=False)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(get("/held") * 3 + rest)
        assert HELD.acquire(timeout=30)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    RELEASED.set()
    for _ in range(10):  # the other two would be answered meanwhile
        assert exchange(port, get("/x", "Connection: close")).startswith(b"HTTP/1.1 200")
    RELEASED.clear()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_many_small_requests_in_a_row_are_not_taken_for_headers(port: int) -> None:
    """Each piece has more bytes than a head may, and ends in the head of the next request."""
    whole = CHUNKED + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(whole[:20])
        many = MAX_HEADERS // len(whole) + 1
        for _ in range(3):
            client.sendall(whole[20:] + whole * many + whole[:20])
            answers = b""
            while answers.count(b"/a 3") < many + 1:
                answers += client.recv(65536)
                assert answers.count(b"HTTP/1.1 ") == answers.count(b"HTTP/1.1 200")


def test_a_trailer_is_read_over(port: int) -> None:
    assert b"/a 3" in exchange(port, CHUNKED + b"x-sum: 1\r\n\r\n")


@pytest.mark.parametrize("part", [b"a:b\r\n" * 1000, b"a:" + b"b" * 5000])
def test_trailers_without_end_close_the_connection(port: int, part: bytes) -> None:
    assert b"/a 3" not in exchange(port, CHUNKED, *[part] * 200)


def test_so_many_requests_may_wait_on_one_connection_and_no_more(port: int) -> None:
    request = b"GET /p HTTP/1.1\r\nhost: x\r\n\r\n"
    fitting = exchange(port, request * protocol.MOST_WAITING)
    assert fitting.count(b"/p 0") == protocol.MOST_WAITING
    # The first ones are not answered before the last is read, and then the connection is closed.
    assert exchange(port, request * 5000).count(b"/p 0") <= protocol.MOST_WAITING
