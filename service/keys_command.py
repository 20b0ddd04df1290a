"""`crisp keys`: makes, lists and revokes the API keys that `crisp serve --keys FILE` asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

File = Annotated[
    Path,
    typer.Option("--file", envvar="CRISP_KEYS", help="File of names and hashes.", dir_okay=False),
]
DEFAULT_FILE = Path("keys.json")

app = typer.Typer(
    no_args_is_help=True,
    help="""Makes, lists and revokes the API keys that `crisp serve --keys FILE` asks for.

    Examples:

        crisp keys add shop --file keys.json

        crisp serve --keys keys.json
    """,
)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose key it is; the log says so.")],
    admin: Annotated[bool, typer.Option("--admin", help="May load other models too.")] = False,
    file: File = DEFAULT_FILE,
) -> None:
    """Makes a new key and prints it, once: the file keeps only its hash.

    Example:

        crisp keys add shop
    """
    from service import keys

    key = keys.add(file, name, admin=admin)
    typer.echo(f"keep it safe: it cannot be shown again ({name}, in {file})", err=True)
    typer.echo(key)


@app.command("list")
def list_keys(
    file: File = DEFAULT_FILE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Lists the names of the keys, when they were made and what they may do.

    Example:

        crisp keys list
    """
    from service import keys

    found = keys.read(file)
    if as_json:
        facts = [key.model_dump(exclude={"sha256"}) for key in found]
        typer.echo(json.dumps(facts, indent=2))
        return
    for key in found:
        typer.echo(f"{key.name}  {key.created}{'  admin' if key.admin else ''}")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Whose key it is.")], file: File = DEFAULT_FILE
) -> None:
    """Removes a key; a running service refuses it from then on.

    Example:

        crisp keys revoke shop
    """
    from service import keys

    keys.revoke(file, name)
