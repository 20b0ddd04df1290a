"""The pictures of `crisp inspect`: quantities and overlap by layer, and one text's attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from training.files import whole_or_not_at_all
from training.inspect.layers import PERCENTILES, QUANTITIES

_LABELS_AT_MOST = 40  # tokens that are written beside a map


def draw_layers(file: Path, layers: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Writes a PNG: each quantity by layer, median and quartiles, for each model by its name."""
    figure = Figure(figsize=(12, 7), dpi=120, layout="constrained")
    for axes, (name, words) in zip(figure.subplots(2, 3).ravel(), QUANTITIES.items(), strict=True):
        for i, (model, summaries) in enumerate(layers.items()):
            known = [n for n, summary in enumerate(summaries) if summary[name] is not None]
            values = np.array([summaries[n][name] for n in known]).reshape(-1, len(PERCENTILES))
            places = [n + 1 for n in known]
            axes.plot(places, values[:, 2], "o-", color=f"C{i}", label=model)
            axes.fill_between(
                places, values[:, 1], values[:, 3], color=f"C{i}", alpha=0.15, linewidth=0
            )
        axes.set(title=words, xlabel="layer")
        axes.grid(alpha=0.3)
        if name == "separation":
            axes.set_yscale("log")
    figure.axes[0].legend()
    _save(figure, file)


def draw_overlap(file: Path, layers: Sequence[Mapping[str, float]]) -> None:
    """Writes a PNG: which share of the kept links two models have in common, by layer."""
    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    places = range(1, len(layers) + 1)
    axes.plot(places, [100 * layer["overlap"] for layer in layers], "o-", label="of both models")
    axes.plot(
        places, [100 * layer["chance"] for layer in layers], "--", color="0.5", label="chance"
    )
    axes.set(xlabel="layer", ylabel="kept links in common, %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, file)


def draw_attention(file: Path, tokens: Sequence[str], attention: Sequence[Any]) -> None:
    """Writes a PNG: who attends to whom in one text, a map [L, L] a layer, mean of the heads."""
    columns = min(3, len(attention))
    rows = -(-len(attention) // columns)
    figure = Figure(figsize=(4.5 * columns, 4.2 * rows), dpi=120, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for layer, (axes, values) in enumerate(zip(panels, attention, strict=False), start=1):
        axes.imshow(values, cmap="viridis", vmin=0)
        axes.set_title(f"layer {layer}")
        if len(tokens) <= _LABELS_AT_MOST:
            axes.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=5)
            axes.set_yticks(range(len(tokens)), tokens, fontsize=5)
    for axes in panels[len(attention) :]:
        axes.set_axis_off()
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    with whole_or_not_at_all(file) as temporary:
        figure.savefig(temporary, format="png")
