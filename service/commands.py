"""The service's commands: `crisp serve`, `crisp predict` and `crisp compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.compare.command import compare

Models = Annotated[
    Path | None,
    typer.Option(
        help="Folder with a model folder for each variant, or one model folder.",
        show_default="the bundled models",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads of one run of a model.", show_default="every core"),
]


def register(app: typer.Typer) -> None:
    """Adds this stage's commands to `app`."""
    app.command()(serve)
    app.command()(predict)
    app.command()(compare)


def serve(
    models: Models = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 3000,
    threads: Threads = None,
    access_log: Annotated[
        bool | None,
        typer.Option("--access-log/--no-access-log", help="Log a line for each request."),
    ] = None,
) -> None:
    """Serves the models over HTTP: POST /predict, POST /compare, GET /models, /docs.json.

    Further settings are environment variables: CRISP_MAX_TEXTS (256 a request),
    CRISP_MAX_BODY_BYTES (1 MiB), CRISP_RUNS_AT_ONCE (1), CRISP_TIMEOUT_SECONDS (60).

    Examples:

        crisp serve

        crisp serve --models models --port 8080 --no-access-log
    """
    from service.server import serve as run
    from service.settings import Settings

    given = {"models": models, "threads": threads, "access_log": access_log}
    options = {name: value for name, value in given.items() if value is not None}
    run(Settings.from_environment().model_copy(update=options), host, port)


def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to classify.")] = None,
    file: Annotated[
        str | None, typer.Option(metavar="FILE", help="UTF-8 file, one text a line; - reads stdin.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="Which model.", show_default="sparse, else the first")
    ] = None,
    models: Models = None,
    threads: Threads = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each text.")
    ] = False,
) -> None:
    """Classifies texts without a server, with the engine that the server uses.

    Examples:

        crisp predict "A warm, funny film." "Two hours I will not get back."

        crisp predict --file reviews.txt --json > predictions.jsonl
    """
    if bool(texts) == (file is not None):
        raise typer.BadParameter("expected either texts or --file FILE", param_hint="TEXTS")
    from service.predict import predict_texts
    from service.settings import BUNDLED_MODELS

    source = file if file is not None else list(texts or ())
    predict_texts(source, models or BUNDLED_MODELS, variant, threads=threads, as_json=as_json)
