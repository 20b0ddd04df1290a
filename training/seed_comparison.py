"""Two methods, each trained with several seeds, on the same held-out texts: the mean difference of
their accuracy, with intervals.

    python -m training.seed_comparison --first runs/dense-0 --first runs/dense-1 \\
        --second runs/sparse-0 --second runs/sparse-1 --data dev.tsv

In place of a run folder, a file of outcomes will do, such as those of exported models: NumPy's
.npy, bool [N], whether each text of --data was told right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from training.config import RunRecord
from training.data import LabelledTexts, distinct, read_examples
from training.errors import RunError, TrainingError
from training.finetune import encode
from training.logits import logits_of
from training.model import load_checkpoint
from training.statistics import mean_difference_over_seeds


def outcomes(source: Path, texts: LabelledTexts) -> NDArray[np.bool_]:
    """Whether each of `texts` is told right, bool [N], by a run folder or as a .npy file says.

    Raises RunError where `source` is neither, or the file's outcomes are not those of N texts.
    """
    if source.suffix != ".npy":
        model, tokenizer, _ = load_checkpoint(source)
        encoded = encode(texts, tokenizer, model.config.max_position_embeddings)
        logits = logits_of(model, encoded, progress=str(source))
        right: NDArray[np.bool_] = logits.argmax(axis=1) == np.asarray(encoded.labels)
        return right
    try:
        found: NDArray[np.bool_] = np.load(source, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise RunError(f"{source} is no .npy file of outcomes: {error}") from None
    if found.dtype != np.bool_ or found.shape != (len(texts),):
        raise RunError(
            f"{source} holds {found.dtype} {list(found.shape)}; expected bool [{len(texts)}], "
            f"an outcome for each text of {texts.name}"
        )
    return found


def main(
    first: Annotated[list[Path], typer.Option(help="Run folder or .npy file, one a seed.")],
    second: Annotated[list[Path], typer.Option(help="The other method's, in the same order.")],
    data: Annotated[list[str], typer.Option(help="Labelled texts; several times for several.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Prints the accuracy of the first method minus that of the second, mean over the seeds."""
    if len(first) != len(second) or len(first) < 2:
        raise typer.BadParameter(
            f"expected as many of --first as of --second, at least 2; got {len(first)} and "
            f"{len(second)}"
        )
    report = {}
    try:
        folders = [source for source in (*first, *second) if source.suffix != ".npy"]
        records = [RunRecord.load(folder) for folder in folders]
        for folder, record in zip(folders, records, strict=True):
            if record.label_names != records[0].label_names:
                raise RunError(f"{folder} tells other labels apart than {folders[0]}")
        if records:
            sets = records[0].read(data, "validation")
        else:
            sets = distinct(read_examples(source, split="validation") for source in data)
        for texts in sets:
            report[texts.name] = mean_difference_over_seeds(
                [outcomes(source, texts) for source in first],
                [outcomes(source, texts) for source in second],
            )
    except TrainingError as error:
        raise typer.BadParameter(str(error)) from None
    if as_json:
        typer.echo(json.dumps({name: each.to_dict() for name, each in report.items()}, indent=2))
        return
    for name, each in report.items():
        seeds = ", ".join(f"{100 * value:+.2f}" for value in each.by_seed)
        examples, over = each.over_examples, each.over_seeds
        typer.echo(
            f"{name}: {100 * each.value:+.2f} points (by seed {seeds}); 95 % interval over the "
            f"texts {100 * examples.low:+.2f} to {100 * examples.high:+.2f}, over the seeds "
            f"{100 * over.low:+.2f} to {100 * over.high:+.2f}"
        )


if __name__ == "__main__":
    typer.run(main)
