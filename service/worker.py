"""A process that serves, as `service/supervisor.py` starts it: the app of BentoML under uvicorn.

    python -m service.worker --socket 3 --parent 4 --index 1 --folder /tmp/crisp-serve-abc

`--socket` is a listening socket, `--parent` a socket to the supervisor (`service/parent.py`), whose
end says that it is gone: that ends this process as SIGTERM does. `--folder` is for what processes
keep for those that come after them, `--again` says that this one does. Settings come as variables.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from service import early
from service.cores import threads_of_worker
from service.errors import ServiceError
from service.parent import Parent
from service.settings import Settings
from service.supervisor import BACKLOG
from service.variants import Variants

if TYPE_CHECKING:
    import uvicorn


def main() -> None:
    """Serves until SIGTERM; exits with code 2 where the models or the settings are not good."""
    parser = argparse.ArgumentParser()
    for name in ("--socket", "--parent", "--index"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    early.kept_keys, early.again = given.folder / "keys.json", given.again
    parent = early.parent = Parent(socket.socket(fileno=given.parent))
    try:
        settings = Settings.from_environment()
        threads = threads_of_worker(settings, given.index)
        early.models = ThreadPoolExecutor(1).submit(
            Variants.load, settings.models, threads=threads, device=settings.device
        )
        server = _server(given.index, parent)
        early.models.result()
    except ServiceError as error:
        parent.fail(str(error))
        sys.exit(2)
    early.models = None
    server.run(sockets=[socket.socket(fileno=given.socket)])


def _server(index: int, parent: Parent) -> uvicorn.Server:
    """The server, which says that it is ready to `parent`; raises ServiceError."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    import bentoml
    import uvicorn

    context = bentoml.server_context
    context.worker_index, context.service_type = index, "entry_service"
    context.service_name = context.bento_name = "crisp"
    context.bento_version = "not available"

    from service import app

    app.check_settings()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                await parent.ready(app.api.reloader)

    return Server(
        uvicorn.Config(
            app.crisp.to_asgi(),
            loop="uvloop",
            backlog=BACKLOG,
            log_config=None,
            access_log=False,
            server_header=False,
        )
    )


if __name__ == "__main__":
    main()
