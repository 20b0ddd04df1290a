"""How many tokens texts will be, from their lengths: known before the work of tokenising them."""

from __future__ import annotations

from collections.abc import Sequence

_SPECIAL = 2  # [CLS] and [SEP]
_FIRST_GUESS = 0.25  # tokens a character; English has about this many
_FADES_IN = 10_000  # characters after which a text counts for about 1/e


class TokenEstimate:
    """Learns tokens a character from the texts that come; those of a text are at most `maximum`."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._characters = float(_FADES_IN)
        self._tokens = _FIRST_GUESS * _FADES_IN

    def tokens(self, texts: Sequence[str]) -> int:
        """About how many tokens `texts` will be."""
        rate = self._tokens / self._characters
        return sum(min(self._maximum, _SPECIAL + int(rate * len(text))) for text in texts)

    def learn(self, texts: Sequence[str], sequences: Sequence[Sequence[int]]) -> None:
        """Notes how many tokens `texts` were; those that were cut say nothing."""
        for text, ids in zip(texts, sequences, strict=True):
            if len(ids) < self._maximum:
                kept = max(0.0, 1 - len(text) / _FADES_IN)
                self._characters = kept * self._characters + len(text)
                self._tokens = kept * self._tokens + len(ids) - _SPECIAL
