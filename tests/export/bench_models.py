"""Model folders as small as the optimizer still fuses, with 512 positions, for the benchmark."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from export import manifest
from export.graph import packed_graph
from export.half import to_half
from export.manifest import ModelFolder
from export.model_folder import weights_of
from export.quantize import quantize
from training.pattern import AttentionPattern


def classifier(seed: int = 0, **settings: int) -> DistilBertForSequenceClassification:
    """Two layers, 64 wide, random; the weights are large enough that a lost mask would show."""
    torch.manual_seed(seed)
    shape = {"vocab_size": 100, "dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 4}
    config = DistilBertConfig(**{**shape, **settings}, initializer_range=0.2)
    config._attn_implementation = "eager"
    model = DistilBertForSequenceClassification(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def write_tokenizer(file: Path, vocabulary: int) -> None:
    """A tokenizer whose pieces are single letters: 56 of them, special ones included."""
    words = {f"##{letter}": 4 + i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    words |= {letter: 4 + len(words) + i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    special = {name: i for i, name in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]"))}
    assert len(special) + len(words) <= vocabulary
    tokenizer = Tokenizer(models.WordPiece({**special, **words}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(file))


def write_folder(
    path: Path,
    model: DistilBertForSequenceClassification,
    pattern: AttentionPattern,
    precision: str = "fp32",
) -> ModelFolder:
    """The model folder of `model`, by the real exporter's parts."""
    path.mkdir()
    graph = packed_graph(weights_of(model), model.config, pattern)
    form = {"fp32": lambda same: same, "int8": quantize, "fp16": to_half}[precision]
    onnx.save(form(graph), path / "model.onnx")
    write_tokenizer(path / "tokenizer.json", model.config.vocab_size)
    facts = manifest.Manifest(
        name=path.name,
        labels=("negative", "positive"),
        max_tokens=model.config.max_position_embeddings,
        attention=pattern.to_dict(),
        precision=precision,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=manifest.TrainingFacts(base_model="random", data=(), seed=0, settings={}),
        files={name: manifest.facts_of(path / name) for name in ("model.onnx", "tokenizer.json")},
    )
    (path / "manifest.json").write_text(manifest.dump(facts))
    return ModelFolder.load(path)
