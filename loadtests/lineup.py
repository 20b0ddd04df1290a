"""Who is put under load: the variants of a service, and the servers that they are compared with.

Options of the command are read here, and what they name is started, or found to run.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import typer

from loadtests import results
from loadtests.adapters import ADAPTERS
from loadtests.campaign import Contender
from loadtests.errors import LoadTestError
from loadtests.http_client import checked
from loadtests.peers.launch import PEERS, check_peer, started_peer
from loadtests.target import running_peer, running_service, started_service

_OTHER = re.compile(
    r"(?:(?P<name>[\w .-]+)=)?(?P<adapter>\w+)\+(?P<url>[^#]+)(?:#(?P<variant>.+))?"
)


@dataclass(frozen=True)
class OtherServer:
    """What --compare-url says: a server that runs, asked as ADAPTERS[adapter] says."""

    name: str
    adapter: str
    url: str
    variant: str


def contenders(
    stack: ExitStack,
    url: str | None,
    models: Path | None,
    variants: tuple[str, ...],
    peers: tuple[str, ...],
    others: list[OtherServer],
) -> list[Contender]:
    """The models under test and the servers that they are compared with, started where need be."""
    for name in peers:
        check_peer(name)
    target = running_service(url) if url else stack.enter_context(started_service(models))
    for name in variants:
        if name not in target.variants:
            known = ", ".join(target.variants)
            raise LoadTestError(
                f"the service at {target.url} has no variant {name!r}; it has {known}: "
                "choose with --variants"
            )
    found = [
        Contender(name, target, name, facts=results.facts_of(target.models, name))
        for name in variants
    ]
    for name in peers:
        found.append(stack.enter_context(started_peer(name)))
    for other in others:
        peer = running_peer(other.url, other.adapter)
        found.append(Contender(other.name, peer, other.variant, own=False))
    names = [contender.name for contender in found]
    if len(set(names)) < len(names):
        raise LoadTestError(
            f"two contenders have the same name among {', '.join(names)}: give another one with "
            "--compare-url NAME=..."
        )
    return found


def variant_names(variants: str) -> tuple[str, ...]:
    """Names by comma, each once; raises BadParameter where it is otherwise."""
    names = tuple(name.strip() for name in variants.split(",") if name.strip())
    if not names or len(set(names)) < len(names):
        raise typer.BadParameter(
            f"expected different names by comma, got {variants!r}", param_hint="--variants"
        )
    return names


def peer_names(names: str) -> tuple[str, ...]:
    """Names of PEERS by comma, or `all`; raises BadParameter where one is unknown."""
    if names.strip() == "all":
        return tuple(PEERS)
    chosen = tuple(name.strip() for name in names.split(",") if name.strip())
    for name in chosen:
        if name not in PEERS:
            known = ", ".join(PEERS)
            raise typer.BadParameter(f"{name!r} is not one of {known}", param_hint="--peers")
    return chosen


def other_server(text: str) -> OtherServer:
    """`[NAME=]ADAPTER+URL[#MODEL]` taken apart; raises BadParameter where it is otherwise, and
    LoadTestError as `checked` does."""
    found = _OTHER.fullmatch(text)
    if found is None or found["adapter"] not in ADAPTERS:
        message = (
            f"expected [NAME=]ADAPTER+URL with an ADAPTER of {', '.join(ADAPTERS)}; got {text!r}"
        )
        raise typer.BadParameter(message, param_hint="--compare-url")
    url = checked(found["url"])
    name = found["name"] or f"{found['adapter']} {url.partition('://')[2]}"
    return OtherServer(name, found["adapter"], url, found["variant"] or "default")
