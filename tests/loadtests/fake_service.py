"""A small HTTP server that looks like the service, and misbehaves on request.

It lets the load test's handling of failures be tested without a model. What it answers to POST
/predict is up to a function, `behave(request) -> (status, body)`; None drops the connection.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[[dict[str, Any]], "tuple[int, Any] | None"]

PREDICTION = {
    "label": "positive",
    "score": 0.75,
    "scores": {"negative": 0.25, "positive": 0.75},
    "tokens": 7,
    "truncated": False,
}
MODELS = {"default": "sparse", "variants": {"dense": {}, "sparse": {}}}


def right(request: dict[str, Any]) -> tuple[int, Any]:
    """The answer that the service owes to this request."""
    predictions = [PREDICTION for _ in request["texts"]]
    return 200, {"variant": request["variant"], "predictions": predictions, "timing": {}}


class FakeService(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behave: Behaviour, models: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behave, self.models = behave, models
        self.requests: list[dict[str, Any]] = []
        self.gone = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """Clients that hang up are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeService

    def do_GET(self) -> None:
        self._answer((200, self.server.models))

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        self._answer(self.server.behave(request))

    def _answer(self, answer: tuple[int, Any] | None) -> None:
        if answer is None or self.server.gone:
            self.close_connection = True
            return
        status, content = answer
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.wfile.write(head + body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def fake_service(behave: Behaviour = right, models: Any = MODELS) -> Iterator[FakeService]:
    with FakeService(behave, models) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
