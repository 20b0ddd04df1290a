"""Builds, loads and saves a classifier together with its attention pattern and token pruning.

transformers' `save_pretrained` keeps both in config.json but reloads with sdpa and plain layers,
which would silently ignore them; models therefore pass only through `load_base` and
`load_checkpoint`. `pruned_model.pruning_of(model)` says what a model prunes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from training.attention.registry import (
    CONFIG_FIELD,
    IMPLEMENTATION,
    attention_of,
    register_attention,
)
from training.errors import BaseModelError, RunError
from training.hub import hub_is_reachable
from training.labels import plain
from training.minilm import minilm_config, minilm_folder, minilm_state
from training.narrow_model import classifier_class
from training.pattern import AttentionPattern
from training.pruned_model import prune_model, pruning_of
from training.pruning import TokenPruning

MINILM = "minilm"
MODEL_INPUTS = ["input_ids", "attention_mask"]  # DistilBERT would swallow token_type_ids


def load_base(
    base: str,
    label_names: Sequence[str],
    pattern: AttentionPattern,
    pruning: TokenPruning | None = None,
    *,
    seed: int = 0,
) -> tuple[DistilBertForSequenceClassification, PreTrainedTokenizerFast]:
    """A classifier on the encoder `base`: `minilm`, a hub name, or a folder, a run's included.

    The head is that of the base where it has one for the same labels, in whatever order, or for as
    many without names; else drawn with `seed`.
    Attention and pruning are those asked for, whatever the base was trained with. Raises
    BaseModelError where the base cannot be had or is no DistilBERT, PruningError where the schedule
    does not fit it.
    """
    register_attention()
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "num_labels": len(label_names),
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: i for i, name in enumerate(label_names)},
        "problem_type": "single_label_classification",  # a base may be for several at once
        CONFIG_FIELD: pattern.to_dict(),
    }
    if base == MINILM:
        config = minilm_config()
        for key, value in settings.items():
            setattr(config, key, value)
        config._attn_implementation = IMPLEMENTATION
        model = DistilBertForSequenceClassification(config)
        model.distilbert.load_state_dict(minilm_state())
        prune_model(model, pruning)
        return model, _tokenizer(minilm_folder())
    config = _config_of(base)
    head_names = _names_in(config)
    for key, value in settings.items():
        setattr(config, key, value)
    try:
        model = classifier_class(config).from_pretrained(
            base,
            config=config,
            attn_implementation=IMPLEMENTATION,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # of a head for another number of labels
            local_files_only=_local_only(base),
        )
        tokenizer = _tokenizer(base)
    except (OSError, ValueError) as error:
        raise _unreachable(base, error) from None
    _fit_head(model.classifier, head_names, label_names, config.initializer_range)
    prune_model(model, pruning)
    return model, tokenizer


def _fit_head(head: nn.Linear, was: Sequence[str], names: Sequence[str], spread: float) -> None:
    """Puts the rows of a head for the labels `was` into the order of `names`, or draws them anew
    where they are of other labels."""
    old, new = ([plain(name) for name in each] for each in (was, names))
    # transformers calls labels without a name LABEL_0, LABEL_1, ...
    if len(was) != len(names) or all(re.fullmatch(r"LABEL_\d+", name) for name in was):
        return
    with torch.no_grad():
        if set(old) == set(new):
            rows = [old.index(name) for name in new]
            head.weight.copy_(head.weight[rows])
            head.bias.copy_(head.bias[rows])
        else:
            nn.init.normal_(head.weight, std=spread)
            nn.init.zeros_(head.bias)


def _config_of(base: str) -> DistilBertConfig:
    try:
        config = AutoConfig.from_pretrained(base, local_files_only=_local_only(base))
    except (OSError, ValueError) as error:
        raise _unreachable(base, error) from None
    if not isinstance(config, DistilBertConfig):
        # transformers would load a BERT folder with a warning and a random encoder.
        raise BaseModelError(
            f"base {base!r} is a {config.model_type} model; crisp trains DistilBERT models, e.g. "
            "distilbert-base-uncased or minilm"
        )
    return config


def load_checkpoint(
    folder: Path,
) -> tuple[DistilBertForSequenceClassification, PreTrainedTokenizerFast, AttentionPattern]:
    """The classifier of a run folder, in evaluation mode, with the attention and the pruning it was
    trained with.

    Raises RunError where the folder holds no finished run.
    """
    register_attention()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise RunError(f"{folder} holds no finished run: it has no {name}; see `crisp train`")
    config = AutoConfig.from_pretrained(folder)
    if not isinstance(config, DistilBertConfig) or not hasattr(config, CONFIG_FIELD):
        raise RunError(f"{folder}/config.json names no attention pattern: not a run of crisp train")
    model = classifier_class(config).from_pretrained(
        folder, config=config, attn_implementation=IMPLEMENTATION, dtype=torch.float32
    )
    prune_model(model, pruning_of(model))
    return model.eval(), _tokenizer(folder), attention_of(config)


def label_names_of(model: DistilBertForSequenceClassification) -> tuple[str, ...]:
    return _names_in(model.config)


def _names_in(config: DistilBertConfig) -> tuple[str, ...]:
    names = cast("dict[int, str]", config.id2label)
    return tuple(names[i] for i in range(len(names)))


def _tokenizer(source: str | Path) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(
        source,
        use_fast=True,
        model_input_names=MODEL_INPUTS,
        local_files_only=_local_only(source),
    )
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BaseModelError(f"{source} has no fast tokenizer (tokenizer.json)")
    # A tokenizer.json may carry padding and truncation of its own (MiniLM's: 128 tokens).
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def _local_only(source: str | Path) -> bool:
    return Path(source).is_dir() or not hub_is_reachable()


def _unreachable(base: str, error: Exception) -> BaseModelError:
    reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
    return BaseModelError(
        f"cannot load base {base!r} ({reason.strip()}). It takes a DistilBERT folder or hub name; "
        "without a network, use --base minilm"
    )


def fastest_precision(device: str) -> Literal["bf16", "fp32"]:
    """bf16 where `device`, cuda or cpu, multiplies it in hardware."""
    cuda = device == "cuda"
    cpu = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    bf16 = torch.cuda.is_bf16_supported() if cuda else cpu
    return "bf16" if bf16 else "fp32"
