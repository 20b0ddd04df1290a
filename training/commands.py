"""The training commands: `crisp train`, `evaluate`, `narrow`, `prune-search`, `inspect` and
`study`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.options import (
    Density,
    Globals,
    K,
    Prune,
    PruneFloor,
    Size,
    Window,
    pattern_of,
)
from training.study.commands import app as study

if TYPE_CHECKING:
    from training.config import RunRecord


def register(app: typer.Typer) -> None:
    """Adds this stage's commands to `app`."""
    app.command()(train)
    app.command()(evaluate)
    app.command()(narrow)
    app.command()(prune_search)
    app.command("inspect")(inspect)
    app.add_typer(study)


def train(
    data: Annotated[
        list[str],
        typer.Option(
            help="Training texts: a TSV, CSV, JSONL or Parquet file with a text and a label "
            "column, or the name of a data set on the Hugging Face hub. May be given several times."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of this run, e.g. runs/sparse.")],
    dev: Annotated[
        list[str] | None,
        typer.Option(
            help="Held-out texts, measured after each epoch. Several times for several sets. "
            "[default: the hub's validation split, or 5 % of the data]"
        ),
    ] = None,
    base: Annotated[
        str,
        typer.Option(
            help="`minilm` (needs no network), a hub name such as distilbert-base-uncased, or a "
            "folder with a DistilBERT, such as that of a finished run, whose head is kept."
        ),
    ] = "minilm",
    attention: Annotated[
        str,
        typer.Option(
            help="Attention pattern: dense, topk, blocktopk, band or block; bottomk and random are "
            "controls, which cannot be exported."
        ),
    ] = "topk",
    density: Density = None,
    k: K = None,
    window: Window = None,
    size: Size = None,
    globals_: Globals = None,
    prune: Prune = None,
    prune_floor: PruneFloor = 16,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of a finished run, whose predictions are learned beside the labels. "
            "Several times for an ensemble."
        ),
    ] = None,
    teacher_states: Annotated[
        bool,
        typer.Option(
            "--teacher-states",
            help="Learn its hidden states too, layer by layer; for a base of the same depth and "
            "width, such as one that `crisp narrow` made of it.",
        ),
    ] = False,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the new head, the order and the dropout.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 5e-5,
    batch_size: Annotated[int, typer.Option(help="Texts a batch, at most.")] = 32,
    batch_tokens: Annotated[int, typer.Option(help="Padded tokens a batch, at most.")] = 8192,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a text; the rest is cut off.")] = 512,
    attention_dropout: Annotated[float, typer.Option(help="Dropout of attention links.")] = 0.1,
    average_from: Annotated[
        float,
        typer.Option(
            help="Keep the mean of the weights over the training from this share on, e.g. 0.6, "
            "instead of those of the last step (1)."
        ),
    ] = 1.0,
    phase_in: Annotated[
        float,
        typer.Option(
            help="Share of the steps over which the density falls from 1 to that of the attention, "
            "e.g. 0.5, instead of being that from the first step on (0)."
        ),
    ] = 0.0,
    precision: Annotated[
        str, typer.Option(help="fp32, bf16, or auto: bf16 where the hardware multiplies it.")
    ] = "auto",
    text_column: Annotated[
        str | None, typer.Option(help="Column of the texts, where it isn't sentence or text.")
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(
            help="Column of the labels, where it isn't label. Labels are names or numbers; 0 and 1 "
            "alone mean negative and positive."
        ),
    ] = None,
) -> None:
    """Fine-tunes a DistilBERT-architecture classifier with sparse attention.

    Killed at any moment, the same command goes on from its last checkpoint.

    Examples:

        crisp train --data train.tsv --dev dev.tsv --out runs/sparse

        crisp train --data stanfordnlp/sst2 --base distilbert-base-uncased --attention dense
        --out runs/dense

        crisp train --data train.tsv --base runs/dense --teacher runs/dense --epochs 1
        --attention blocktopk --size 64 --prune 0.9,0.7,0.5,0.4,0.3 --learning-rate 3e-5
        --out runs/pruned

        torchrun --nproc-per-node 2 -m crisp train --data train.tsv --out runs/sparse
    """
    from training.config import TrainingSettings
    from training.pruning import TokenPruning

    pattern = pattern_of(attention, density, k, window, size, globals_)
    settings = TrainingSettings(
        data=tuple(data),
        dev=tuple(dev or ()),
        base=base,
        attention=pattern,
        phase_in=phase_in,
        pruning=None if prune is None else TokenPruning.parse(prune, prune_floor),
        teachers=tuple(teacher or ()),
        teacher_states=teacher_states,
        epochs=epochs,
        seed=seed,
        learning_rate=learning_rate,
        batch_size=batch_size,
        batch_tokens=max(batch_tokens, max_tokens),
        max_tokens=max_tokens,
        attention_dropout=attention_dropout,
        average_from=average_from,
        precision=precision,  # type: ignore[arg-type]  # checked by TrainingSettings
        text_column=text_column,
        label_column=label_column,
    )
    quieten()
    from training.finetune import finetune
    from training.run_folder import is_first_process

    record = finetune(settings, out)
    if is_first_process():
        pruned = "" if settings.pruning is None else f", {settings.pruning}"
        typer.echo(f"{out}: {pattern}{pruned}, {record.seconds:.0f} s")
        _print_last(record)


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    data: Annotated[list[str], typer.Option(help="Labelled texts; several times for several.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    split: Annotated[str, typer.Option(help="Split, of a hub data set.")] = "validation",
) -> None:
    """Measures a run: accuracy with its 95 % interval, confusion matrix, loss, calibration error.

    Example:

        crisp evaluate runs/sparse --data dev.tsv
    """
    quieten()
    from training.evaluate import evaluate_run, print_report

    reports = evaluate_run(run, data, split=split)
    print_report(reports, as_json=as_json)


def narrow(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    feed_forward: Annotated[
        str,
        typer.Option(
            help="Width of the feed-forward network of each layer, e.g. "
            '"640,1024,512,512,512,1536" for MiniLM, which has 1536.'
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new run, e.g. runs/narrow.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Texts to learn from; several times for several sets. "
            "[default: the run's training data]"
        ),
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=1, help="Tokens to learn from, in equal shares of each set.")
    ] = 300_000,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over them, for each layer.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the texts and their order.")] = 0,
) -> None:
    """Makes the feed-forward networks of a run narrower, which makes it faster.

    Two thirds of the multiplications of a short text are in them. Neurons are chosen in closed
    form; what is left is fitted, layer by layer, to do what the run does. What it costs in accuracy
    depends on the widths: it is printed. `crisp train --base NARROW --teacher RUN --teacher-states`
    teaches on. Takes minutes. Killed, the same command goes on.

    Example:

        crisp narrow runs/dense --feed-forward 640,1024,512,512,512,1536 --out runs/narrow
    """
    try:
        widths = tuple(int(width) for width in feed_forward.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"expected whole numbers with commas between them, got {feed_forward!r}",
            param_hint="--feed-forward",
        ) from None
    quieten()
    from training.narrow import narrow_run

    record = narrow_run(run, out, widths, data=data or (), tokens=tokens, epochs=epochs, seed=seed)
    typer.echo(f"{out}: feed-forward {feed_forward}, {record.seconds:.0f} s")
    _print_last(record)


