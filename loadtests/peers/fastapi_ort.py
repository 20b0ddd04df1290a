"""FastAPI and stock ONNX Runtime: the server that most people would write.

The graph was exported from transformers and fused by onnxruntime.transformers.optimizer, as its
documentation has it for BERT. An endpoint that is a plain function runs in FastAPI's thread pool,
and ONNX Runtime's sessions may be run from several threads; as many runs at a time as there are
cores divided by the threads of one, since more only wait for each other. No spinning, as ONNX
Runtime advises where cores are shared (onnxruntime.ai, "Thread management").
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import onnxruntime
from common import CORES, MODELS, THREADS, padded, predictions
from fastapi import FastAPI
from pydantic import BaseModel

_options = onnxruntime.SessionOptions()
_options.intra_op_num_threads = THREADS
_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
_file = MODELS / os.environ.get("PEER_MODEL", "fp32.onnx")
_session = onnxruntime.InferenceSession(str(_file), _options, providers=["CPUExecutionProvider"])


class Texts(BaseModel):
    texts: list[str]


@asynccontextmanager
async def _lifespan(_: FastAPI) -> Any:
    runs = max(1, CORES // THREADS)
    anyio.to_thread.current_default_thread_limiter().total_tokens = runs
    yield


app = FastAPI(lifespan=_lifespan)


@app.post("/predict")
def predict(request: Texts) -> dict[str, Any]:
    (logits,) = _session.run(["logits"], padded(request.texts))
    return {"predictions": predictions(logits)}


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ready"}
