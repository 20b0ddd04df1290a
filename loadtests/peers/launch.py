"""The peers: other servers of the same dense weights, and how each is started here.

Each runs in a virtual environment of its own that `loadtests/peers/setup.sh` makes, from a file of
exact versions in requirements/; the same script has the weights written as each peer wants them.
docs/loadtests.md says how each is tuned, and on whose advice.

    with started_peer("fastapi-ort") as contender:
        contender.target.url
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.campaign import Contender
from loadtests.errors import LoadTestError
from loadtests.target import HOST, free_port, started
from loadtests.usage import processors

FOLDER = Path(__file__).resolve().parent
INSTALLED = FOLDER.parents[1] / ".venv" / "peers"  # an environment for each peer, and `models`
MODELS = INSTALLED / "models"

# What of this process's environment the peers heed, to be tuned by hand.
_LAYOUT = ("PEER_THREADS", "PEER_HINT", "PEER_BATCH", "PEER_WORKERS")

Command = Callable[[Path, int], list[str]]  # of the environment's bin folder and a port


@dataclass(frozen=True)
class Peer:
    """`serves` says what, for the report; `variant` is the model's name where the adapter has one.
    `environment` is what its documentation wants set, `folder` where it is started."""

    serves: str
    precision: str
    adapter: str
    command: Command
    needs: tuple[str, ...]  # in MODELS
    variant: str = "dense"
    environment: tuple[tuple[str, str], ...] = ()
    folder: Path | None = None


def _uvicorn(app: str) -> Command:
    """One process, since each would want all cores; uvloop and httptools as `uvicorn[standard]`."""

    def command(bin_folder: Path, port: int) -> list[str]:
        return [
            *(str(bin_folder / "python"), "-m", "uvicorn", app, "--app-dir", str(FOLDER)),
            *("--host", HOST, "--port", str(port), "--loop", "uvloop", "--http", "httptools"),
            *("--no-access-log", "--log-level", "warning"),
        ]

    return command


def _litserve(bin_folder: Path, port: int) -> list[str]:
    return [str(bin_folder / "python"), str(FOLDER / "litserve_ort.py"), str(port)]


def _infinity(bin_folder: Path, port: int) -> list[str]:
    return [
        *(str(bin_folder / "infinity_emb"), "v2", "--model-id", "."),  # in the model's folder
        *("--served-model-name", "dense", "--engine", "optimum", "--device", "cpu"),
        *("--host", HOST, "--port", str(port), "--log-level", "warning", "--no-model-warmup"),
    ]


PEERS: dict[str, Peer] = {
    "fastapi-ort": Peer(
        "FastAPI, ONNX Runtime, fused", "fp32", "plain", _uvicorn("fastapi_ort:app"), ("fp32.onnx",)
    ),
    "fastapi-ort-int8": Peer(
        "FastAPI, ONNX Runtime, fused, quantize_dynamic",
        "int8",
        "plain",
        _uvicorn("fastapi_ort:app"),
        ("int8.onnx",),
        environment=(("PEER_MODEL", "int8.onnx"),),
    ),
    "fastapi-openvino-int8": Peer(
        "FastAPI, OpenVINO, NNCF",
        "int8",
        "plain",
        _uvicorn("fastapi_openvino:app"),
        ("openvino-int8.xml",),
    ),
    "litserve": Peer("LitServe, ONNX Runtime, fused", "fp32", "plain", _litserve, ("fp32.onnx",)),
    "infinity": Peer(
        "Infinity, its ONNX engine",
        "fp32",
        "infinity",
        _infinity,
        ("transformers",),
        folder=MODELS / "transformers",  # its ONNX engine finds no file by a full path
        environment=(("INFINITY_ANONYMOUS_USAGE_STATS", "0"), ("DO_NOT_TRACK", "1")),
    ),
}


def check_peer(name: str) -> None:
    """Raises LoadTestError where a peer is not installed or its model is missing."""
    if not (INSTALLED / environment_of(name) / "bin" / "python").exists():
        raise LoadTestError(
            f"the peer {name} is not installed: run loadtests/peers/setup.sh, which says so where "
            "it cannot be; or leave it out of --peers"
        )
    for needed in PEERS[name].needs:
        if not (MODELS / needed).exists():
            raise LoadTestError(
                f"{MODELS / needed} is missing: run loadtests/peers/setup.sh models"
            )


@contextmanager
def started_peer(name: str, *, timeout: float = 300.0) -> Iterator[Contender]:
    """Starts a peer on a free port and stops it at the end.

    Raises LoadTestError as `check_peer`, and where it does not start.
    """
    check_peer(name)
    peer = PEERS[name]
    port = free_port()
    # As Crisp, which counts the cores that it may run on, unless somebody tries another layout.
    threads = os.environ.get("PEER_THREADS", str(processors()))
    variables = {
        "PEER_MODELS": str(MODELS),
        "PEER_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "HF_HUB_OFFLINE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        **dict(peer.environment),
    }
    command = peer.command(INSTALLED / environment_of(name) / "bin", port)
    layout = [f"{key}={os.environ[key]}" for key in _LAYOUT if key in os.environ]
    shown = " ".join(word.replace(f"{FOLDER.parents[1]}/", "") for word in (*layout, *command))
    with started(
        command,
        port,
        peer.adapter,
        name=f"the peer {name}",
        shown=shown,
        environment=variables,
        folder=peer.folder,
        timeout=timeout,
    ) as target:
        yield Contender(name, target, peer.variant, own=False, facts=_facts(peer))


def environment_of(name: str) -> str:
    """Two peers with the same packages share an environment."""
    return name.removesuffix("-int8")


def _facts(peer: Peer) -> dict[str, Any]:
    described = MODELS / "models.json"
    known = json.loads(described.read_text(encoding="utf-8")) if described.is_file() else {}
    facts = known.get(peer.needs[0], {})
    return {
        "serves": peer.serves,
        "precision": peer.precision,
        "attention": {"name": "dense"},
        "pruning": None,
        **facts,
    }
