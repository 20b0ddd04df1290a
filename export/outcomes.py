"""Whether a model folder tells each text of a data set right: bool [N], as a .npy file.

`training/seed_comparison.py` compares several of these, or of run folders, over seeds:

    python -m export.outcomes models/sparse-0 --data dev.tsv --out sparse-0.npy
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from tokenizers import Tokenizer

from export.errors import ExportError
from export.gpu import suited
from export.manifest import ModelFolder
from export.op_library import find_op_library
from export.parity import onnx_logits
from training.data import LabelledTexts, read_examples
from training.errors import TrainingError


def outcomes(folder: ModelFolder, texts: LabelledTexts) -> NDArray[np.bool_]:
    """bool [N], in the order of the texts."""
    tokenizer = Tokenizer.from_file(str(folder.tokenizer))
    tokenizer.no_padding()
    tokenizer.enable_truncation(folder.manifest.max_tokens)
    encodings = tokenizer.encode_batch([example.text for example in texts.examples])
    logits = onnx_logits(
        folder.model,
        [e.ids for e in encodings],
        progress=texts.name,
        library=suited(find_op_library(), folder.manifest.precision),
        precision=folder.manifest.precision,
    )
    labels = np.array([example.label for example in texts.examples])
    right: NDArray[np.bool_] = logits.argmax(axis=1) == labels
    return right


def main(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    data: Annotated[str, typer.Option(help="Labelled texts.")],
    out: Annotated[Path, typer.Option(help="The .npy file to write.")],
) -> None:
    """Writes whether the model tells each text right, and prints its accuracy."""
    try:
        folder = ModelFolder.load(model)
        texts = read_examples(data, split="validation", label_names=folder.manifest.labels)
        right = outcomes(folder, texts)
    except (ExportError, TrainingError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    temporary = out.with_name(f".{out.name}.tmp")
    with temporary.open("wb") as file:
        np.save(file, right)
    temporary.replace(out)
    typer.echo(f"{model}: {100 * right.mean():.2f} % of {len(right)} texts of {texts.name}")


if __name__ == "__main__":
    typer.run(main)
