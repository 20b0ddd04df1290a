"""`crisp bench --http`: its sums on made-up rounds, its client, one run against a real service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running_server import crisp

from export.processors import processors
from service.bench.client import BenchError, closed_loop, predict_request
from service.bench.overhead import Engines, Overhead, interval, pairs_of_examples


def test_shares_and_differences_are_taken_round_by_round() -> None:
    engine = Engines([100, 200, 400], [2.0, 4.0, 3.0])
    found = Overhead(1, 32, engine, [80, 180, 320], [2.5, 5.0, 3.75])
    assert found.shares == [0.8, 0.9, 0.8]
    assert found.added_ms == [0.5, 1.0, 0.75]
    summary = found.summary()
    assert (summary["share"], summary["added_ms_median"]) == (0.8, 0.75)
    json.dumps(summary)


@given(values=st.lists(st.floats(0.1, 10), min_size=3, max_size=30))
def test_the_interval_lies_around_the_median(values: list[float]) -> None:
    low, high = interval(values)
    assert min(values) <= low <= sorted(values)[len(values) // 2] <= high <= max(values)


def test_the_texts_are_many_and_short() -> None:
    texts = pairs_of_examples()
    assert len(set(texts)) > 50
    assert all(len(text) < 300 for text in texts)


async def answering(answer: bytes, requests: list[bytes], connections: int) -> list[float]:
    """The client against a server that says `answer` to every request, in two pieces."""

    ended: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.Event())
        end = ended[-1]
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                writer.write(answer[:20])
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(answer[20:])
        writer.close()
        end.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        try:
            return await closed_loop("127.0.0.1", port, requests, connections, 0.2)
        finally:
            for each in ended:
                await each.wait()
            await asyncio.sleep(0.01)  # the transports close one step later


def test_the_client_counts_answers() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    requests = [predict_request("a film", "sparse"), predict_request("another", "sparse")]
    seconds = asyncio.run(answering(answer, requests, 4))
    assert len(seconds) >= 4
    assert min(seconds) > 0


def test_the_client_reports_an_error() -> None:
    answer = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}"
    with pytest.raises(BenchError, match="429"):
        asyncio.run(answering(answer, [predict_request("a film", "sparse")], 2))


@pytest.mark.slow
def test_it_measures_a_real_service(models_dir: Path) -> None:
    options = ("--http", "--model", str(models_dir / "sparse"), "--seconds", "1", "--json", "-")
    done = subprocess.run(crisp("bench", *options), capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)
    assert [found["workers"] for found in services] == sorted({1, processors()})
    for found in services:
        assert len(found["throughput"]) == len(found["engine"]["ms"]) == found["rounds"] == 3
        assert all(value > 0 for value in found["throughput"] + found["ms"])
        low, high = found["share_interval"]
        assert low <= found["share"] <= high
