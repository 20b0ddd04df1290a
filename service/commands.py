"""The service's commands, from `crisp serve` to `crisp explain`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, get_args, get_origin

import typer
from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from service.bench.command import with_http
from service.compare.command import compare
from service.explain_command import explain_text
from service.keys_command import app as keys

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
    app.command()(_with_every_setting(serve))
    app.command()(predict)
    app.command()(compare)
    app.command("explain")(explain_text)
    app.add_typer(keys, name="keys")
    for command in app.registered_commands:
        if command.callback is not None and command.callback.__name__ == "bench":
            command.callback = with_http(command.callback)


def serve(
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file of settings; flags and CRISP_... variables win over it."),
    ] = None,
    print_settings: Annotated[
        bool,
        typer.Option(
            "--print-settings", help="Print each setting and where it comes from, and do not serve."
        ),
    ] = False,
    **flags: Any,
) -> None:
    """Serves the models over HTTP: POST /predict, POST /compare, GET /models, /docs.json.

    Every setting is a flag, a variable (CRISP_MAX_TEXTS) and a line of the file (max_texts = 64);
    the flag wins, then the variable, then the file. Times have their unit in both names:
    --max-wait is CRISP_MAX_WAIT_SECONDS and max_wait_seconds.

    Examples:

        crisp serve

        crisp serve --models models --port 8080 --no-access-log

        crisp serve --config crisp.toml --print-settings
    """
    from service.settings import resolve

    resolved = resolve(flags, config=config)
    if print_settings:
        typer.echo(resolved)
        return
    from service.server import serve as run

    run(resolved.settings)


def _with_every_setting(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with an option for each field of Settings in the place of its **flags."""
    from service.settings import Settings

    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [_option(name, field) for name, field in Settings.model_fields.items()]
    command.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    return command


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    """The option of a setting; None where it is not given, since the default is the last resort.

    Typer does not read what is given for it: Settings does, as from a variable or a file, and names
    the value where it is bad.
    """
    from service.settings import flag

    spelled, kind = flag(name), next(k for k in _kinds(field) if k is not type(None))
    if kind is bool:
        spelled += f"/--no-{spelled[2:]}"
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    signs = ((Gt, "gt", ">"), (Ge, "ge", ">="), (Le, "le", "<="))
    limits = [
        f"{sign}{getattr(limit, value)}"
        for group, value, sign in signs
        for limit in field.metadata
        if isinstance(limit, group)
    ]
    option = typer.Option(
        spelled,
        help=field.description,
        metavar=None if kind is bool else f"<{getattr(kind, '__name__', kind).lower()}>",
        show_default=", ".join((str(extra["shown"] or field.default), *limits)),
        rich_help_panel=str(extra["group"]),
    )
    given = kind if kind in (bool, Path) else str
    annotation = Annotated[Optional[given], option]  # type: ignore[valid-type]  # noqa: UP045
    parameter = inspect.Parameter
    return parameter(name, parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _kinds(field: FieldInfo) -> tuple[Any, ...]:
    """The types of a field, of a union each; the words of a Literal as `a|b`."""
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return ("|".join(get_args(annotation)),)
    return get_args(annotation) or (annotation,)


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
