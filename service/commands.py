"""The `service` commands of the crisp command line."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Adds this stage's commands to `app`."""
