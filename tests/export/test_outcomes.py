"""Whether a model folder tells each text right: as torch does, of every precision, on a CPU."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from bench_models import classifier, write_folder
from numpy.typing import NDArray
from typer.testing import CliRunner

from export.outcomes import main, outcomes
from training.data import read_examples
from training.pattern import AttentionPattern

DENSE = AttentionPattern("dense")
LIMIT = 24  # tokens that the model reads
SEED = 18  # of one that names both labels
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, int]]:
    """Texts of 1 to 60 letters in no order of length, with labels at random."""
    draw = random.Random(0)
    texts = []
    for i in range(60):
        letters = "".join(draw.choices(LETTERS + " ", k=i)) + draw.choice(LETTERS)
        texts.append((letters.upper() if i % 7 == 0 else letters, draw.randint(0, 1)))
    draw.shuffle(texts)
    return texts


@pytest.fixture(scope="module")
def data(rows: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "dev.tsv"
    lines = [f"{text}\t{label}" for text, label in rows]
    file.write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")
    return file


def tokens(text: str, limit: int | None) -> list[int]:
    """What the tokenizer of `bench_models` makes of letters: those that begin a word come after
    those that go on; [CLS] is 2 and [SEP] 3."""
    found = []
    for word in text.lower().split():
        numbers = [4 + LETTERS.index(letter) for letter in word]
        found += [numbers[0] + len(LETTERS), *numbers[1:]]
    return [2, *found[: None if limit is None else limit - 2], 3]


def margins(rows: list[tuple[str, int]], limit: int) -> NDArray[np.float32]:
    """By how much torch's logit of a text's label exceeds the other, text by text: float [N]."""
    model = classifier(SEED, max_position_embeddings=LIMIT)
    found = []
    with torch.inference_mode():
        for text, label in rows:
            logits = model(torch.tensor([tokens(text, limit)])).logits[0]
            found.append(float(logits[label] - logits[1 - label]))
    return np.array(found, dtype=np.float32)


@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-3), ("fp16", 0.05), ("int8", 0.5)])
def test_the_outcomes_are_those_of_torch(
    precision: str, near: float, rows: list[tuple[str, int]], data: Path, tmp_path: Path
) -> None:
    """Of all texts that are not as good as a tie to torch, some of them cut off."""
    model = classifier(SEED, max_position_embeddings=LIMIT)
    folder = write_folder(tmp_path / "model", model, DENSE, precision)
    found = outcomes(folder, read_examples(data))
    expected = margins(rows, LIMIT)
    sure = np.abs(expected) > near
    assert found.dtype == bool
    assert found.shape == (60,)
    assert np.array_equal(found[sure], expected[sure] > 0)

    assert sure.sum() >= 30
    assert 10 <= (expected[sure] > 0).sum() <= sure.sum() - 10
    long = np.array([len(tokens(text, None)) > LIMIT for text, _ in rows])
    assert (sure & long).sum() >= 15
    # Where a text is cut off decides about some of them.
    shorter = margins(rows, LIMIT - 1)
    assert ((shorter > 0) != (expected > 0))[sure & long].any()


def test_on_the_command_line_the_labels_are_those_of_the_model(
    rows: list[tuple[str, int]], data: Path, tmp_path: Path
) -> None:
    app = typer.Typer()
    app.command()(main)
    model = classifier(SEED, max_position_embeddings=LIMIT)
    folder = write_folder(tmp_path / "model", model, DENSE)
    expected = margins(rows, LIMIT) > 0
    # One label alone, by its name: only the model knows that it is the second.
    name, only = tmp_path / "one.tsv", [i for i, (_, label) in enumerate(rows) if label == 1]
    lines = [f"{rows[i][0]}\tPositive" for i in only]
    name.write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")
    for file, right in ((data, expected), (name, expected[only])):
        argv = [str(folder.path), "--data", str(file), "--out", str(tmp_path / "right.npy")]
        shown = CliRunner().invoke(app, argv)
        assert shown.exit_code == 0, shown.output
        assert np.array_equal(np.load(tmp_path / "right.npy"), right)
        assert f"{100 * right.mean():.2f} % of {len(right)} texts" in shown.stdout
    name.write_text("sentence\tlabel\nfine\tham\n")
    shown = CliRunner().invoke(app, argv)
    assert shown.exit_code == 2
    assert "unknown label 'ham'; known: negative, positive" in shown.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"model", "one.tsv", "right.npy"}
