"""The service when it has too much to do: who is refused, when, what is said and counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from test_api import held, started
from test_api import running as run_under_way
from test_metrics import TEXTS, Counted

VARIANTS = ("dense", "sparse")
WAITING = 96  # tokens, of which the model reads one a second, as it seems


@contextlib.asynccontextmanager
async def busy(
    counted: Counted, variant: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[httpx.AsyncClient, Event]]:
    """A service that is in a run of `variant` until the event is set or the block ends, while
    WAITING tokens wait for the next. Of other variants it is not known yet how fast they are."""
    async with started(counted.api) as client, asyncio.TaskGroup() as group:
        batcher = counted.api.classifier.batcher
        with held(counted.api.variants[variant], monkeypatch) as finish:
            for texts in (1, WAITING // 4):  # of four tokens
                body = {"texts": ["good film"] * texts, "variant": variant}
                group.create_task(client.post("/predict", json=body))
                await run_under_way(counted.api)
            while not batcher.waiting:
                await asyncio.sleep(0.001)
            assert batcher.waiting == WAITING
            lane, _ = counted.api.classifier._in_use[variant]
            lane.speed.ran(1, 1.0)
            yield client, finish


async def sent(client: httpx.AsyncClient, body: Any, path: str = "/predict") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    return await client.post(path, content=content, headers=headers)


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, str(response.json()["error"]["code"])


OVERLOADED, PARSED = (429, "overloaded"), (422, "invalid_request")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_with_too_much_to_do_refuses_before_it_parses_and_others_go_on(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    counted = Counted(models_dir, max_wait_seconds=60, batch_tokens=16)
    (other,) = {*VARIANTS} - {variant}
    bodies = {
        b'{"texts": 5, "variant": "%b"}' % variant.encode(): OVERLOADED,
        b'{"variant"\n:\t"%b", "texts": 5}' % variant.encode(): OVERLOADED,
        b'{"variant": "%b", no JSON' % variant.encode(): OVERLOADED,
        b'{"texts": 5, "variant": "%b"}' % other.encode(): PARSED,
        b'{"texts": 5}': OVERLOADED if variant == "sparse" else PARSED,
        # A text that looks like the name of a variant is none.
        json.dumps({"texts": ['"variant": "dense"', 5]}).encode(): (
            OVERLOADED if variant == "sparse" else PARSED
        ),
        b'{"texts": ["good"], "variant": "huge"}': (422, "unknown_variant"),
    }

    async def scenario() -> list[httpx.Response]:
        async with busy(counted, variant, monkeypatch) as (client, _):
            return [await sent(client, body) for body in bodies]

    answers = asyncio.run(scenario())
    assert [code(answer) for answer in answers] == [*bodies.values()]
    refused = [*bodies.values()].count(OVERLOADED)
    assert counted.value("rejections_total", reason="max_wait") == refused
    assert counted.value("requests_total", variant=variant, outcome="rejected") == refused
    assert counted.value("requests_total", variant=other, outcome="rejected") == 0
    assert counted.value("texts_total", variant=variant, outcome="rejected") == 0  # none was read


@pytest.mark.parametrize("path", ["/predict", "/compare", "/hf"])
def test_every_endpoint_for_predictions_refuses_before_it_parses(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    counted = Counted(models_dir, max_wait_seconds=60, batch_tokens=16)

    async def scenario() -> tuple[httpx.Response, httpx.Response]:
        async with busy(counted, "sparse", monkeypatch) as (client, _):
            refused = await sent(client, {}, path)
        async with started(counted.api) as client:
            return refused, await sent(client, {}, path)

    refused, parsed = asyncio.run(scenario())
    assert (code(refused), code(parsed)) == (OVERLOADED, PARSED)


def test_a_refusal_says_how_much_is_before_and_when_to_come_back(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(models_dir, max_wait_seconds=60, batch_tokens=16)

    async def scenario() -> httpx.Response:
        async with busy(counted, "sparse", monkeypatch) as (client, _):
            return await sent(client, TEXTS)

    refused = asyncio.run(scenario())
    message = refused.json()["error"]["message"]
    # Four more seconds of what runs are before it, as long as they have not passed.
    assert WAITING <= float(message.split()[1]) <= WAITING + 4
    assert "an answer within 60 seconds" in message
    margin = 60 / 16
    assert WAITING + margin - 60 <= int(refused.headers["retry-after"]) <= WAITING + margin - 55


@pytest.mark.parametrize(("max_wait", "status"), [(60, 429), (600, 200)])
def test_while_less_than_a_run_waits_the_texts_of_a_request_decide(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch, max_wait: int, status: int
) -> None:
    counted = Counted(models_dir, max_wait_seconds=max_wait)

    async def scenario() -> tuple[httpx.Response, httpx.Response]:
        async with busy(counted, "sparse", monkeypatch) as (client, finish):
            bad = await sent(client, {"texts": 5})
            asked = asyncio.ensure_future(sent(client, TEXTS))
            while not asked.done() and counted.api.classifier.batcher.waiting == WAITING:
                await asyncio.sleep(0.001)
            finish.set()
            return bad, await asked

    bad, asked = asyncio.run(scenario())
    assert code(bad) == PARSED
    assert asked.status_code == status
    refused = status == 429
    if refused:
        assert code(asked) == OVERLOADED
    assert counted.value("rejections_total", reason="max_wait") == refused
    assert counted.value("requests_total", variant="sparse", outcome="rejected") == refused
    assert counted.value("texts_total", variant="sparse", outcome="rejected") == 2 * refused
