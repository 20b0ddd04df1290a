"""Runs the shell blocks of the README, offline, and those of every document that asks for it.

How a block is marked that cannot be run so: `tests/shell_blocks.py`. A document under docs/ asks
for it with the line `<!-- every shell block is run -->`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from _pytest.mark.structures import ParameterSet
from shell_blocks import ShellBlock, broken_links, reads_like, resembles, shell_blocks

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
BUNDLED = ROOT / "service" / "models"
STAGES = ("training", "export", "service", "loadtests")
ADDRESS = "127.0.0.1:3000"
CLOSED = "http://127.0.0.1:9"  # a proxy that nobody runs
RUN_ALL = "<!-- every shell block is run -->"
# What a command of the README may write, so that it is not linked into the folder of the test.
WRITTEN = {"runs", "models", "results", "build", "dist"}

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RUN_DOCUMENTS = [
    file
    for file in DOCUMENTS
    if file == ROOT / "README.md" or RUN_ALL in file.read_text(encoding="utf-8")
]


def blocks_of(file: Path) -> list[ShellBlock]:
    return shell_blocks(file.read_text(encoding="utf-8"), str(file.relative_to(ROOT)))


def parameters() -> list[ParameterSet]:
    """A test parameter for each block; those that are not run are skipped with their reason."""
    marks = {"runs slowly": pytest.mark.slow}
    found = []
    for block in (block for file in RUN_DOCUMENTS for block in blocks_of(file)):
        mark = pytest.mark.skip(reason=block.remark) if block.mode == "not run" else ()
        found.append(pytest.param(block, id=str(block), marks=marks.get(block.mode, mark)))
    return found


def environment() -> dict[str, str]:
    """This interpreter's commands first, and no way out of this machine."""
    return os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), CLOSED),
        **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
        "HF_HUB_OFFLINE": "1",
        "PIP_NO_INDEX": "1",
        "COLUMNS": "100",
    }


@pytest.fixture(scope="module")
def folder_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder for each document that looks like the checkout, in which its blocks may write."""
    folders: dict[str, Path] = {}

    def make(document: str) -> Path:
        if document not in folders:
            folders[document] = tmp_path_factory.mktemp("checkout")
            for entry in ROOT.iterdir():
                if not entry.name.startswith(".") and entry.name not in WRITTEN:
                    (folders[document] / entry.name).symlink_to(entry)
        return folders[document]

    return make


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of the bundled model, started as the README says."""
    address = f"127.0.0.1:{free_port()}"
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [crisp_command(), "serve", "--port", address.split(":")[1]],
            cwd=ROOT,
            env=environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_ready(f"http://{address}/readyz", process, log)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"the server does not answer at {url}:\n{log.read_text(errors='replace')[-4000:]}")


def tree_entries(markdown: str) -> list[str]:
    """The paths of the file tree: lines such as `crisp.py   what it is for`, deeper ones indented
    by two, in the section or document `What is where`."""
    section = markdown.partition("# What is where")[2].partition("\n## ")[0]
    paths, folder = [], ""
    for line in section.splitlines():
        entry = re.fullmatch(r"( {2})?(\S+\.\w+|\S+/) {2,}\S.*", line)
        if entry and entry[1]:
            paths.append(folder + entry[2])
        elif entry:
            folder = entry[2]
            paths.append(folder)
    return paths


def crisp_command() -> str:
    command = shutil.which("crisp", path=str(BIN))
    if command is None:
        pytest.fail(f"there is no `crisp` beside {sys.executable}: run `make setup`")
    return command


