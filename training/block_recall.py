"""What block selection misses: how many of the strongest links, and how much of the attention, fall
into the blocks that `blocktopk` chooses, layer by layer.

    python -m training.block_recall runs/dense --data long.tsv --density 0.2 --size 64

The model runs with dense attention (and without pruning), so that every layer sees what it saw in
training; its scores are what blocks, and exact top-k at the same density, are then chosen from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm
from transformers import DistilBertForSequenceClassification
from transformers.models.distilbert.modeling_distilbert import TransformerBlock

from training.attention.blocktopk import blocktopk_links
from training.attention.registry import set_attention
from training.attention.topk import topk_links
from training.config import RunRecord
from training.errors import TrainingError
from training.finetune import encode
from training.model import load_checkpoint
from training.pattern import AttentionPattern


@dataclass(frozen=True)
class Recall:
    """Means over heads and queries, as shares of 1."""

    computed: float  # of all links: those in the chosen blocks
    topk: float  # of the links that exact top-k keeps: those in the chosen blocks
    mass: float  # of dense attention: what falls into the chosen blocks
    topk_mass: float  # of dense attention: what falls on exact top-k


def recall(scores: Tensor, blocks: AttentionPattern) -> Recall:
    """What `blocks`, a blocktopk pattern by density, gets of one text's scores [heads, L, L]."""
    valid = torch.ones(1, scores.shape[-1], dtype=torch.bool)
    chosen = blocktopk_links(scores[None], valid, blocks)
    exact = topk_links(scores[None], valid, AttentionPattern("topk", density=blocks.density))
    attention = scores[None].double().softmax(dim=-1)
    return Recall(
        computed=float(chosen.double().mean()),
        topk=float((chosen & exact).sum() / exact.sum()),
        mass=float((attention * chosen).sum(dim=-1).mean()),
        topk_mass=float((attention * exact).sum(dim=-1).mean()),
    )


def layer_scores(
    model: DistilBertForSequenceClassification, ids: Sequence[int]
) -> Iterator[Tensor]:
    """The scaled scores of each layer, [heads, L, L], of one text; `model` attends densely."""
    hidden = model.distilbert.embeddings(torch.tensor([ids]))
    for layer in model.distilbert.transformer.layer:
        assert isinstance(layer, TransformerBlock)
        attention = layer.attention
        query, key = (
            linear(hidden[0]).unflatten(-1, (attention.n_heads, -1)).transpose(0, 1)
            for linear in (attention.q_lin, attention.k_lin)
        )
        yield query @ key.transpose(-1, -2) * attention.scaling
        hidden = layer(hidden)


def main(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    data: Annotated[str, typer.Option(help="Labelled texts; long ones tell most.")],
    density: Annotated[float, typer.Option(help="Share of the blocks, and of the links.")] = 0.2,
    size: Annotated[int, typer.Option(help="Tokens a block.")] = 64,
    lengths: Annotated[
        str, typer.Option(help="Tokens that texts are cut to, by comma; shorter ones are left out.")
    ] = "128,256,512",
    sample: Annotated[int, typer.Option(help="Texts of each length, at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Prints the recall of blocktopk against exact top-k and dense attention."""
    try:
        blocks = AttentionPattern("blocktopk", density=density, size=size)
        rows = _measure(run, data, blocks, _numbers(lengths), sample)
    except TrainingError as error:
        raise typer.BadParameter(str(error)) from None
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table(title=f"{blocks}, % (means over texts, heads and queries)", title_justify="left")
    columns = ("tokens", "texts", "layer", "links computed", "of top-k", "of attention", "top-k's")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        facts = [f"{100 * row[name]:.1f}" for name in ("computed", "topk", "mass", "topk_mass")]
        table.add_row(*(str(row[name]) for name in ("tokens", "texts", "layer")), *facts)
    Console(markup=False, emoji=False).print(table)


def _numbers(lengths: str) -> list[int]:
    try:
        return [int(length) for length in lengths.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"--lengths takes numbers, such as 128,512, got {lengths!r}"
        ) from None


def _measure(
    run: Path, data: str, blocks: AttentionPattern, lengths: Sequence[int], sample: int
) -> list[dict[str, float]]:
    (texts,) = RunRecord.load(run).read([data], "validation")
    model, tokenizer, _ = load_checkpoint(run)
    set_attention(model.config, AttentionPattern())
    rows = []
    for length in lengths:
        limit = min(length, model.config.max_position_embeddings)
        whole = [ids for ids in encode(texts, tokenizer, limit).input_ids if len(ids) == length]
        order = np.random.default_rng(0).permutation(len(whole))[:sample]
        found = []
        with torch.inference_mode():
            for i in tqdm(order, desc=f"{length} tokens", unit="text"):
                scores = layer_scores(model, whole[int(i)])
                found.append([list(asdict(recall(each, blocks)).values()) for each in scores])
        if found:
            names = Recall.__dataclass_fields__
            for layer, means in enumerate(np.mean(found, axis=0)):
                facts = dict(zip(names, map(float, means), strict=True))
                rows.append({"tokens": length, "texts": len(found), "layer": layer} | facts)
    return rows


if __name__ == "__main__":
    typer.run(main)
