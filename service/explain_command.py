"""`crisp explain`: what a model looked at in a text, on the terminal and without a server."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from service.errors import InputError
from service.terminal import printable

if TYPE_CHECKING:  # at run time only when it is used: it takes longer than all the rest
    from service.explain import Explanation, Token

_COLD, _HOT = (255, 248, 232), (255, 166, 0)  # of the background, behind black letters
_FEW = 3  # tokens of each layer that the table names


def explain_text(
    text: Annotated[str, typer.Argument(help="Text to explain.")],
    layer: Annotated[
        int | None,
        typer.Option(min=1, help="Layer whose attention is shown.", show_default="the last"),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="Which model.", show_default="sparse, else the first")
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            help="Folder with a model folder for each variant, or one model folder.",
            show_default="the bundled models",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Shows what a model looked at in a text.

    It is coloured by the attention that its tokens received in one layer, and struck through
    where they had been dropped by then. In the last layer only [CLS] attends.

    Examples:

        crisp explain "A warm, funny film that never talks down to its audience."

        crisp explain --variant dense --layer 1 "Two hours I will not get back."
    """
    from service.explain import ExplainedModel, explain
    from service.predict import given, open_engine
    from service.settings import BUNDLED_MODELS

    list(given([text]))
    engine = open_engine(models or BUNDLED_MODELS, variant)
    found = explain(engine, ExplainedModel(engine.folder, engine.library), text)
    if as_json:
        typer.echo(json.dumps(asdict(found), ensure_ascii=False))
        return
    count = len(found.layers)
    if layer is not None and layer > count:
        raise InputError(f"--layer {layer}: the model has {count} layers")
    shown = (layer or count) - 1
    console = Console(highlight=False)
    prediction = found.prediction
    label = printable(prediction.label, keep="\n")
    console.print(Text.assemble((label, "bold"), f"  {prediction.score:.3f}"))
    console.print()
    console.print(coloured(text, found, shown))
    console.print()
    console.print(layers_table(found))


def coloured(text: str, found: Explanation, layer: int) -> Text:
    """`text` with the colours of `layer`, from 0; what the model did not read stays plain."""
    words = [t for t in found.tokens if not t.special and len(t.received) > layer]
    highest = max((token.received[layer] for token in words), default=1.0)
    result, written = Text(), 0
    for token in found.tokens:
        # Several tokens may be of one character, such as a Korean one: it is shown once.
        if not token.special and token.end > written:
            start = max(token.start, written)
            result.append(printable(text[written:start], keep="\n"))
            piece = printable(text[start : token.end], keep="\n")
            result.append(piece, _style(token, layer, highest))
            written = token.end
    result.append(printable(text[written:], keep="\n"), Style(italic=True))
    return result


def _style(token: Token, layer: int, highest: float) -> Style:
    if len(token.received) <= layer:
        return Style(dim=True, strike=True)
    heat = min(1.0, (token.received[layer] / (highest or 1.0)) ** 0.5)
    rgb = (round(c + heat * (h - c)) for c, h in zip(_COLD, _HOT, strict=True))
    return Style(color="black", bgcolor="#{:02x}{:02x}{:02x}".format(*rgb))


def layers_table(found: Explanation) -> Table:
    """How many tokens reach each layer, and which of them received most there."""
    table = Table()
    for title in ("layer", "tokens", "dropped"):
        table.add_column(title, justify="right")
    table.add_column("most attention to")
    for number, layer in enumerate(found.layers):
        here = (t for t in found.tokens if len(t.received) > number and not t.special)
        first = sorted(here, key=lambda t: -t.received[number])[:_FEW]
        names = ", ".join(printable(token.token, keep="\n") for token in first)
        dropped = layer.tokens - layer.passed_on
        table.add_row(str(number + 1), str(layer.tokens), str(dropped or ""), Text(names))
    return table
