"""Operations by length and density, and at which length the paper's 20 % a layer is reached."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from training.cost import EncoderShape
from training.pattern import AttentionPattern
from training.study.flops import Counting, layer_flops, length_for_saving, saving
from training.study.focus_pictures import save
from training.study.markdown import table

SHAPES = {
    "DistilBERT": EncoderShape(layers=6, hidden=768, feed_forward=3072),
    "MiniLM": EncoderShape(layers=6, hidden=384, feed_forward=1536),
}
LENGTHS = (25, 64, 128, 256, 512, 1024, 2048, 4096)
DENSITIES = (1.0, 0.5, 0.3, 0.2, 0.1)
CLAIM = 0.2  # of a layer, at 80 % sparsity
_COUNTINGS: dict[Counting, str] = {
    "computed": "all scores computed, then dropped",
    "kept": "only kept links counted",
}


def report() -> str:
    """Tables of components, savings, and the length at which a fifth is saved."""
    parts = ["### Components of a dense layer\n", _components()]
    parts += ["### What top-k saves of a layer, %\n", _savings()]
    parts += [f"### From which length on density 0.2 saves {CLAIM:.0%} of a layer\n", _claim()]
    return "\n".join(parts)


def _components() -> str:
    rows = []
    for name, shape in SHAPES.items():
        for length in LENGTHS:
            found = layer_flops(length, shape, AttentionPattern("dense"))
            parts = (found.projections, found.scores, found.softmax, found.values)
            shares = [f"{100 * part / found.total:.1f}" for part in (*parts, found.feed_forward)]
            total = found.total / 1e9
            rows.append([name, str(length), *shares, f"{total:.3f}", f"{shape.layers * total:.2f}"])
    header = ["model", "tokens", "projections, %", "scores, %", "softmax, %", "values, %"]
    header += ["feed-forward, %", "GFLOP a layer", "GFLOP, 6 layers"]
    return table(header, rows)


def _savings() -> str:
    rows = []
    for name, shape in SHAPES.items():
        for counting, words in _COUNTINGS.items():
            for density in DENSITIES[1:]:
                pattern = AttentionPattern("topk", density=density)
                cells = [f"{100 * saving(n, shape, pattern, counting):.1f}" for n in LENGTHS]
                rows.append([f"{name}, density {density:g}, {words}", *cells])
    return table(["tokens", *map(str, LENGTHS)], rows)


def _claim() -> str:
    pattern = AttentionPattern("topk", density=0.2)
    rows = [
        [name, *(str(length_for_saving(CLAIM, shape, pattern, each)) for each in _COUNTINGS)]
        for name, shape in SHAPES.items()
    ]
    return table(["model", *(f"tokens, {words}" for words in _COUNTINGS.values())], rows)


def draw(file: Path) -> None:
    """Writes a PNG: the saving by length, a panel a way of counting."""
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    lengths = np.unique(np.geomspace(8, 16384, 60).astype(int))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (counting, words) in zip(panels, _COUNTINGS.items(), strict=True):
        for i, density in enumerate(DENSITIES[1:]):
            pattern = AttentionPattern("topk", density=density)
            for (name, shape), style in zip(SHAPES.items(), ("-", "--"), strict=True):
                saved = [100 * saving(int(n), shape, pattern, counting) for n in lengths]
                axes.plot(lengths, saved, style, color=f"C{i}", label=f"{name}, {density:g}")
        axes.axhline(100 * CLAIM, color="0.7", zorder=0)
        axes.set(xscale="log", xlabel="tokens", title=words)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("saved of a layer's operations, %")
    panels[0].legend(fontsize="x-small")
    save(figure, file)
