"""The options that name an attention pattern and a pruning schedule, for every command that takes
them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from training.pattern import AttentionPattern

Density = Annotated[
    float | None,
    typer.Option(
        help="topk, blocktopk: share of the links, or blocks, that are kept. [default: 0.2]"
    ),
]
K = Annotated[
    int | None,
    typer.Option(help="topk, blocktopk: links a query, or blocks, instead of a share."),
]
Window = Annotated[int | None, typer.Option(help="band: full width, an odd number.")]
Size = Annotated[int | None, typer.Option(help="block, blocktopk: tokens a block.")]
Globals = Annotated[
    int | None,
    typer.Option("--globals", help="band, block: first tokens that see and are seen by all."),
]
Prune = Annotated[
    str | None,
    typer.Option(
        help="Drop tokens layer by layer: the share of a long text that is left after each layer "
        'but the last, e.g. "1,1,0.7,0.3,0.1". [default: drop none]'
    ),
]
PruneFloor = Annotated[int, typer.Option(help="Tokens of a text that --prune takes no share of.")]


def pattern_of(
    attention: str,
    density: float | None,
    k: int | None,
    window: int | None,
    size: int | None,
    globals_: int | None,
) -> AttentionPattern:
    """The pattern that the options name. Raises PatternError where they do not fit together."""
    from training.pattern import AttentionPattern

    if attention in ("topk", "blocktopk", "bottomk", "random") and density is None and k is None:
        density = 0.2
    return AttentionPattern(attention, density, k, window, size, globals_)
