"""Looks for the cheapest pruning schedule that keeps a trained model's accuracy on held-out texts.

    searcher = Searcher(model, {"short": encodings, "long": others})
    trace = searcher.search(within=0.005)        # schedules, cheaper and cheaper

Greedy descent from "drop nothing": of all single steps (one layer's share or the floor one notch
down) that stay within the allowed loss on every data set, it takes the one whose cross-entropy
rises least for what it saves. The model is not fine-tuned on the way, as that would take hours: a
schedule that was trained with loses less, so the result is a start for `crisp train --prune`, not a
verdict. Costs are those of `training/cost.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import log_softmax
from transformers import DistilBertForSequenceClassification

from training.attention.registry import attention_of
from training.batches import Encodings
from training.cost import EncoderShape, multiply_adds
from training.logits import logits_of
from training.narrow_model import feed_forward_of
from training.pruned_model import prune_model
from training.pruning import TokenPruning

SHARES = (1.0, 0.8, 0.6, 0.45, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05)
FLOORS = (64, 48, 32, 24, 16, 12, 8)


@dataclass(frozen=True)
class Found:
    """What one data set says of one schedule."""

    accuracy: float
    loss: float  # mean cross-entropy, in nats
    cost: float  # multiply-adds relative to the same model without pruning


@dataclass(frozen=True)
class Point:
    """A schedule, and what each data set says of it, by its name."""

    pruning: TokenPruning
    found: Mapping[str, Found]

    @property
    def cost(self) -> float:
        """Mean over the data sets, so that short and long texts count alike."""
        return float(np.mean([found.cost for found in self.found.values()]))

    @property
    def loss(self) -> float:
        return float(np.mean([found.loss for found in self.found.values()]))

    def to_dict(self) -> dict[str, Any]:
        found = {name: vars(each) for name, each in self.found.items()}
        return {"pruning": self.pruning.to_dict(), "found": found}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Point:
        found = {name: Found(**each) for name, each in values["found"].items()}
        return cls(TokenPruning.from_dict(values["pruning"]), found)


class Searcher:
    """Measures schedules on `sets`, each once, and walks from one to the next.

    `known` holds points measured before; `measured` is called with each new one.
    """

    def __init__(
        self,
        model: DistilBertForSequenceClassification,
        sets: Mapping[str, Encodings],
        *,
        known: Mapping[TokenPruning, Point] | None = None,
        measured: Callable[[Point], None] = lambda _: None,
    ) -> None:
        self.model, self.sets, self.measured = model, sets, measured
        self.points = dict(known or {})
        config = model.config
        self.shape = EncoderShape(config.n_layers, config.dim, feed_forward_of(model))
        self.pattern = attention_of(config)

    @property
    def start(self) -> TokenPruning:
        """The schedule that drops nothing."""
        return TokenPruning((SHARES[0],) * (self.shape.layers - 1), FLOORS[0])

    def measure(self, pruning: TokenPruning) -> Point:
        """Accuracy, loss and cost under `pruning`, from what is known where it is."""
        if pruning not in self.points:
            prune_model(self.model, pruning)
            found = {name: self._found(texts, pruning) for name, texts in self.sets.items()}
            self.points[pruning] = Point(pruning, found)
            self.measured(self.points[pruning])
        return self.points[pruning]

    def search(self, within: float) -> list[Point]:
        """Schedules from "drop nothing" down to the cheapest found, each within `within` (a share
        of the texts, 0.005 for half a point) of the first one's accuracy on every data set."""
        here = self.measure(self.start)
        least = {name: found.accuracy - within for name, found in here.found.items()}
        trace = [here]
        while True:
            cheaper = [s for s in steps(here.pruning) if self._saves(s, here.pruning)]
            allowed = [
                point
                for point in map(self.measure, cheaper)
                if all(found.accuracy >= least[name] for name, found in point.found.items())
            ]
            if not allowed:
                return trace
            here = min(allowed, key=partial(_price, here))
            trace.append(here)

    def _saves(self, new: TokenPruning, old: TokenPruning) -> bool:
        """Whether `new` costs less than `old` on any of the texts; a floor above all does not."""
        return any(
            self.relative_cost(texts.lengths, new) < self.relative_cost(texts.lengths, old)
            for texts in self.sets.values()
        )

    def relative_cost(self, lengths: list[int], pruning: TokenPruning) -> float:
        """Multiply-adds of texts of `lengths` relative to dropping nothing."""
        costs = {
            schedule: sum(multiply_adds(n, self.shape, self.pattern, schedule) for n in lengths)
            for schedule in (pruning, None)
        }
        return costs[pruning] / costs[None]

    def _found(self, texts: Encodings, pruning: TokenPruning) -> Found:
        labels = np.asarray(texts.labels)
        logits = logits_of(self.model, texts)
        right = logits.argmax(axis=1) == labels
        loss = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
        cost = self.relative_cost(texts.lengths, pruning)
        return Found(float(right.mean()), float(loss.mean()), cost)


def steps(pruning: TokenPruning) -> list[TokenPruning]:
    """The schedules one notch cheaper: one layer's share lower, and with it the later ones where
    they would exceed it, or a lower floor."""
    found = []
    for layer, share in enumerate(pruning.keep):
        lower = [s for s in SHARES if s < share]
        if lower:
            keep = [min(s, lower[0]) if i >= layer else s for i, s in enumerate(pruning.keep)]
            found.append(TokenPruning(tuple(keep), pruning.floor))
    lower_floors = [floor for floor in FLOORS if floor < pruning.floor]
    if lower_floors:
        found.append(TokenPruning(pruning.keep, lower_floors[0]))
    return found


def pareto_front(points: list[Point], name: str) -> list[Point]:
    """The points that no other beats in both accuracy and cost on data set `name`, by cost."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.found[name].cost, -p.found[name].accuracy)):
        if not front or point.found[name].accuracy > front[-1].found[name].accuracy:
            front.append(point)
    return front


def _price(before: Point, after: Point) -> tuple[float, float]:
    """Rise of the loss for what is saved; where the loss does not rise, what saves most."""
    saved = before.cost - after.cost  # more than nothing: see Searcher.search
    return max(0.0, after.loss - before.loss) / saved, -saved
