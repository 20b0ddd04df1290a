"""Loads a model's tokenizer as the service will have it: what tokenizer.json says, nothing else."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.hub import has_file

from training.errors import BaseModelError
from training.hub import local_only

_MODEL_INPUTS = ["input_ids", "attention_mask"]  # DistilBERT would swallow token_type_ids


def load_tokenizer(source: str | Path, embeddings: int) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder or of a hub's model, which neither pads nor cuts by itself.

    Raises BaseModelError where there is none, one that adds no special tokens, or one with tokens
    of which the model, which has `embeddings`, has none.
    """
    local = local_only(source)

    def has(name: str) -> bool:
        return bool(has_file(str(source), name, local_files_only=local))

    # AutoTokenizer takes the vocabulary of a tokenizer.json and makes up the rest; where there is
    # no vocabulary it makes up that as well.
    whole = has("tokenizer.json")
    if not whole and not has("vocab.txt"):
        raise BaseModelError(f"{source} has no tokenizer: neither tokenizer.json nor vocab.txt")
    kind = PreTrainedTokenizerFast if whole else AutoTokenizer
    tokenizer = kind.from_pretrained(
        source, model_input_names=_MODEL_INPUTS, local_files_only=local
    )
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BaseModelError(f"{source} has no fast tokenizer (tokenizer.json)")
    # It may pad and cut (MiniLM's at 128 tokens), or cut the beginning off.
    tokenizer.truncation_side, tokenizer.split_special_tokens = "right", False
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    if not tokenizer.backend_tokenizer.encode("").ids:
        raise BaseModelError(
            f"{source}: the tokenizer adds no special tokens, such as [CLS], of which the first is "
            "what the label is told from"
        )
    highest = max(tokenizer.get_vocab().values())
    if highest >= embeddings:
        raise BaseModelError(
            f"{source}: the tokenizer has a token {highest}, the model embeddings up to "
            f"{embeddings - 1} only"
        )
    return tokenizer
