"""LitServe with stock ONNX Runtime: `litserve_ort.py PORT`.

Its documentation ("Batching", "Speed up serving by 200x") advises to let the server collect
requests into batches, and to try several workers. On CPUs, with texts of unlike lengths, batches
lose: padded to their longest text they carry less than half of what single requests do
(docs/loadtests.md has the figures). So it collects none; PEER_BATCH and PEER_WORKERS change that.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import litserve
import onnxruntime
from common import MODELS, THREADS, padded, predictions

BATCH = int(os.environ.get("PEER_BATCH", "1"))
WORKERS = int(os.environ.get("PEER_WORKERS", "1"))


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:  # noqa: ARG002  the name is LitServe's
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, THREADS // WORKERS)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            str(MODELS / "fp32.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def decode_request(self, request: dict[str, list[str]]) -> list[str]:
        return request["texts"]

    def batch(self, inputs: list[list[str]]) -> list[list[str]]:
        return inputs

    def predict(self, requests: Any) -> Any:
        if BATCH == 1:  # LitServe collects nothing then, and hands over one request
            (logits,) = self.session.run(["logits"], padded(requests))
            return predictions(logits)
        (logits,) = self.session.run(["logits"], padded([t for texts in requests for t in texts]))
        found = iter(predictions(logits))
        return [[next(found) for _ in texts] for texts in requests]

    def unbatch(self, output: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        return output

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        return {"predictions": output}


if __name__ == "__main__":
    batching = {"max_batch_size": BATCH, "batch_timeout": 0.002} if BATCH > 1 else {}
    api = Classifier(api_path="/predict", **batching)
    server = litserve.LitServer(
        api, accelerator="cpu", devices=1, workers_per_device=WORKERS, timeout=60
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        generate_client_file=False,
        log_level="warning",
        num_api_servers=1,
    )
