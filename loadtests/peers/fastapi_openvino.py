"""FastAPI and OpenVINO with the int8 model that NNCF made.

OpenVINO's documentation advises its THROUGHPUT hint for a server with many requests at a time, and
as many infer requests as the compiled model calls optimal ("High-level Performance Hints"); each
thread of FastAPI's pool keeps one. PEER_HINT=LATENCY gives every request all cores instead.

OpenVINO prepares itself for each shape that it meets, which takes several times as long as a run.
So lengths are padded to multiples of 16, and one text of each is run before the server says that it
is ready; requests of several texts meet their shapes later.
"""

from __future__ import annotations

import os
import threading
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import numpy as np
import openvino
from common import MAX_TOKENS, MODELS, pad_to_multiples_of, padded, predictions
from fastapi import FastAPI
from pydantic import BaseModel

_STEP = 16  # tokens
pad_to_multiples_of(_STEP)
_compiled = openvino.Core().compile_model(
    str(MODELS / os.environ.get("PEER_MODEL", "openvino-int8.xml")),
    "CPU",
    {
        "PERFORMANCE_HINT": os.environ.get("PEER_HINT", "THROUGHPUT"),
        "ENABLE_CPU_PINNING": False,  # a pinned thread waits for a core that another process has
    },
)
_own = threading.local()


class Texts(BaseModel):
    texts: list[str]


@asynccontextmanager
async def _lifespan(_: FastAPI) -> Any:
    runs = int(_compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    anyio.to_thread.current_default_thread_limiter().total_tokens = runs
    # As many at a time as there are streams, each of which prepares itself.
    requests = [_compiled.create_infer_request() for _ in range(runs)]
    for length in range(_STEP, -(-MAX_TOKENS // _STEP) * _STEP + 1, _STEP):
        inputs = [np.ones((1, length), np.int64)] * 2
        for request in requests:
            request.start_async(inputs)
        for request in requests:
            request.wait()
    yield


app = FastAPI(lifespan=_lifespan)


@app.post("/predict")
def predict(request: Texts) -> dict[str, Any]:
    if not hasattr(_own, "request"):
        _own.request = _compiled.create_infer_request()
    inputs = list(padded(request.texts).values())
    logits = _own.request.infer(inputs, share_inputs=True)[0]
    return {"predictions": predictions(logits)}


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ready"}
