"""Results of both studies, made up so that every figure of a report is known."""

from __future__ import annotations

from typing import Any

ENVIRONMENT = {"processor": "a processor", "cores": 2, "versions": {"torch": "2"}}
TEXTS = 200


def focus_result(mechanism: str, arrival: list[int | None], slope: float) -> dict[str, Any]:
    """A run of six epochs whose seeds reach 95 % in the epochs of `arrival`."""
    accuracy = [
        [1.0 if epoch is not None and e >= epoch else 0.5 for epoch in arrival] for e in range(1, 7)
    ]
    others = {
        "heavy_dispersion": [1.0, 2.0, 3.0, 4.0],
        "separation": [0.5, 0.25, 0.1, 1e-6],
        "relative_degree": [1.0, 2.0, 3.0, 3.5],
    }
    stability = [
        {
            "rows": 100 if i else 300,
            "percentiles": others | {"dispersion": [8.0 + (i - 2) ** 3, 9.0, 10.0, 20.0]},
            "condition": 0.2 if i else 0.3,
            "in_degree": 0.125,
        }
        for i in range(len(arrival))
    ]
    slopes = [[1.0, 2.0, slope + 0.01 * i, 9.0] for i in range(len(arrival))]
    return {
        "study": "semantic-focus",
        "name": f"parity_{mechanism}",
        "settings": {
            "task": "parity",
            "mechanism": mechanism,
            "length": 12,
            "blocks": 2,
            "train": 100,
            "epochs": 6,
            "seeds": list(range(len(arrival))),
        },
        "chance": 0.51,
        "curves": {
            "held_out_accuracy": accuracy,
            "held_out_loss": accuracy,
            "train_loss": [[1.0 - value for value in epoch] for epoch in accuracy],
        },
        "stability": {
            "kept": "topk(k=5)",
            "by_seed": stability,
        },
        "landscape": {"percentiles": [50.0, 90.0, 99.0, 100.0], "slopes": slopes},
        "seconds": 1800.0,
        "environment": ENVIRONMENT,
    }


def tuning_result(
    name: str, seed: int, right: int, pattern: dict[str, Any], dropout: float = 0.1
) -> dict[str, Any]:
    """A run that is right about the first `right` texts."""
    outcome = {
        "accuracy": right / TEXTS,
        "loss": 0.4,
        "right": "1" * right + "0" * (TEXTS - right),
    }
    sparse = outcome | {"right": "0" + outcome["right"][1:]}
    epoch = {"accuracy": 0.9, "loss": 0.3}
    return {
        "study": "crisp-attention",
        "name": f"{name}_seed{seed}",
        "settings": {
            "base": "minilm",
            "data": "train.tsv",
            "dev": ["dev.tsv"],
            "fraction": 0.1,
            "epochs": 2,
            "learning_rate": 5e-5,
            "batch_size": 32,
            "max_tokens": 64,
            "attention": pattern,
            "attention_dropout": dropout,
            "seed": seed,
            "inference": [],
            "keep_weights": False,
        },
        "texts": 692,
        "history": [{"epoch": i, "dev.tsv": epoch, "train (sample)": epoch} for i in (1, 2)],
        "train": {"accuracy": 0.95, "loss": 0.1, "right": ""},
        "dev": {"dev.tsv": outcome},
        "inference": {"topk(density=0.2)": {"dev.tsv": sparse}} if name == "dense" else {},
        "seconds": 60.0,
        "environment": ENVIRONMENT,
    }


FOCUS = [
    focus_result("full", [4, 5, 6, None, None], 9.0),
    focus_result("topk-5", [1, 1, 2, 2, 3], 3.0),
    focus_result("band-5", [None] * 5, 9.0),
]
TUNING = [
    *(tuning_result("dense", seed, 180 + seed, {"name": "dense"}) for seed in range(3)),
    *(tuning_result("drop", seed, 184, {"name": "dense"}, 0.3) for seed in range(3)),
    *(tuning_result("topk", s, 190 + 2 * s, {"name": "topk", "density": 0.2}) for s in range(3)),
]


def cells(markdown: str, first: str) -> list[str]:
    """The cells of the row of a Markdown table that starts with `first`."""
    (line,) = [line for line in markdown.split("\n") if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]
