"""Text of others on a terminal."""

from __future__ import annotations


def printable(text: str, *, keep: str = "") -> str:
    """`text` with a blank for each control character but those to `keep`: they have no business
    in a terminal."""
    return "".join(c if c.isprintable() or c in keep else " " for c in text)
