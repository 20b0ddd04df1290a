"""One model folder, ready to answer: texts -> tokens -> packed batch -> logits -> predictions.

No padding anywhere: the texts of a call are laid end to end (`input_ids` [T], `cu_seqlens` [B+1]),
in as many packs as the memory bound asks for. The engine knows nothing of HTTP, and nothing of
torch: it needs onnxruntime, tokenizers and numpy. Calls may come from several threads.

    engine = Engine.load(Path("service/models/sparse"))
    answer = engine.predict(["A warm, funny film.", "Two hours I will not get back."])
    answer.predictions[0].label   # "positive"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from export.errors import ModelFolderError, first_line
from export.gpu import suited
from export.manifest import Manifest, ModelFolder
from export.op_library import OpLibrary, find_op_library, make_session
from export.packing import pack
from export.processors import processors
from export.share import Share
from service.beginning import beginning_of

# Tokens of one run of the graph. The compiled operator's memory grows with T; the fallback's with
# heads · T² (12 heads, 1,024 tokens: 50 MB for each intermediate result), so its packs are smaller.
PACK_TOKENS = 16_384
PACK_TOKENS_FALLBACK = 1_024

_CHARACTERS_A_TOKEN = 16  # far more than any language has on average
_FURTHER = 16  # times, where those were not enough
_SHORT = 2_000  # characters that one thread tokenises in a millisecond or two


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one text.

    `scores` maps every label to its probability (softmax of the logits, sums to 1); `label` is the
    one with the highest. `tokens` counts what the model read, special tokens included; `truncated`
    says that the text was longer than the model's maximum and was cut at its end.
    """

    label: str
    score: float
    scores: dict[str, float]
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of a call went, in milliseconds. The engine itself never queues."""

    queue_ms: float
    tokenize_ms: float
    inference_ms: float


class Row(NamedTuple):
    """What the model says of one text: for each label, in the manifest's order."""

    logits: list[float]
    probabilities: list[float]


@dataclass(frozen=True, slots=True)
class Answer:
    """One prediction for each text, in the order of the texts, and the logits [B, C] behind it;
    `manifest` is that of the model that gave them."""

    predictions: list[Prediction]
    timing: Timing
    logits: list[list[float]]
    manifest: Manifest


