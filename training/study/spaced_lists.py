"""Options that take several values after one name: `--sparsity 0 0.5 0.8` beside
`--sparsity 0 --sparsity 0.5 --sparsity 0.8`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperOption


class SpacedLists(TyperCommand):
    """A command without arguments, each of whose repeatable options may take several values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        repeatable = {
            name
            for parameter in self.params
            if isinstance(parameter, TyperOption) and parameter.multiple
            for name in parameter.opts
        }
        spread: list[str] = []
        current: str | None = None  # the repeatable option that further values belong to
        for i, word in enumerate(args):
            if word.startswith("--"):
                current = word if word in repeatable else None
            elif current is not None and args[i - 1] != current:
                spread.append(current)
            spread.append(word)
        return super().parse_args(ctx, spread)
