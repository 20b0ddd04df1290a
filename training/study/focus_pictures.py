"""The pictures of the Semantic Focus study: curves as medians with quartile bands, and Kaplan–Meier
curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.files import whole_or_not_at_all
from training.study.focus_report import THRESHOLD, times_of

_BAND_AT_MOST = 8  # mechanisms; more bands hide each other
_COLOURS = 10  # of matplotlib, after which they begin anew
_KINDS = ("full", "topk", "bottomk", "random", "band", "block")


def draw(file: Path, title: str, by_mechanism: Mapping[str, Any]) -> None:
    """Writes a PNG: accuracy, loss, and who has not yet reached 95 %."""
    figure = Figure(figsize=(13, 4), dpi=120, layout="constrained")
    accuracy, loss, survival = figure.subplots(1, 3)
    bands = len(by_mechanism) <= _BAND_AT_MOST
    for i, (name, result) in enumerate(by_mechanism.items()):
        style = {"color": f"C{i}"} if len(by_mechanism) <= _COLOURS else _style(name)
        curves = result["curves"]
        _median(accuracy, 100 * np.asarray(curves["held_out_accuracy"]), name, style, bands)
        _median(loss, np.asarray(curves["held_out_loss"]), name, style, bands)
        times, shares = times_of(result).survival()
        last = len(curves["held_out_accuracy"])
        survival.step(
            [0, *times, last],
            [100, *(100 * shares), 100 * (shares[-1] if len(shares) else 1)],
            where="post",
            label=name,
            **style,
        )
    shown = "median and quartiles" if bands else "median"
    accuracy.axhline(100 * THRESHOLD, color="0.8", zorder=0)
    accuracy.set(ylabel="held-out accuracy, %", title=f"accuracy: {shown}")
    loss.set(ylabel="held-out cross-entropy, nats", title=f"loss: {shown}")
    survival.set(ylabel="runs below 95 %, %", title="Kaplan–Meier", ylim=(-3, 103))
    for axes in (accuracy, loss, survival):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    if bands:
        accuracy.legend(fontsize="small")
    else:
        figure.legend(
            *accuracy.get_legend_handles_labels(), loc="outside right upper", fontsize="small"
        )
    figure.suptitle(title)
    save(figure, file)


def _style(name: str) -> dict[str, Any]:
    """The line of one of many mechanisms: colours for kinds, dashes for width 9, and the thicker
    the more global tokens."""
    kind, width, tokens = (*name.split("-"), "", "")[:3]
    return {
        "color": f"C{_KINDS.index(kind)}",
        "linestyle": "--" if width == "9" else "-",
        "linewidth": 1 + 0.5 * int(tokens or 0),
    }


def _median(axes: Axes, curve: Any, name: str, style: dict[str, Any], band: bool) -> None:
    low, middle, high = np.percentile(curve, [25, 50, 75], axis=1)
    epochs = np.arange(1, len(curve) + 1)
    axes.plot(epochs, middle, label=name, **style)
    if band:
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)


def save(figure: Figure, file: Path) -> None:
    with whole_or_not_at_all(file) as temporary:
        # Without the version in it, the same runs make the same file.
        figure.savefig(temporary, format="png", metadata={"Software": None})
