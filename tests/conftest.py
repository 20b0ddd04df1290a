"""Model folders for the tests of several stages: tiny, random, and made by the real exporter."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

from export import manifest
from export.manifest import ModelFolder
from training.pattern import AttentionPattern
from training.pruning import TokenPruning

# No test times anything: a busy machine must not fail a property.
settings.register_profile("crisp", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("crisp")

# The models of the tests are tiny: torch's threads would wait for each other longer than they work,
# most of all where tests run beside something else.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# In the background of a script pytest ignores SIGINT, and so would what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

WORDS = (
    *("a", "bad", "cast", "dull", "film", "fine", "good", "is", "it", "long", "not", "of"),
    *("plot", "slow", "story", "the", "this", "warm", "with"),
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MAX_TOKENS = 32
# The numbers are small enough that a text of 32 tokens has blocks to choose from, and loses tokens.
PATTERNS = {
    "dense": (AttentionPattern("dense"), None),
    "sparse": (AttentionPattern("blocktopk", size=4, density=0.3), TokenPruning((0.5,), floor=4)),
}


@pytest.fixture
def nothing_left_running() -> Iterator[None]:
    """The test leaves no process behind that was not there before."""
    here = psutil.Process()
    before = here.children(recursive=True)
    yield
    assert [process for process in here.children(recursive=True) if process not in before] == []


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model folders `dense` and `sparse`. Read only."""
    folder = tmp_path_factory.mktemp("models")
    for name, (pattern, pruning) in PATTERNS.items():
        write_model_folder(folder / name, pattern, pruning)
    return folder


@pytest.fixture(scope="session")
def model_folder(models_dir: Path) -> ModelFolder:
    """The verified model folder `sparse`. Read only."""
    return ModelFolder.load(models_dir / "sparse")


def write_model_folder(
    folder: Path, pattern: AttentionPattern, pruning: TokenPruning | None = None
) -> None:
    """A model folder of two layers with random weights, large enough that texts differ."""
    import onnx
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    from export.graph import packed_graph
    from export.model_folder import operators_of

    folder.mkdir(parents=True)
    config = DistilBertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        max_position_embeddings=MAX_TOKENS,
        dim=16,
        hidden_dim=32,
        n_layers=2,
        n_heads=2,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    model = DistilBertForSequenceClassification(config)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    graph = packed_graph(weights, config, pattern, pruning)
    onnx.save(graph, folder / "model.onnx")
    _tokenizer(folder / "tokenizer.json")
    facts = manifest.Manifest(
        name=folder.name,
        labels=("negative", "positive"),
        max_tokens=MAX_TOKENS,
        attention=pattern.to_dict(),
        pruning=None if pruning is None else pruning.to_dict(),
        precision="fp32",
        parameters=sum(array.size for array in weights.values()),
        trained=manifest.TrainingFacts(base_model="random", data=(), seed=0, settings={}),
        operators=operators_of(graph),
        files={file: manifest.facts_of(folder / file) for file in ("model.onnx", "tokenizer.json")},
    )
    (folder / "manifest.json").write_text(manifest.dump(facts))


def _tokenizer(file: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # As in MiniLM's file: whoever loads it has to set both to what the model wants.
    tokenizer.enable_padding(length=10)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(file))