def _print_last(record: RunRecord) -> None:
    """Accuracy and loss at the end of a run."""
    if record.history[-1].keys() == {"epoch"}:
        typer.echo(
            "  accuracy: not measured, since the run's held-out texts cannot be found any more; "
            "`crisp evaluate` measures it on others"
        )
    for name, found in record.history[-1].items():
        if name != "epoch":
            typer.echo(f"  {name}: accuracy {found['accuracy']:.4f}, loss {found['loss']:.4f}")


def prune_search(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    data: Annotated[
        list[str],
        typer.Option(
            help="Held-out texts; several times, for short and long texts apart: the schedule has "
            "to hold on each."
        ),
    ],
    within: Annotated[
        float, typer.Option(help="Accuracy that may be lost on each, in percentage points.")
    ] = 0.5,
    sample: Annotated[
        int, typer.Option(help="Texts of each data set, at most, drawn with a fixed seed.")
    ] = 400,
    max_tokens: Annotated[
        int, typer.Option(help="Tokens of a text, at most; never more than the model reads.")
    ] = 512,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write every schedule measured; the same command goes on from there.",
        ),
    ] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw accuracy over cost, a PNG.")
    ] = None,
) -> None:
    """Finds the cheapest token pruning that keeps a run's accuracy, without training it.

    Start the training of `crisp train --prune` from what it prints.

    Example:

        crisp prune-search runs/dense --data short.tsv --data long.tsv --json search.json
    """
    from training.files import output_file

    output, picture = output_file(json_file), output_file(plot, "--plot")
    if picture is not None:
        import matplotlib  # noqa: F401  # now, rather than after the search
    if sample < 1 or within < 0:
        raise typer.BadParameter("expected --sample of at least 1 and --within of at least 0")
    quieten()
    from training.prune_report import search_run

    search_run(run, data, within / 100, sample, max_tokens, output, picture)


def inspect(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    data: Annotated[str, typer.Option(help="Labelled texts.")],
    out: Annotated[Path, typer.Option(help="Folder of the pictures and of inspect.json.")] = Path(
        "results/inspect"
    ),
    against: Annotated[
        Path | None,
        typer.Option(help="Another finished run, such as the dense one, to compare link by link."),
    ] = None,
    counterfactual: Annotated[
        str | None,
        typer.Option(help="Texts of --data, in any order, edited so that their label turns."),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Texts whose attention is measured.")] = 100,
    max_tokens: Annotated[int, typer.Option(min=3, help="Tokens of a text, at most.")] = 512,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Shows how a run attends, layer by layer, and whether edits turn its predictions.

    Entropy and effective number of attended tokens, stability of the softmax (dispersions and
    separation), links in common with another run, and counterfactual pairs.

    Example:

        crisp inspect runs/sparse --data dev.tsv --against runs/dense
    """
    quieten()
    import json

    from training.inspect.report import inspect_run, print_inspection

    found = inspect_run(
        run,
        data,
        out,
        against=against,
        edits=counterfactual,
        sample=sample,
        max_tokens=max_tokens,
    )
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    print_inspection(found)
    typer.echo(f"pictures and inspect.json in {out}")


def quieten() -> None:
    """Keeps the libraries' notices and bars out of our users' terminals."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # It logs each failed request; we report the one failure that matters.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
