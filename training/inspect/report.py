"""Runs an inspection, and what it leaves: a table, `inspect.json`, and pictures in a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import DistilBertForSequenceClassification, PreTrainedTokenizerFast

from training.attention.registry import attention_of
from training.block_recall import layer_scores
from training.config import RunRecord
from training.data import LabelledTexts
from training.errors import RunError
from training.files import write_atomically
from training.finetune import encode
from training.inspect.layers import (
    PERCENTILES,
    QUANTITIES,
    compared_pattern,
    inspect_layers,
    links_of,
    overlap,
)
from training.inspect.pairs import match, outcomes
from training.inspect.pictures import draw_attention, draw_layers, draw_overlap
from training.logits import logits_of
from training.model import label_names_of, load_checkpoint
from training.pattern import AttentionPattern

_MAP_TOKENS = 32  # of the text whose attention is drawn: the longest that is not longer


def inspect_run(
    run: Path,
    data: str,
    out: Path,
    *,
    against: Path | None = None,
    edits: str | None = None,
    sample: int = 100,
    max_tokens: int = 512,
) -> dict[str, Any]:
    """Inspects the run in `run`, and the one in `against`, on at most `sample` texts of `data`.

    `edits` names texts of `data` that were edited so that their label turns. Raises RunError where
    a run is not finished or the two do not fit together, DataError where a file cannot be read.
    """
    record = RunRecord.load(run)
    (texts,) = record.read([data], "validation")
    edited = None if edits is None else record.read([edits], "validation")[0]
    model, tokenizer, pattern = load_checkpoint(run)
    limit = min(max_tokens, model.config.max_position_embeddings)
    order = np.random.default_rng(0).permutation(len(texts))[:sample]
    encoded = encode(texts, tokenizer, limit).input_ids
    ids = [encoded[int(i)] for i in np.sort(order)]
    models = {str(run): model}
    measured = compared_pattern(pattern)
    if against is not None:
        other, other_tokenizer, other_pattern = load_checkpoint(against)
        _require_alike(run, against, model, other, tokenizer, other_tokenizer)
        if edits is not None and label_names_of(model) != label_names_of(other):
            raise RunError(
                f"{run} and {against} differ in their labels: inspect edits of each alone"
            )
        models[str(against)] = other
        if pattern.name != "topk":
            measured = compared_pattern(other_pattern)
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "data": {"name": texts.name, "sha256": texts.sha256, "inspected": len(ids)},
        "kept": str(measured),
        "percentiles": list(PERCENTILES),
        "models": {name: _inspected(each, ids, measured) for name, each in models.items()},
    }
    if against is not None:
        found["overlap"] = overlap(model, other, ids, measured)
        draw_overlap(out / "overlap.png", found["overlap"])
    if edited is not None:
        found["counterfactual"] = {
            name: _flips(each, tokenizer, texts, edited, limit) for name, each in models.items()
        }
    draw_layers(out / "layers.png", {n: each["layers"] for n, each in found["models"].items()})
    drawn = max((each for each in ids if len(each) <= _MAP_TOKENS), key=len, default=ids[0])
    tokens = tokenizer.convert_ids_to_tokens(list(drawn))
    for number, each in enumerate(models.values(), start=1):
        draw_attention(out / f"attention-{number}.png", tokens, _maps(each, drawn))
    write_atomically(out / "inspect.json", json.dumps(found, indent=1) + "\n")
    return found


def _require_alike(
    run: Path,
    against: Path,
    model: DistilBertForSequenceClassification,
    other: DistilBertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    other_tokenizer: PreTrainedTokenizerFast,
) -> None:
    shapes = [(m.config.n_layers, m.config.n_heads) for m in (model, other)]
    if shapes[0] != shapes[1] or tokenizer.get_vocab() != other_tokenizer.get_vocab():
        raise RunError(
            f"{run} and {against} cannot be compared link by link: they differ in layers, heads or "
            "vocabulary"
        )


def _inspected(
    model: DistilBertForSequenceClassification,
    ids: Sequence[Sequence[int]],
    measured: AttentionPattern,
) -> dict[str, Any]:
    layers = inspect_layers(model, ids, measured)
    return {
        "attention": attention_of(model.config).to_dict(),
        "layers": [layer.summary() for layer in layers],
    }


def _flips(
    model: DistilBertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    texts: LabelledTexts,
    edited: LabelledTexts,
    limit: int,
) -> dict[str, Any]:
    pairs = match([e.text for e in texts.examples], [e.text for e in edited.examples])
    if not pairs:
        raise RunError(f"no text of {edited.name} looks like an edit of one of {texts.name}")
    sides = []
    for side, part in enumerate((texts, edited)):
        chosen = [pair[side] for pair in pairs]
        encoded = encode(part, tokenizer, limit)
        predicted = logits_of(model, encoded, progress=part.name).argmax(axis=1)
        sides += [np.asarray(encoded.labels)[chosen], predicted[chosen]]
    return outcomes(*sides).to_dict()


def _maps(model: DistilBertForSequenceClassification, ids: Sequence[int]) -> list[Any]:
    """Attention [L, L] of each layer on one text, mean over the heads."""
    pattern = attention_of(model.config)
    with torch.inference_mode():
        return [
            scores.masked_fill(~links_of(scores, pattern), -torch.inf)
            .softmax(dim=-1)
            .mean(dim=0)
            .numpy()
            for scores in layer_scores(model, ids)
        ]


def print_inspection(found: dict[str, Any]) -> None:
    """Prints the medians by layer, the overlap, and the counterfactual pairs."""
    console = Console(markup=False, emoji=False)
    middle = PERCENTILES.index(50.0)
    for name, model in found["models"].items():
        table = Table(title=f"{name}: medians; kept means {found['kept']}", title_justify="left")
        table.add_column("layer", justify="right")
        for words in QUANTITIES.values():
            table.add_column(words, justify="right")
        for i, layer in enumerate(model["layers"], start=1):
            cells = ["–" if layer[q] is None else f"{layer[q][middle]:.3f}" for q in QUANTITIES]
            table.add_row(str(i), *cells)
        console.print(table)
    if "overlap" in found:
        shares = ", ".join(f"{100 * layer['overlap']:.0f}" for layer in found["overlap"])
        chance = 100 * float(np.mean([layer["chance"] for layer in found["overlap"]]))
        console.print(f"kept links in common, % by layer: {shares} (chance {chance:.0f})")
    for name, pairs in found.get("counterfactual", {}).items():
        parts = [
            f"{words} {100 * pairs[key]['share']:.1f} % ({100 * pairs[key]['low']:.1f} to "
            f"{100 * pairs[key]['high']:.1f}) of {pairs[key]['of']}"
            for key, words in (
                ("flipped", "prediction flips where it should:"),
                ("both_right", "right about both:"),
                ("stayed", "prediction stays where it should:"),
            )
            if key in pairs
        ]
        console.print(f"{name}, {pairs['pairs']} pairs: {'; '.join(parts)}")
