"""The command line as a whole: its reference in docs/, its help, and how it says what is wrong.

python tests/test_command_line.py     # prints docs/cli.md, as `make docs` writes it
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.cli import get_docs_for_click
from typer.testing import CliRunner

import crisp
from export.errors import ExportError
from loadtests.errors import LoadTestError
from service.errors import ServiceError
from training.errors import TrainingError

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "cli.md"
COMMANDS = tuple(typer.main.get_command(crisp.app).commands)  # type: ignore[attr-defined]
PROMISED = {"train", "evaluate", "export", "compare", "bench", "predict", "serve", "loadtest"}


def reference() -> str:
    """docs/cli.md: the help of every command as Markdown."""
    command = typer.main.get_command(crisp.app)
    context = command.make_context("crisp", [], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=context, name="crisp", title="The command line")
    note = "<!-- Written by `make docs` from the commands' help: change it there. -->"
    return f"{note}\n\n{text.strip()}\n"


def invoke(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `crisp` in a process of its own, as a shell does."""
    command = [sys.executable, str(ROOT / "crisp.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)


def test_the_reference_is_what_the_commands_say() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == reference(), "run `make docs`"


def test_every_promised_command_is_there() -> None:
    assert set(COMMANDS) >= PROMISED


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_what_the_command_does_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(crisp.app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"crisp {command} " in shown.output.partition("Usage:")[2].partition("\n")[2], (
        f"the help of `crisp {command}` has no example"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_one_clear_complaint(command: str) -> None:
    refused = CliRunner().invoke(crisp.app, [command, "--surprise"])
    assert refused.exit_code == 2
    assert "--surprise" in refused.output
    assert "Traceback" not in refused.output


def test_without_a_command_the_help_lists_all() -> None:
    shown = CliRunner().invoke(crisp.app, [])
    assert all(command in shown.output for command in COMMANDS)


def test_an_unknown_command_is_refused_by_name() -> None:
    refused = invoke("compres")
    assert refused.returncode == 2
    assert "No such command 'compres'" in refused.stderr
    assert "Traceback" not in refused.stderr


def failing(error: Exception) -> Callable[[], None]:
    def app() -> None:
        raise error

    return app


@pytest.mark.parametrize("kind", [TrainingError, ExportError, ServiceError, LoadTestError])
def test_an_expected_failure_is_one_line_and_exit_code_2(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crisp, "app", failing(kind("the file is empty; give another")))
    with pytest.raises(SystemExit) as stopped:
        crisp.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "crisp: error: the file is empty; give another\n"


@pytest.mark.parametrize(("package", "extra"), [("torch", "train"), ("locust.env", "loadtest")])
def test_a_missing_package_names_the_extra_that_brings_it(
    package: str,
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(crisp, "app", failing(ModuleNotFoundError("no", name=package)))
    with pytest.raises(SystemExit) as stopped:
        crisp.main()
    assert stopped.value.code == 2
    assert f"'.[{extra}]'" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ModuleNotFoundError("no", name="crisp_typo"), KeyError("k")])
def test_what_nobody_expected_keeps_its_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crisp, "app", failing(error))
    with pytest.raises(type(error)):
        crisp.main()


def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = PermissionError(13, "Permission denied", str(tmp_path / "data.tsv"))
    monkeypatch.setattr(crisp, "app", failing(error))
    with pytest.raises(SystemExit) as stopped:
        crisp.main()
    assert stopped.value.code == 2
    said = f"crisp: error: cannot read or write {tmp_path / 'data.tsv'}: Permission denied\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("command", ["bench", "loadtest", "study semantic-focus"])
def test_a_terminal_that_shows_less_gets_escapes(command: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    shown = subprocess.run(
        [sys.executable, "-m", "crisp", *command.split(), "--help"],
        env=environment,
        cwd=Path(crisp.__file__).parent,
        capture_output=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr.decode()
    assert b"Usage" in shown.stdout.decode("ascii").encode()


@pytest.mark.skipif(sys.platform == "win32", reason="no sh")
def test_closed_streams_are_open_on_nothing(tmp_path: Path) -> None:
    """The next file that was opened would be taken for standard input."""
    python = f"""
import os, sys
sys.argv = ["crisp", "--help"]
import crisp
try:
    crisp.main()
finally:
    opened = os.open({str(tmp_path / "file")!r}, os.O_CREAT | os.O_WRONLY)
    os.write(opened, str(opened).encode())
"""
    subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" <&- >&-', sys.executable, python],
        cwd=Path(crisp.__file__).parent,
        check=False,
    )
    assert int((tmp_path / "file").read_text()) > 2


if __name__ == "__main__":
    print(reference(), end="")
