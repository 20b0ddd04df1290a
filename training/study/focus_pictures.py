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


def draw(file: Path, title: str, by_mechanism: Mapping[str, Any]) -> None:
    """Writes a PNG: accuracy, loss, and who has not yet reached 95 %."""
    figure = Figure(figsize=(13, 4), dpi=120, layout="constrained")
    accuracy, loss, survival = figure.subplots(1, 3)
    bands = len(by_mechanism) <= _BAND_AT_MOST
    for i, (name, result) in enumerate(by_mechanism.items()):
        color = f"C{i % 10}"
        curves = result["curves"]
        _median(accuracy, 100 * np.asarray(curves["held_out_accuracy"]), name, color, bands)
        _median(loss, np.asarray(curves["held_out_loss"]), name, color, bands)
        times, shares = times_of(result).survival()
        last = len(curves["held_out_accuracy"])
        survival.step(
            [0, *times, last],
            [100, *(100 * shares), 100 * (shares[-1] if len(shares) else 1)],
            where="post",
            color=color,
            label=name,
        )
    accuracy.axhline(100 * THRESHOLD, color="0.8", zorder=0)
    accuracy.set(ylabel="held-out accuracy, %", title="accuracy: median and quartiles")
    loss.set(ylabel="held-out cross-entropy, nats", title="loss: median and quartiles")
    survival.set(ylabel="runs below 95 %, %", title="Kaplan–Meier", ylim=(-3, 103))
    for axes in (accuracy, loss, survival):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    accuracy.legend(fontsize="small")
    figure.suptitle(title)
    save(figure, file)


def _median(axes: Axes, curve: Any, name: str, color: str, band: bool) -> None:
    low, middle, high = np.percentile(curve, [25, 50, 75], axis=1)
    epochs = np.arange(1, len(curve) + 1)
    axes.plot(epochs, middle, color=color, label=name)
    if band:
        axes.fill_between(epochs, low, high, color=color, alpha=0.15, linewidth=0)


def save(figure: Figure, file: Path) -> None:
    with whole_or_not_at_all(file) as temporary:
        # Without the version in it, the same runs make the same file.
        figure.savefig(temporary, format="png", metadata={"Software": None})
