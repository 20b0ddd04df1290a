"""The learning curves of the Crisp Attention study: mean over the seeds, and their range where few
settings are beside each other."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.study.focus_pictures import save
from training.study.tuning_report import Group

_BANDS_AT_MOST = 5  # settings; more hide each other


def draw(file: Path, title: str, group: Group, dev: str) -> None:
    """Writes a PNG: accuracy and loss after each epoch, held-out and on training texts."""
    figure = Figure(figsize=(13, 4), dpi=120, layout="constrained")
    colors = matplotlib.colormaps["tab10" if len(group) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    panels = figure.subplots(1, 2)
    for i, (name, runs) in enumerate(group.items()):
        color = colors[i % len(colors)]
        for axes, key, scale in zip(panels, ("accuracy", "loss"), (100, 1), strict=True):
            for kind, style in ((dev, "-"), (_train_name(runs[0]["history"][0]), ":")):
                curves = scale * np.array(
                    [[epoch[kind][key] for epoch in run["history"]] for run in runs]
                )
                epochs = np.arange(1, curves.shape[1] + 1)
                label = name if kind == dev else None
                axes.plot(epochs, curves.mean(axis=0), style, color=color, label=label)
                if kind == dev and len(group) <= _BANDS_AT_MOST:
                    low, high = curves.min(axis=0), curves.max(axis=0)
                    axes.fill_between(epochs, low, high, color=color, alpha=0.12, linewidth=0)
    for axes, label in zip(panels, ("accuracy, %", "cross-entropy, nats"), strict=True):
        axes.set(xlabel="epoch", ylabel=label, title="solid: held-out; dotted: training")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    figure.suptitle(title, fontsize="medium")
    save(figure, file)


def _train_name(epoch: dict[str, object]) -> str:
    return next(name for name in epoch if name.startswith("train"))
