"""The head of a base is kept where it is for the same labels, row by row, and only there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from training.model import load_base
from training.pattern import AttentionPattern


@pytest.fixture
def emotions(base: Path, tmp_path: Path) -> Path:
    """A base with a head for three labels, in an order of its own, and for several at once."""
    names = ["sadness", "Joy", "love"]
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=3, ignore_mismatched_sizes=True
    )
    torch.nn.init.normal_(model.classifier.bias)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: i for i, name in enumerate(names)}
    model.config.problem_type = "multi_label_classification"
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
    return tmp_path


def head(folder: Path, names: Sequence[str], seed: int = 0) -> tuple[Tensor, Tensor]:
    model, _ = load_base(str(folder), names, AttentionPattern(), seed=seed)
    assert list(model.config.id2label.values()) == list(names)
    return model.classifier.weight.detach(), model.classifier.bias.detach()


def kept(folder: Path) -> tuple[Tensor, Tensor]:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return model.classifier.weight.detach(), model.classifier.bias.detach()


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (("sadness", "joy", "love"), [0, 1, 2]),
        (("joy", "love", "Sadness"), [1, 2, 0]),
        (("joy", "sadness", "love"), [1, 0, 2]),
    ],
)
def test_rows_go_to_the_labels_of_their_name(
    emotions: Path, names: tuple[str, ...], rows: list[int]
) -> None:
    weight, bias = kept(emotions)
    found = head(emotions, names)
    assert torch.equal(found[0], weight[rows])
    assert torch.equal(found[1], bias[rows])


@pytest.mark.parametrize("names", [("ham", "spam", "eggs"), ("sadness", "joy", "fear"), ("a", "b")])
def test_a_head_for_other_labels_is_drawn_anew(emotions: Path, names: tuple[str, ...]) -> None:
    weight, bias = head(emotions, names)
    assert not bias.any()
    assert weight.std() == pytest.approx(0.2, rel=0.3)  # the base's initializer_range
    for row in weight:
        assert not any(torch.equal(row, other) for other in kept(emotions)[0])
    assert torch.equal(weight, head(emotions, names)[0])
    assert not torch.equal(weight, head(emotions, names, seed=1)[0])


def test_a_head_without_names_is_kept(base: Path) -> None:
    assert json.loads((base / "config.json").read_text()).get("id2label") is None
    assert torch.equal(head(base, ("negative", "positive"))[0], kept(base)[0])


def test_sentiments_are_the_same_in_other_words(emotions: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(
        emotions, num_labels=2, ignore_mismatched_sizes=True
    )
    model.config.id2label, model.config.label2id = {0: "POS", 1: "NEG"}, {"POS": 0, "NEG": 1}
    model.save_pretrained(emotions)
    found = head(emotions, ("negative", "positive"))[0]
    assert torch.equal(found, kept(emotions)[0][[1, 0]])


def test_a_base_for_several_labels_at_once_is_trained_for_one(emotions: Path) -> None:
    model, tokenizer = load_base(str(emotions), ("sadness", "joy", "love"), AttentionPattern())
    inputs = tokenizer(["good", "bad"], return_tensors="pt")
    found = model(**inputs, labels=torch.tensor([2, 0]))
    expected = torch.nn.functional.cross_entropy(found.logits, torch.tensor([2, 0]))
    assert found.loss.item() == pytest.approx(expected.item())
