"""Models that take longer texts than they were trained for: their position table, repeated.

The rows for 2,048 and 4,096 tokens are longer than the bundled models take (512). For them, every
contender gets a position table that is its own, repeated from the start as often as it takes. What
such a model answers means nothing; the work that it does is that of a model trained for the length,
since only the table has grown, and a run reads one row of it for each token.

    extend_positions(classifier, 4096)                      # in place
    extended_folder(folder, Path(temporary, "dense"), 4096)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from transformers import DistilBertForSequenceClassification

from export.errors import ModelFolderError
from export.manifest import MODEL_FILE, TOKENIZER_FILE, ModelFolder

POSITION_TABLE = "distilbert.embeddings.position_embeddings"


def extend_positions(model: DistilBertForSequenceClassification, tokens: int) -> None:
    """Repeats the position table of `model` to `tokens` rows, in place."""
    embeddings = model.distilbert.embeddings
    table = embeddings.position_embeddings.weight.data
    repeats = -(-tokens // len(table))
    longer = table.repeat(repeats, 1)[:tokens].clone()
    embeddings.position_embeddings = nn.Embedding.from_pretrained(longer)
    positions = torch.arange(tokens).expand((1, -1))
    embeddings.register_buffer("position_ids", positions, persistent=False)
    model.config.max_position_embeddings = tokens


def extended_folder(folder: ModelFolder, target: Path, tokens: int) -> ModelFolder:
    """A copy of `folder` at `target`, which must not exist, whose graph has `tokens` positions.

    The table is found by the name of its initializers, whatever reads them: each whose name starts
    with POSITION_TABLE and which has a row for each position is repeated (rows in float or int8,
    and their scales). Raises ModelFolderError where the graph has none.
    """
    graph = onnx.load(folder.model)
    limit = folder.manifest.max_tokens
    tables = [
        tensor
        for tensor in graph.graph.initializer
        if tensor.name.startswith(POSITION_TABLE) and tensor.dims and tensor.dims[0] == limit
    ]
    if not tables:
        raise ModelFolderError(
            f"{folder.model} has no initializer {POSITION_TABLE}... with {limit} rows, so it "
            f"cannot be measured on texts of {tokens} tokens; leave out the longer workloads"
        )
    for tensor in tables:
        rows = numpy_helper.to_array(tensor)
        longer = np.resize(rows, (tokens, *rows.shape[1:]))
        tensor.CopyFrom(numpy_helper.from_array(longer, tensor.name))
    target.mkdir(parents=True)
    onnx.save(graph, target / MODEL_FILE)
    (target / TOKENIZER_FILE).write_bytes(folder.tokenizer.read_bytes())
    return ModelFolder(target, folder.manifest.model_copy(update={"max_tokens": tokens}))
