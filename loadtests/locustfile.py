"""A closed loop of users for Locust: each sends its next request once the last one is answered.

`crisp loadtest` is the measure of capacity; this is for watching and playing, with Locust's web
page on http://localhost:8089, against a service that runs:

    locust -f loadtests/locustfile.py --host http://127.0.0.1:3000 --variant sparse

and, spread over several processes or machines, which send different texts:

    locust -f loadtests/locustfile.py --host http://127.0.0.1:3000 --master --expect-workers 2
    locust -f loadtests/locustfile.py --worker          # twice
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from time import sleep

from locust import FastHttpUser, constant, events, task
from locust.argument_parser import LocustArgumentParser

from loadtests.adapters import ADAPTERS
from loadtests.workloads import WORKLOADS, generated_texts, texts_of_file

# A failing service is not hammered: a user whose request failed waits so long, in seconds.
_PAUSE_AFTER_FAILURE = 0.2
_user_numbers = count()


def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--variant", default="sparse", help="model that answers")
    parser.add_argument("--adapter", default="crisp", choices=[*ADAPTERS], help="kind of server")
    parser.add_argument("--workload", default="sst", choices=WORKLOADS, help="lengths of the texts")
    parser.add_argument("--texts", default="", help="file of texts, one a line, instead")
    parser.add_argument("--batch", type=int, default=1, help="texts a request")
    parser.add_argument("--text-seed", default="0", help="seed of the texts")


class Visitor(FastHttpUser):
    """A client with one request under way at any time."""

    wait_time = constant(0)
    network_timeout = 120.0
    connection_timeout = 10.0

    def on_start(self) -> None:
        options = self.environment.parsed_options
        assert options is not None  # Locust fills it in before any user starts
        self.adapter = ADAPTERS[options.adapter]
        self.variant: str = options.variant
        self.batch: int = options.batch
        worker = getattr(self.environment.runner, "worker_index", 0)
        seed = f"{options.text_seed}/{worker}/{next(_user_numbers)}"
        self.texts: Iterator[str] = (
            texts_of_file(Path(options.texts), seed)
            if options.texts
            else generated_texts(options.workload, seed)
        )

    @task
    def predict(self) -> None:
        body = self.adapter.body(list(islice(self.texts, self.batch)), self.variant)
        with self.client.post(
            self.adapter.path,
            json=body,
            name=f"{self.adapter.path} {self.variant}",
            catch_response=True,
        ) as response:
            answer = self.adapter.judge(
                response.status_code, response.content or b"", self.variant, self.batch
            )
            if answer.fault is None:
                response.success()
            else:
                response.failure(answer.fault)
        if answer.fault is not None:
            sleep(_PAUSE_AFTER_FAILURE)  # gevent's: Locust has patched it


events.init_command_line_parser.add_listener(_add_options)  # type: ignore[no-untyped-call]