def run(commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the commands as a script that stops at the first that fails."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("block", parameters())
def test_shell_block(
    block: ShellBlock, folder_for: Callable[[str], Path], request: pytest.FixtureRequest
) -> None:
    if not list(BUNDLED.glob("*/manifest.json")):
        pytest.skip("no model is bundled in service/models yet")
    crisp_command()
    commands = block.commands
    if "curl" in commands and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    if block.mode == "runs with":
        assert ADDRESS in commands, f"{block} does not talk to {ADDRESS}"
        commands = commands.replace(ADDRESS, request.getfixturevalue("server"))
    done = run(commands, folder_for(block.document))
    assert done.returncode == 0, f"{block} failed:\n{done.stdout}\n{done.stderr}"
    if block.language == "text" and block.output is not None:
        assert reads_like(done.stdout, block.output), f"{block} shows other than {done.stdout}"
    elif block.output is not None:
        answer = json.loads(done.stdout)
        assert resembles(answer, json.loads(block.output)), f"{block} shows other than {answer}"


def test_the_readme_has_blocks_of_each_kind() -> None:
    modes = {block.mode for block in blocks_of(ROOT / "README.md")}
    assert {"run", "runs with", "not run"} <= modes


def test_every_unmarked_block_is_run() -> None:
    run_here = [parameter.values[0] for parameter in parameters() if not parameter.marks]
    expected = [
        block
        for file in RUN_DOCUMENTS
        for block in blocks_of(file)
        if block.mode in ("run", "runs with")
    ]
    assert run_here == expected


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_to_files(file: Path) -> None:
    assert broken_links(file) == []


@pytest.mark.parametrize("file", ["README.md", "docs/files.md"])
def test_the_file_tree_names_what_is_there(file: str) -> None:
    named = tree_entries((ROOT / file).read_text(encoding="utf-8"))
    assert len(named) >= 8
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_file_tree_names_every_module() -> None:
    named = tree_entries((ROOT / "docs/files.md").read_text(encoding="utf-8"))
    everywhere = {"__init__.py", "commands.py", "errors.py"}
    modules = [file for stage in STAGES for file in (ROOT / stage).rglob("*.py")]
    paths = [str(file.relative_to(ROOT)) for file in modules if file.name not in everywhere]
    folders = tuple(entry for entry in named if re.fullmatch(r"\w+/\w+/", entry))
    assert [path for path in paths if path not in named and not path.startswith(folders)] == []


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    missing = [file.name for file in folder.glob("[0-9]*.md") if f"({file.name})" not in index]
    assert not missing


# The mechanism itself, on documents of its own.

SAMPLE = """
# Sample

```bash
echo one
```

<!-- not run: takes an hour -->
```sh
sleep 3600
```

1. In a list:

   <!-- runs with: server -->
   ```console
   $ curl -s \\
   >   http://127.0.0.1:3000/models
   {"models": []}
   $ echo two
   two
   ```

```python
print("no shell")
```

<!-- runs slowly: trains a model -->

```bash
echo three
```

```json
{"a": 1}
```
"""


def test_blocks_are_found_in_order_with_their_markers() -> None:
    first, second, third, fourth = shell_blocks(SAMPLE, "sample.md")
    assert (first.mode, first.commands, first.line) == ("run", "echo one\n", 4)
    assert (second.mode, second.remark) == ("not run", "takes an hour")
    assert (third.mode, third.remark) == ("runs with", "server")
    assert third.commands == "curl -s \\\n  http://127.0.0.1:3000/models\necho two\n"
    assert (fourth.mode, fourth.remark) == ("runs slowly", "trains a model")
    assert json.loads(fourth.output or "") == {"a": 1}
    assert first.output is second.output is third.output is None
    assert str(second) == "sample.md:9"


@pytest.mark.parametrize(
    ("markdown", "complaint"),
    [
        ("<!-- not run: -->\n```bash\nx\n```", "say why"),
        ("<!-- not run -->\n```bash\nx\n```", "say why"),
        ("<!-- runs slowly: x -->\n```bash\nx\n```", "say why"),
        ("<!-- runs with: a database -->\n```bash\nx\n```", "server"),
        ("<!-- not run: takes an hour -->\n\ntext\n\n```bash\nx\n```", "right before"),
        ("<!-- not run: takes an hour -->\n```python\nx\n```", "right before"),
        ("<!-- not run: takes an hour -->", "right before"),
        ("```\n$ crisp serve\n```", "name the language"),
    ],
)
def test_a_marker_without_sense_is_refused(markdown: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=rf"sample.md:\d: .*{complaint}"):
        shell_blocks(markdown, "sample.md")


def test_a_block_fails_with_its_first_failing_command(tmp_path: Path) -> None:
    assert run("false\necho on", tmp_path).returncode != 0
    assert run("false | cat", tmp_path).returncode != 0
    assert run("echo $missing", tmp_path).returncode != 0
    assert run("echo on > file\ncat file", tmp_path).stdout == "on\n"


def test_a_block_cannot_leave_this_machine(tmp_path: Path) -> None:
    show = "import urllib.request as r; p = r.getproxies(); print(p['http'], p['https'])"
    assert run(f'python -c "{show}"', tmp_path).stdout.split() == [CLOSED, CLOSED]
    refused = run("python -c \"import urllib.request as r; r.urlopen('http://x.test')\"", tmp_path)
    assert "Connection refused" in refused.stderr


@pytest.mark.parametrize(
    ("answer", "shown", "same"),
    [
        ({"a": 0.1, "b": [1]}, {"a": 0.9, "b": [1]}, True),
        ({"a": 3}, {"a": 0.9}, True),
        ({"score": 0.901, "scores": {"a": 0.1}}, {"score": 0.91, "scores": {"a": 0.11}}, True),
        ({"score": 0.8}, {"score": 0.9}, False),
        ({"scores": {"a": [0.8]}}, {"scores": {"a": [0.9]}}, False),
        ({"a": "0.1"}, {"a": 0.9}, False),
        ({"a": True}, {"a": 0.9}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": "positive"}, {"a": "negative"}, False),
        ({"a": 12}, {"a": 13}, False),
        ([], {}, False),
        (None, None, True),
    ],
)
def test_an_answer_resembles_what_a_document_shows(
    answer: object, shown: object, same: bool
) -> None:
    assert resembles(answer, shown) is same


@pytest.mark.parametrize(
    ("printed", "same"),
    [("a  0.99 b\n", True), ("a 0.95 b", False), ("b 0.98 b", False), ("a 0.98", False)],
)
def test_a_printed_text_reads_like_what_a_document_shows(printed: str, same: bool) -> None:
    assert reads_like(printed, "a 0.981 b") is same


def test_a_file_tree_is_read_as_paths() -> None:
    tree = "## What is where\na.py    one\nb/      two\n  c.py    three\n  d/  four\n"
    assert tree_entries(f"e.py   no\n{tree}\n## Test\nf.py   no\n") == [
        "a.py",
        "b/",
        "b/c.py",
        "b/d/",
    ]


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("here")
    file = tmp_path / "links.md"
    file.write_text(
        "[a](there.md#part) [b](gone.md) ![c](gone.png) [d](https://example.org/x) [e](#top)"
    )
    assert broken_links(file) == ["links.md: gone.md", "links.md: gone.png"]