class Engine:
    """Tokenizer and ONNX session of one verified model folder.

    Raises ModelFolderError where the tokenizer or the graph is not what the manifest promises,
    DeviceError for an int8 model on a GPU.
    """

    def __init__(
        self,
        folder: ModelFolder,
        *,
        threads: int | None = None,
        library: OpLibrary | None = None,
        pack_tokens: int | None = None,
    ) -> None:
        self.folder = folder
        self.library = suited(library or find_op_library(), folder.manifest.precision)
        self.pack_tokens = pack_tokens or (
            PACK_TOKENS if self.library.available else PACK_TOKENS_FALLBACK
        )
        self._tokenizer = _tokenizer(folder)
        self._most_characters = _CHARACTERS_A_TOKEN * folder.manifest.max_tokens
        self._session = make_session(
            folder.model,
            threads=threads,
            library=self.library,
            precision=folder.manifest.precision,
        )
        self._share = Share(self.library, threads or processors())
        inputs = {node.name for node in self._session.get_inputs()}
        outputs = {node.name for node in self._session.get_outputs()}
        if inputs != {"input_ids", "cu_seqlens"} or "logits" not in outputs:
            raise ModelFolderError(
                f"{folder.model} is no packed classifier: expected inputs input_ids and cu_seqlens "
                f"and output logits, found {sorted(inputs)} and {sorted(outputs)}; export it again"
            )

    @classmethod
    def load(
        cls, path: Path, *, threads: int | None = None, library: OpLibrary | None = None
    ) -> Engine:
        """Verifies the folder at `path` (ModelFolderError where it is not whole) and opens it."""
        return cls(ModelFolder.load(path), threads=threads, library=library)

    @property
    def manifest(self) -> Manifest:
        return self.folder.manifest

    def predict(self, texts: Sequence[str]) -> Answer:
        """Classifies `texts`; any number, none included. Texts must not hold lone surrogates."""
        started = perf_counter()
        encodings = self.tokenize(texts)
        tokenized = perf_counter()
        rows = self.rows([encoding.ids for encoding in encodings])
        finished = perf_counter()
        timing = Timing(0.0, 1e3 * (tokenized - started), 1e3 * (finished - tokenized))
        return self.answer(encodings, rows, timing)

    def tokenize(self, texts: Sequence[str]) -> list[Encoding]:
        """The tokens of each text, as many as the model reads, without their places in it.

        Of a text that is much longer than that its beginning is enough, between two tokens: what
        comes then does not change those before it. So a megabyte costs no second, unless it is
        blanks or one word. Other threads go on meanwhile, except for a single short text.
        """
        encodings = self.tokenize_beginnings(texts)
        self.read_on(texts, encodings)
        return encodings

    def tokenize_beginnings(self, texts: Sequence[str]) -> list[Encoding]:
        """The first half of `tokenize`, which is all of it for nearly every text."""
        if len(texts) == 1 and len(texts[0]) <= _SHORT:  # not worth waking other threads
            return [self._tokenizer.encode(texts[0])]
        beginnings = [beginning_of(text, self._most_characters) for text in texts]
        return list(self._tokenizer.encode_batch_fast(beginnings))

    def unread(self, texts: Sequence[str], encodings: Sequence[Encoding]) -> list[int]:
        """Which of `texts` have too few tokens in their beginnings."""
        return [
            i
            for i, (text, encoding) in enumerate(zip(texts, encodings, strict=True))
            if len(text) > self._most_characters and not encoding.overflowing
        ]

    def read_on(self, texts: Sequence[str], encodings: list[Encoding]) -> None:
        """The second half of `tokenize`: puts the tokens of those texts into `encodings`."""
        for i in self.unread(texts, encodings):
            encodings[i] = self._read(
                texts[i], self._tokenizer.encode_batch_fast, _FURTHER * self._most_characters
            )

    def rows(self, sequences: Sequence[Sequence[int]]) -> list[Row]:
        """Runs the graph over sequences of token ids; raises ModelFolderError where it gives a
        number that is not finite."""
        logits = self.logits(sequences)
        if not np.isfinite(logits).all():
            raise ModelFolderError(
                f"{self.folder.path} gave a score that is no finite number; export it again"
            )
        return [Row(*row) for row in zip(logits.tolist(), softmax(logits).tolist(), strict=True)]

    def answer(self, encodings: Sequence[Encoding], rows: Sequence[Row], timing: Timing) -> Answer:
        """What the model said, in `rows`, of the texts that became these encodings."""
        predictions = [
            self._prediction(row.probabilities, encoding)
            for row, encoding in zip(rows, encodings, strict=True)
        ]
        return Answer(predictions, timing, [row.logits for row in rows], self.manifest)

    def encode(self, text: str) -> Encoding:
        """The tokens of `text` as `tokenize` finds them, and their places in it."""
        if len(text) <= _SHORT:
            return self._tokenizer.encode(text)
        return self._read(text, self._tokenizer.encode_batch, self._most_characters)

    def _read(
        self, text: str, encode: Callable[[list[str]], Sequence[Encoding]], most: int
    ) -> Encoding:
        while True:
            beginning = beginning_of(text, most)
            (encoding,) = encode([beginning])  # a batch, since it lets other threads run
            if len(beginning) == len(text) or encoding.overflowing:
                return encoding
            most *= _FURTHER

    def predictions(
        self, logits: npt.NDArray[np.float32], encodings: Sequence[Encoding]
    ) -> list[Prediction]:
        """What logits [B, C] say of the texts that became these B encodings."""
        rows: list[list[float]] = softmax(logits).tolist()
        return [
            self._prediction(row, encoding) for row, encoding in zip(rows, encodings, strict=True)
        ]

    def logits(self, sequences: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Runs the graph over sequences of token ids; returns logits float32 [B, C]."""
        rows = [
            self._run(sequences[first:last])
            for first, last in packs([len(ids) for ids in sequences], self.pack_tokens)
        ]
        return np.concatenate(rows) if rows else np.empty((0, len(self.manifest.labels)), "f4")

    def warm_up(self) -> None:
        """Runs a short and a long text, so that the first caller does not pay for allocations.

        Raises ModelFolderError where the model does not run here, or does not give one finite
        score for each label.
        """
        long_text = "warm " * self.manifest.max_tokens
        encodings = self._tokenizer.encode_batch_fast(["warm", long_text])
        try:
            logits = self.logits([encoding.ids for encoding in encodings])
        except Exception as error:  # ONNX Runtime raises a dozen kinds
            raise ModelFolderError(
                f"{self.folder.model} does not run here: {first_line(error)}"
            ) from None
        expected = (2, len(self.manifest.labels))
        if logits.shape != expected or not np.isfinite(logits).all():
            raise ModelFolderError(
                f"{self.folder.model} gives no finite score for each of the labels "
                f"{', '.join(self.manifest.labels)}: logits of shape {list(logits.shape)}, "
                f"expected {list(expected)}; export it again"
            )

    def _run(self, sequences: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        packed = pack(sequences)
        with self._share:
            (logits,) = self._session.run(["logits"], packed)
        result: npt.NDArray[np.float32] = logits
        return result

    def _prediction(self, row: list[float], encoding: Encoding) -> Prediction:
        scores = dict(zip(self.manifest.labels, row, strict=True))
        label = max(scores, key=scores.__getitem__)
        truncated = bool(encoding.overflowing)  # what truncation cut off, in further encodings
        return Prediction(label, scores[label], scores, len(encoding), truncated)


def packs(lengths: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    """Cuts sequences of these lengths, in order, into runs [first, last) of at most `limit` tokens.

    A sequence that is longer than the limit by itself makes a run of its own.
    """
    cuts, tokens = [0], 0
    for index, length in enumerate(lengths):
        if index > cuts[-1] and tokens + length > limit:
            cuts.append(index)
            tokens = 0
        tokens += length
    return pairwise([*cuts, len(lengths)] if lengths else [])


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Probabilities of each row of logits [B, C], in double precision."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    result: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def _tokenizer(folder: ModelFolder) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(folder.tokenizer))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise ModelFolderError(f"{folder.tokenizer} is no tokenizer: {error}") from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(folder.manifest.max_tokens)
    if not tokenizer.encode("").ids:
        # A text without a token would be answered from its neighbour's.
        raise ModelFolderError(f"{folder.tokenizer} adds no special tokens, such as [CLS]")
    return tokenizer
