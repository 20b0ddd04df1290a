"""A tiny DistilBERT to fine-tune, and texts of our own that it can learn in seconds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

WORDS = ("this", "that", "film", "book", "meal", "was", "and", "very", "so", "a", "bit")
GOOD, BAD = ("good", "great", "warm", "fine"), ("bad", "dull", "cold", "awful")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random DistilBERT of two layers and its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import (
        DistilBertConfig,
        DistilBertForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    folder = tmp_path_factory.mktemp("base")
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *WORDS, *GOOD, *BAD))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(vocabulary),
        max_position_embeddings=24,
        dim=16,
        hidden_dim=32,
        n_layers=2,
        n_heads=2,
        initializer_range=0.2,
    )
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    return folder


def sentences(n: int, seed: int) -> list[tuple[str, int]]:
    """`n` texts whose last word decides their label."""
    draw = random.Random(seed)
    rows = []
    for i in range(n):
        words = draw.choices(WORDS, k=draw.randint(1, 14))
        rows.append((" ".join([*words, draw.choice((BAD, GOOD)[i % 2])]), i % 2))
    return rows


def write_tsv(file: Path, rows: list[tuple[str, int]]) -> Path:
    lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def train_tsv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tsv(tmp_path_factory.mktemp("data") / "train.tsv", sentences(240, 1))


@pytest.fixture(scope="session")
def dev_tsv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tsv(tmp_path_factory.mktemp("data") / "dev.tsv", sentences(40, 2))
