"""Finds the shell blocks of a Markdown document, and what each says of how it is tested.

A block is a fence of the language `bash`, `sh` or `console`. `tests/test_readme.py` runs every one,
in the order of the document and in one folder, unless an HTML comment right before it says other:

    <!-- not run: REASON -->        nobody runs it; the reason is shown by pytest
    <!-- runs slowly: REASON -->    `make test-slow` runs it, `make test` does not
    <!-- runs with: server -->      it runs beside a server of the bundled model; its 127.0.0.1:3000
                                    is replaced by the address of that server

In a `console` block, the lines that begin with `$ ` are run, and the others show output. A `json`
or `text` fence right after a block shows what it prints: see `resembles` and `reads_like`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from markdown_it import MarkdownIt

LANGUAGES = ("bash", "sh", "console")
_MARKER = re.compile(r"<!--\s*(not run|runs slowly|runs with)\b:?\s*(.*?)\s*-->\s*", re.DOTALL)

NEAR = 0.02  # what kernels of another processor change in a score, and far more
_FRACTION = re.compile(r"\d+\.\d+")

Mode = Literal["run", "not run", "runs slowly", "runs with"]


@dataclass(frozen=True)
class ShellBlock:
    """A shell block, the line of its fence (from 1), and what its marker says."""

    document: str
    line: int
    commands: str
    mode: Mode = "run"
    remark: str = ""
    output: str | None = None
    language: str = ""  # of `output`

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def shell_blocks(markdown: str, document: str) -> list[ShellBlock]:
    """The shell blocks of `markdown`, wherever they are nested, in order.

    Raises ValueError where a fence names no language, where a marker stands before anything but a
    shell block, gives no reason, or asks for something other than a server.
    """
    tokens = MarkdownIt().parse(markdown)
    blocks = []
    for number, token in enumerate(tokens):
        following = tokens[number + 1] if number + 1 < len(tokens) else None
        where = f"{document}:{token.map[0] + 1}" if token.map else document
        if token.type == "html_block" and _MARKER.match(token.content):
            if following is None or not _is_shell(following):
                raise ValueError(f"{where}: a marker belongs right before a shell block")
        elif token.type == "fence" and not token.info.strip():
            raise ValueError(f"{where}: name the language of this fence (`text` for none)")
        elif _is_shell(token):
            mode, remark = _marker(tokens[number - 1] if number else None, where)
            language = following.info.strip() if following else ""
            shown = following if language in ("json", "text") else None
            block = ShellBlock(
                document=document,
                line=token.map[0] + 1 if token.map else 0,
                commands=_commands(token),
                mode=mode,
                remark=remark,
                output=shown.content if shown else None,
                language=language if shown else "",
            )
            blocks.append(block)
    return blocks


def _is_shell(token: Any) -> bool:
    return token.type == "fence" and token.info.strip().split(" ")[0] in LANGUAGES


def _marker(before: Any, where: str) -> tuple[Mode, str]:
    match = _MARKER.match(before.content) if before and before.type == "html_block" else None
    if match is None:
        return "run", ""
    mode, remark = match.groups()
    if mode == "runs with" and remark != "server":
        raise ValueError(f"{where}: `runs with: server` is known, not {remark!r}")
    if len(remark.split()) < 2 and mode != "runs with":
        raise ValueError(f"{where}: say why: <!-- {mode}: REASON -->")
    return mode, remark  # type: ignore[return-value]


def _commands(token: Any) -> str:
    if not token.info.startswith("console"):
        return str(token.content)
    commands, continued = [], False
    for line in token.content.splitlines():
        if line.startswith("$ ") or continued:
            commands.append(line.removeprefix("> " if continued else "$ "))
            continued = line.endswith("\\")
    return "".join(f"{command}\n" for command in commands)


def resembles(answer: Any, shown: Any, *, near: bool = False) -> bool:
    """Whether an answer is of the kind that a document shows.

    The same keys, lengths, strings, integers and truth values; a fraction, such as a duration, may
    be any number, since it differs from machine to machine. Scores do so by less than NEAR.
    """
    if isinstance(shown, dict):
        return (
            isinstance(answer, dict)
            and answer.keys() == shown.keys()
            and all(
                resembles(answer[key], shown[key], near=near or key.startswith("score"))
                for key in shown
            )
        )
    if isinstance(shown, list):
        return (
            isinstance(answer, list)
            and len(answer) == len(shown)
            and all(
                resembles(one, other, near=near) for one, other in zip(answer, shown, strict=True)
            )
        )
    if isinstance(shown, float):
        is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
        return is_number and (not near or abs(answer - shown) < NEAR)
    return type(answer) is type(shown) and bool(answer == shown)


def reads_like(printed: str, shown: str) -> bool:
    """Whether the words of two texts are the same, but for fractions that differ by less than
    NEAR."""
    words, others = printed.split(), shown.split()
    return len(words) == len(others) and all(
        abs(float(word) - float(other)) < NEAR
        if _FRACTION.fullmatch(word) and _FRACTION.fullmatch(other)
        else word == other
        for word, other in zip(words, others, strict=True)
    )


def broken_links(file: Path) -> list[str]:
    """The relative links and pictures of a Markdown file that lead to no file."""
    found = []
    for token in MarkdownIt().parse(file.read_text(encoding="utf-8")):
        for inline in token.children or ():
            target = str(inline.attrGet("href") or inline.attrGet("src") or "")
            path = target.split("#")[0]
            if path and ":" not in path and not (file.parent / path).exists():
                found.append(f"{file.name}: {target}")
    return found
