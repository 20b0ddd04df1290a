"""Bases of others: what is incomplete or odd is refused in one line, what is usual is obeyed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_tsv
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from training import hub
from training.config import TrainingSettings
from training.data import read_examples
from training.errors import BaseModelError, RunError
from training.finetune import encode, finetune
from training.model import load_base, load_checkpoint
from training.pattern import AttentionPattern

NAMES = ("negative", "positive")


@pytest.fixture
def mine(base: Path, tmp_path: Path) -> Path:
    """A copy of the tiny base, to change."""
    return Path(shutil.copytree(base, tmp_path / "mine"))


def configured(folder: Path, **values: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


def renamed(folder: Path, rename: Callable[[str], str]) -> Path:
    file = folder / "model.safetensors"
    weights = {rename(name): weight for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def without(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).unlink(missing_ok=True)
    return folder


def load(folder: Path) -> Any:
    return load_base(str(folder), NAMES, AttentionPattern())


TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: configured(f, max_position_embeddings=48),
            "1 of the encoder's weights.*position",
        ),
        (lambda f: configured(f, vocab_size=64), "1 of the encoder's weights.*word_embeddings"),
        (lambda f: configured(f, n_layers=3), r"16 of the encoder's weights.*layer\.2\."),
        (lambda f: renamed(f, lambda name: f"module.{name}"), "36 of the encoder's weights"),
        (lambda f: without(f, *TOKENIZER_FILES), "no tokenizer: neither tokenizer.json nor vocab"),
        (lambda f: configured(f, activation="relu"), "activation 'relu'; crisp exports gelu only"),
        (lambda f: configured(f, n_heads="two"), "cannot load base.*n_heads"),
        (lambda f: (f / "model.safetensors").write_text("version https://git-lfs"), "cannot load"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "cannot load base"),
    ],
)
def test_what_is_wrong_with_a_base_is_one_line(
    mine: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    spoil(mine)
    with pytest.raises(BaseModelError, match=message) as refused:
        load(mine)
    assert "\n" not in str(refused.value)


def tokenizer_file(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return folder


def test_a_tokenizer_without_special_tokens_is_refused(mine: Path) -> None:
    tokenizer_file(mine, lambda content: content.update(post_processor=None))
    with pytest.raises(BaseModelError, match="adds no special tokens"):
        load(mine)


def test_a_tokenizer_of_more_tokens_than_embeddings_is_refused(mine: Path) -> None:
    tokenizer_file(mine, lambda content: content["model"]["vocab"].update(extra=500))
    with pytest.raises(
        BaseModelError, match=r"has a token 500, the model embeddings up to \d+ only"
    ):
        load(mine)


def test_a_tokenizer_is_obeyed_whatever_lies_beside_it(mine: Path) -> None:
    """AutoTokenizer would make a BertTokenizer of it, which lower-cases and strips accents."""
    words = ["<pad>", "<unk>", "<cls>", "<sep>", "Café", "cafe", "film"]
    cased = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    cased.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    cased.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cased.post_processor = processors.TemplateProcessing(
        single="<cls> $A <sep>", special_tokens=[("<cls>", 2), ("<sep>", 3)]
    )
    without(mine, *TOKENIZER_FILES)
    cased.save(str(mine / "tokenizer.json"))
    _, tokenizer = load(mine)
    assert tokenizer("Café cafe film").input_ids == [2, 4, 5, 6, 3]


def test_a_vocabulary_alone_is_a_bert_tokenizer(mine: Path, base: Path) -> None:
    vocabulary = AutoTokenizer.from_pretrained(base).get_vocab()
    without(mine, *TOKENIZER_FILES)
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    words[words.index("bit")] = "[MASK]"  # which BERT has
    (mine / "vocab.txt").write_text("\n".join(words))
    _, tokenizer = load(mine)
    assert tokenizer("GOOD film").input_ids == load(base)[1]("good film").input_ids


@pytest.mark.parametrize("place", ["tokenizer.json", "tokenizer_config.json"])
def test_texts_are_cut_at_their_end_as_the_service_cuts(mine: Path, place: str) -> None:
    if place == "tokenizer.json":
        cut = {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
        tokenizer_file(mine, lambda content: content.update(truncation=cut))
    else:
        file = mine / place
        file.write_text(json.dumps(json.loads(file.read_text()) | {"truncation_side": "left"}))
    _, tokenizer = load(mine)
    texts = write_tsv(mine / "texts.tsv", [("good bad film film film", 1)])
    (ids,) = encode(read_examples(texts), tokenizer, 4).input_ids
    assert ids == tokenizer("good bad").input_ids


def test_outputs_that_a_base_was_saved_with_do_not_disturb(mine: Path, train_tsv: Path) -> None:
    configured(mine, output_hidden_states=True, output_attentions=True, return_dict=False)
    configured(mine, chunk_size_feed_forward=16)
    out = mine.parent / "run"
    data = (str(train_tsv),)
    finetune(
        TrainingSettings(data=data, base=str(mine), epochs=1, max_tokens=24, precision="fp32"), out
    )
    model, tokenizer, _ = load_checkpoint(out)
    assert model(**tokenizer(["good"], return_tensors="pt")).logits.shape == (1, 2)


def test_a_damaged_run_is_one_line(mine: Path) -> None:
    configured(mine, crisp_attention={"name": "dense"})
    load_checkpoint(mine)
    for spoil, message in (
        (lambda: configured(mine, n_layers=3), "16 of the encoder's weights"),
        (lambda: (mine / "model.safetensors").write_bytes(b"\0" * 20), "or is damaged: "),
        (lambda: (mine / "config.json").write_text("{"), "or is damaged: "),
    ):
        spoil()
        with pytest.raises(RunError, match=message) as refused:
            load_checkpoint(mine)
        assert "\n" not in str(refused.value)


def test_a_model_in_the_hubs_cache_needs_no_network(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    cached = tmp_path / "models--someone--tiny"
    shutil.copytree(base, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "hub_is_reachable", lambda: False)
    model, tokenizer = load_base("someone/tiny", NAMES, AttentionPattern())
    expected, _ = load(base)
    inputs = tokenizer(["good film"], return_tensors="pt")
    with torch.inference_mode():
        torch.testing.assert_close(model(**inputs).logits, expected(**inputs).logits)
