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
from training.errors import BaseModelError, RunError, first_line
from training.hub import local_only
from training.labels import plain
from training.minilm import minilm_config, minilm_folder, minilm_state
from training.narrow_model import classifier_class
from training.pattern import AttentionPattern
from training.pruned_model import prune_model, pruning_of
from training.pruning import TokenPruning
from training.tokenizer import load_tokenizer

MINILM = "minilm"


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
    BaseModelError where the base cannot be had, is no DistilBERT, or lacks weights or a tokenizer
    that fits, PruningError where the schedule does not fit it.
    """
    register_attention()
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "num_labels": len(label_names),
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: i for i, name in enumerate(label_names)},
        "problem_type": "single_label_classification",  # a base may be for several at once
        CONFIG_FIELD: pattern.to_dict(),
        # What a base may have been saved with, and a training cannot do with.
        "output_hidden_states": False,
        "output_attentions": False,
        "return_dict": True,
        "chunk_size_feed_forward": 0,
    }
    if base == MINILM:
        config = minilm_config()
        for key, value in settings.items():
            setattr(config, key, value)
        config._attn_implementation = IMPLEMENTATION
        model = DistilBertForSequenceClassification(config)
        model.distilbert.load_state_dict(minilm_state())
        prune_model(model, pruning)
        return model, load_tokenizer(minilm_folder(), config.vocab_size)
    config = _config_of(base)
    head_names = _names_in(config)
    for key, value in settings.items():
        setattr(config, key, value)
    try:
        # Another number of labels is a head of another size.
        model = _load(base, config, ignore_mismatched_sizes=True)
        tokenizer = load_tokenizer(base, config.vocab_size)
    except Exception as error:  # a dozen kinds, by what is wrong with which file
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


def _load(
    source: str | Path, config: DistilBertConfig, **options: Any
) -> DistilBertForSequenceClassification:
    """Raises BaseModelError where part of the encoder is not in the file, or has another shape:
    transformers would draw it at random."""
    found = classifier_class(config).from_pretrained(
        source,
        config=config,
        attn_implementation=IMPLEMENTATION,
        dtype=torch.float32,
        local_files_only=local_only(source),
        output_loading_info=True,
        **options,
    )
    model, loaded = cast("tuple[DistilBertForSequenceClassification, dict[str, Any]]", found)
    names = [*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])]
    lacking = sorted(name for name in names if "distilbert." in name)
    if lacking:
        raise BaseModelError(
            f"{source}: {len(lacking)} of the encoder's weights are missing or have another shape "
            f"than config.json says, such as {lacking[0]}"
        )
    return model


def _config_of(base: str) -> DistilBertConfig:
    try:
        config = AutoConfig.from_pretrained(
            base, local_files_only=local_only(base), trust_remote_code=False
        )
    except Exception as error:
        raise _unreachable(base, error) from None
    if not isinstance(config, DistilBertConfig):
        # transformers would load a BERT folder with a warning and a random encoder.
        raise BaseModelError(
            f"base {base!r} is a {config.model_type} model; crisp trains DistilBERT models, e.g. "
            "distilbert-base-uncased or minilm"
        )
    if config.activation != "gelu":
        raise BaseModelError(
            f"base {base!r} has the activation {config.activation!r}; crisp exports gelu only"
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
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if not isinstance(config, DistilBertConfig) or not hasattr(config, CONFIG_FIELD):
            raise RunError(f"{folder}/config.json names no attention pattern")
        model = _load(folder, config)
        tokenizer = load_tokenizer(folder, config.vocab_size)
    except Exception as error:  # a dozen kinds, by what is wrong with which file
        raise RunError(
            f"{folder} is not a run of `crisp train`, or is damaged: {first_line(error)}"
        ) from None
    prune_model(model, pruning_of(model))
    return model.eval(), tokenizer, attention_of(config)


def label_names_of(model: DistilBertForSequenceClassification) -> tuple[str, ...]:
    return _names_in(model.config)


def _names_in(config: DistilBertConfig) -> tuple[str, ...]:
    names = cast("dict[int, str]", config.id2label)
    return tuple(names.get(i, f"LABEL_{i}") for i in range(len(names)))


def _unreachable(base: str, error: Exception) -> BaseModelError:
    if isinstance(error, BaseModelError):
        return error
    return BaseModelError(
        f"cannot load base {base!r} ({first_line(error)}). It takes a DistilBERT folder or hub "
        "name; without a network, use --base minilm"
    )


def fastest_precision(device: str) -> Literal["bf16", "fp32"]:
    """bf16 where `device`, cuda or cpu, multiplies it in hardware."""
    cuda = device == "cuda"
    cpu = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    bf16 = torch.cuda.is_bf16_supported() if cuda else cpu
    return "bf16" if bf16 else "fp32"
