"""Why a model said what it said of a text: the attention that each token received, layer by layer,
and which tokens were dropped where.

An explanation runs a second graph with more outputs (`service/explained_graph.py`), in a session of
its own that is opened at the first explanation: serving itself pays nothing, neither time nor
memory, until somebody asks. One text a run, on one thread, so its memory stays small.

    model = ExplainedModel(engine.folder, engine.library)
    found = explain(engine, model, "A warm, funny film.")
    found.tokens[1]   # Token(token="a", start=0, end=1, received=[0.9, ...], dropped_after=None)
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Encoding

from export.errors import ModelFolderError
from export.manifest import MODEL_FILE, ModelFolder
from export.op_library import OpLibrary, open_session, session_options
from export.packing import pack
from service.engine import Engine, Prediction
from service.explained_graph import LayerOutputs, explained_graph

_DIGITS = 6  # of a share of attention: what follows is the noise of float32

Outputs = Mapping[str, npt.NDArray[Any]]


@dataclass(slots=True)
class Token:
    """One token that the model read.

    `token` is its piece of the vocabulary, `start` and `end` its place in the text, in Unicode code
    points; both are 0 for a special token, which stands nowhere in it. `received` has one number
    for each layer that it reached: the attention that it received from the layer's queries, mean
    over the heads. `dropped_after` is the layer, from 0, that dropped it, or null.
    """

    token: str
    start: int
    end: int
    special: bool
    received: list[float]
    dropped_after: int | None


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: how many tokens it read, how many it passed on, and which of them attended.

    Where all do, what the tokens received sums to their number, so 1 is the mean. In the last layer
    only [CLS] does, since nothing else is read from it: there the sum is 1.
    """

    queries: Literal["all", "cls"]
    tokens: int
    passed_on: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a model says of one text, and what it looked at. `prediction` is that of /predict."""

    prediction: Prediction
    tokens: list[Token]
    layers: list[Layer]


class ExplainedModel:
    """The explained graph of one model folder, opened by the first who runs it. Runs may come from
    several threads; raises ModelFolderError where the graph cannot be explained."""

    def __init__(self, folder: ModelFolder, library: OpLibrary) -> None:
        self._folder = folder
        self._library = library
        self._opening = threading.Lock()
        self._opened: tuple[onnxruntime.InferenceSession, tuple[LayerOutputs, ...]] | None = None

    def run(self, ids: Sequence[int]) -> tuple[Outputs, tuple[LayerOutputs, ...]]:
        """Every output for one sequence of token ids, by name, and which of them a layer has."""
        session, layers = self._open()
        names = [node.name for node in session.get_outputs()]
        return dict(zip(names, session.run(names, pack([ids])), strict=True)), layers

    def _open(self) -> tuple[onnxruntime.InferenceSession, tuple[LayerOutputs, ...]]:
        with self._opening:
            if self._opened is None:
                graph = explained_graph(self._model())
                options = session_options(  # one thread: who wants a prediction comes first
                    threads=1, precision=self._folder.manifest.precision
                )
                options.enable_cpu_mem_arena = False  # it would keep the memory of the longest text
                session = open_session(
                    self._folder.model, options, self._library, content=graph.model
                )
                self._opened = session, graph.layers
            return self._opened

    def _model(self) -> bytes:
        """The file, if it is still the one that answers: it may have been exchanged since."""
        content = self._folder.model.read_bytes()
        facts = self._folder.manifest.files[MODEL_FILE]
        if hashlib.sha256(content).hexdigest() != facts.sha256:
            raise ModelFolderError(
                f"{self._folder.model} is not the model that is in use any more: load the models "
                "anew (POST /models/reload or SIGHUP), or put it back"
            )
        return content


def explain(engine: Engine, model: ExplainedModel, text: str) -> Explanation:
    """Explains the prediction of `engine` for `text`, which must not hold lone surrogates; `model`
    is of the same folder."""
    return explain_tokens(engine, model, engine.encode(text))


def explain_tokens(engine: Engine, model: ExplainedModel, encoding: Encoding) -> Explanation:
    """The same, of a text that `engine.encode` has tokenised."""
    found, outputs = model.run(encoding.ids)
    (prediction,) = engine.predictions(found["logits"], [encoding])
    tokens = list(_tokens(encoding))
    layers = list(_follow(tokens, outputs, found))
    return Explanation(prediction, tokens, layers)


def _tokens(encoding: Encoding) -> Iterator[Token]:
    rows = zip(encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True)
    for token, (start, end), special in rows:
        yield Token(token, start, end, bool(special), [], None)


def _follow(
    tokens: list[Token], outputs: tuple[LayerOutputs, ...], found: Outputs
) -> Iterator[Layer]:
    """Writes into `tokens` what the layers say, and yields each layer."""
    here = tokens
    for number, layer in enumerate(outputs):
        received = np.round(found[layer.received].astype(np.float64), _DIGITS).tolist()
        for token, share in zip(here, received, strict=True):
            token.received.append(share)
        before = here
        if layer.kept is not None:
            here = [before[index] for index in found[layer.kept].tolist()]
            staying = {id(token) for token in here}
            for token in before:
                if id(token) not in staying:
                    token.dropped_after = number
        yield Layer("cls" if layer.first_only else "all", len(before), len(here))
