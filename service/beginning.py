"""The beginning of a long text that a model reads, cut between two tokens."""

from __future__ import annotations

import string
import unicodedata

_ASCII = frozenset(string.punctuation + " \t\n\r")
_LONGEST_WORD = 1000  # characters; of a longer one no tokenizer makes more than "unknown"
# Chinese and Japanese ideographs, each a token of its own.
_IDEOGRAPHS = ((0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2FA1F))


def beginning_of(text: str, most: int) -> str:
    """At most `most` characters of `text`, cut where a token ends whatever follows: before a blank,
    a punctuation mark or an ideograph, or within a word that is too long for any token."""
    if len(text) <= most:
        return text
    for end in range(most, max(0, most - _LONGEST_WORD), -1):
        if _apart(text[end]):
            return text[:end]
    return text[:most]


def _apart(character: str) -> bool:
    """Whether no token goes on from before `character` into it."""
    if character in _ASCII:
        return True
    # Not what Python calls a blank: some of it are control characters, which are left out.
    if unicodedata.category(character)[0] in "PZ":
        return True
    return any(first <= ord(character) <= last for first, last in _IDEOGRAPHS)
