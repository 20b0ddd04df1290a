"""The batcher behind a real server: big and small requests, both models, clients that leave, all at
once, and everyone gets exactly what the model says of the text alone."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import httpx
import pytest
from running_server import crisp, free_port, running

from service.engine import Engine

WORDS = ("good", "bad", "long", "slow", "warm", "dull", "film", "story", "plot", "not", "a")


@pytest.mark.slow
def test_everyone_gets_what_the_model_says_of_the_text_alone(
    models_dir: Path, tmp_path: Path
) -> None:
    chance = random.Random(0)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(1, 60))) for _ in range(60)]
    scores = {
        name: {
            text: Engine.load(models_dir / name, threads=1).predict([text]).predictions[0].scores
            for text in texts
        }
        for name in ("dense", "sparse")
    }
    port = free_port()
    limits = ("--batch-tokens", "256", "--max-wait", "60", "--threads", "1")
    command = crisp("serve", "--models", str(models_dir), "--port", str(port), *limits)

    async def ask(client: httpx.AsyncClient) -> int:
        variant = chance.choice(("dense", "sparse"))
        mine = chance.choices(texts, k=chance.choice((1, 1, 1, 2, 5, 100)))
        leaves = chance.random() < 0.1
        request = client.post("/predict", json={"texts": mine, "variant": variant})
        if leaves:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(request, chance.uniform(0, 0.05))
            return 0
        answer = await request
        assert answer.status_code == 200, answer.text
        found = [prediction["scores"] for prediction in answer.json()["predictions"]]
        for text, own in zip(mine, found, strict=True):
            assert own == pytest.approx(scores[variant][text], abs=1e-6)
        return len(mine)

    async def scenario(url: str) -> int:
        limits = httpx.Limits(max_connections=40)
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
            return sum(await asyncio.gather(*(ask(client) for _ in range(300))))

    with running(command, port, tmp_path / "log", CRISP_ACCESS_LOG="false") as server:
        assert asyncio.run(scenario(server.url)) > 1000
        metrics = httpx.get(f"{server.url}/metrics").text
    assert "Traceback" not in server.log
    for name in ("dense", "sparse"):
        assert f'crisp_requests_total{{outcome="failed",variant="{name}"}} 0.0' in metrics
        assert f'crisp_queue_tokens{{variant="{name}"}} 0.0' in metrics
