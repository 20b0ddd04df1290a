"""What a request costs the load generator: our client, aiohttp and httpx, CPU time for each.

    python tests/loadtests/client_cost.py

Each sends the same request over 8 connections to a server in another process that answers at once;
they take turns, and only the time of this process counts.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp
import httptools
import httpx
import uvloop

from loadtests.http_client import Client
from loadtests.target import free_port

ROUNDS, REQUESTS, CONNECTIONS = 7, 1600, 8
BODY = json.dumps({"texts": ["A warm, funny film."], "variant": "sparse"}).encode()
HEADERS = {"Content-Type": "application/json"}

Send = Callable[[], Awaitable[object]]


class Instant(asyncio.Protocol):
    """Answers each request with the same bytes."""

    ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.transport.write(self.ANSWER)  # type: ignore[attr-defined]


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


async def cost(send: Send) -> float:
    """Microseconds of CPU for a request."""

    async def one_after_the_other() -> None:
        for _ in range(REQUESTS // CONNECTIONS):
            await send()

    began = time.process_time()
    await asyncio.gather(*(one_after_the_other() for _ in range(CONNECTIONS)))
    return 1e6 * (time.process_time() - began) / REQUESTS


async def ours(url: str) -> float:
    async with Client(url, connections=CONNECTIONS) as client:
        request = client.encoded("/predict", BODY)

        async def send() -> None:
            await client.reserve(until=float("inf"))
            await client.exchange(request, timeout=30)

        return await cost(send)


async def with_aiohttp(url: str) -> float:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:

        async def send() -> None:
            async with session.post(f"{url}/predict", data=BODY, headers=HEADERS) as response:
                await response.read()

        return await cost(send)


async def with_httpx(url: str) -> float:
    async with httpx.AsyncClient(timeout=30) as client:

        async def send() -> None:
            await client.post(f"{url}/predict", content=BODY, headers=HEADERS)

        return await cost(send)


def main() -> None:
    port = free_port()
    command = [sys.executable, __file__, "serve", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()
    clients = {"ours": ours, "aiohttp": with_aiohttp, "httpx": with_httpx}
    found: dict[str, list[float]] = {name: [] for name in clients}
    try:
        for _ in range(ROUNDS):
            for name, client in clients.items():
                found[name].append(uvloop.run(client(f"http://127.0.0.1:{port}")))
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
    for name, costs in found.items():
        times = [cost / own for cost, own in zip(costs, found["ours"], strict=True)]
        print(
            f"{name}: {statistics.median(costs):.0f} µs of CPU a request ({min(costs):.0f} to "
            f"{max(costs):.0f}, {ROUNDS} rounds), {statistics.median(times):.1f} × ours "
            f"({min(times):.1f} to {max(times):.1f})"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(int(sys.argv[2])))
    else:
        main()
