"""What `crisp narrow` does: a finished run with narrower feed-forward networks, layer after layer,
that does what the run does.

    narrow_run(Path("runs/dense"), Path("runs/narrow"), (640, 1024, 512, 512, 512, 1536))

No labels are needed. The texts go through two models side by side: the run, and what has become of
it so far. In each layer the neurons to keep are chosen in closed form (`training/neurons.py`); then
the network and the LayerNorm after it are fitted, token by token, to give what the run's layer
gives, from what the narrow model's own layers give before it: errors do not pile up. Nothing of
that needs a step through the whole model, so it takes minutes where training takes hours.

Killed, the same call goes on with the layer that it was at.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import DistilBertForSequenceClassification

from training.batches import Encodings, batches_by_length, pad
from training.config import RunRecord, TrainingSettings
from training.data import without_overlap
from training.errors import DataError, RunError
from training.evaluate import evaluate
from training.files import whole_or_not_at_all
from training.finetune import encode
from training.model import load_checkpoint
from training.narrow_model import feed_forward_of, set_feed_forward
from training.neurons import gram_of, keep_neurons
from training.pattern import AttentionPattern
from training.pruned_model import attended, feed_forward
from training.run_data import held_out_texts, records_of
from training.run_folder import SETTINGS_FILE, begin, content_of, refuse_if_taken, save_run

LEARNING_RATE = 1e-3  # of the fit; falls linearly to 0
STATE_FILE = "narrowing.pt"
_BATCH_TOKENS = 4096  # padded tokens that go through a layer at once
_ROWS = 512  # tokens of one step of the fit
_GRAM_ROWS = 65_536  # tokens from which the neurons are chosen, at most


def narrow_run(
    run: Path,
    out: Path,
    widths: Sequence[int],
    *,
    data: Sequence[str] = (),
    tokens: int = 300_000,
    epochs: int = 4,
    seed: int = 0,
) -> RunRecord:
    """Writes the run folder `out`: that of `run` with feed-forward networks of these widths.

    Fitted on texts of `data`, by default the run's training data: whole texts drawn with `seed`,
    as many of each data set as come to its share of `tokens`; `epochs` passes over them a layer.
    Measured on what the run was measured on; where that cannot be found any more, and `data` is
    given, on nothing.
    Raises RunError where `run` is not finished, `out` is taken or a width is none, DataError where
    a data set cannot be read.
    """
    record = RunRecord.load(run)
    student, tokenizer, pattern = load_checkpoint(run)
    before = feed_forward_of(student)
    _check_widths(widths, before)
    settings = dataclasses.replace(
        record.settings,
        base=str(run),
        teachers=(str(run),),
        feed_forward=tuple(widths),
        data=tuple(data or record.settings.data),
        epochs=epochs,
        seed=seed,
        learning_rate=LEARNING_RATE,
    )
    noted: dict[str, Any] = {"tokens": tokens}
    refuse_if_taken(out, settings, noted)
    try:
        held_out = held_out_texts(record)
    except DataError:
        if not data:
            raise
        held_out = []
    texts = [without_overlap(each, held_out)[0] for each in record.read(settings.data, "train")]
    limit = min(settings.max_tokens, student.config.max_position_embeddings)
    dev = [(each, encode(each, tokenizer, limit)) for each in held_out]
    encoded = [encode(each, tokenizer, limit) for each in texts]
    sample = [ids for each in encoded for ids in _some(each, tokens // len(encoded), seed)]
    noted |= content_of([*texts, *held_out])
    refuse_if_taken(out, settings, noted)
    begin(out, settings, noted)
    began = time.monotonic()
    _narrow(student, widths, pattern, sample, settings, out / STATE_FILE)
    found = [evaluate(student, *pair, limit) for pair in dev]
    narrowed = dataclasses.replace(
        record,
        settings=settings,
        data=records_of(texts),
        dev=records_of(held_out),
        history=(
            {"epoch": epochs}
            | {each.data.name: {"accuracy": each.accuracy, "loss": each.loss} for each in found},
        ),
        seconds=round(time.monotonic() - began, 1),
    )
    save_run(out, student, tokenizer, narrowed)
    for file in (STATE_FILE, SETTINGS_FILE):
        (out / file).unlink(missing_ok=True)
    return narrowed


def _check_widths(widths: Sequence[int], before: Sequence[int]) -> None:
    if len(widths) != len(before):
        raise RunError(f"the run has {len(before)} layers: name as many widths, not {len(widths)}")
    for layer, (width, most) in enumerate(zip(widths, before, strict=True)):
        if not 1 <= width <= most:
            raise RunError(f"layer {layer} is {most} wide: expected 1 to {most}, got {width}")


def _some(encodings: Encodings, tokens: int, seed: int) -> Iterator[list[int]]:
    """Texts in random order until they come to `tokens`; one at least."""
    for i in np.random.default_rng(seed).permutation(len(encodings)):
        yield list(encodings.input_ids[i])
        tokens -= encodings.lengths[i]
        if tokens <= 0:
            return


class _Stream:
    """The hidden states of the texts between two layers: of each batch [B, S, H] and which are
    those of tokens, bool [B, S]."""

    def __init__(self, model: DistilBertForSequenceClassification, batches: list[Any]) -> None:
        self.valid = [batch["attention_mask"].bool() for batch in batches]
        self.hidden = [model.distilbert.embeddings(batch["input_ids"]) for batch in batches]

    def through_attention(self, layer: nn.Module, pattern: AttentionPattern) -> None:
        for i, (hidden, valid) in enumerate(zip(self.hidden, self.valid, strict=True)):
            self.hidden[i] = attended(layer, hidden, valid, pattern)

    def through_feed_forward(self, layer: Any) -> None:
        for i, hidden in enumerate(self.hidden):
            self.hidden[i] = feed_forward(layer, hidden)

    def tokens(self) -> Tensor:
        """float [T, H] of all that are tokens."""
        pairs = zip(self.hidden, self.valid, strict=True)
        return torch.cat([hidden[valid] for hidden, valid in pairs])


def _narrow(
    student: DistilBertForSequenceClassification,
    widths: Sequence[int],
    pattern: AttentionPattern,
    sample: list[list[int]],
    settings: TrainingSettings,
    state: Path,
) -> None:
    teacher = copy.deepcopy(student)
    layers: Any = student.distilbert.transformer.layer
    originals: Any = teacher.distilbert.transformer.layer
    done: list[dict[str, Tensor]] = torch.load(state) if state.is_file() else []
    steps = settings.epochs * _steps(sum(map(len, sample)))
    with (
        torch.no_grad(),
        tqdm(total=len(layers) * steps, unit="step", desc="layer 0") as bar,
    ):
        texts = Encodings(sample, [0] * len(sample))  # nobody asks for their labels
        groups = batches_by_length(texts.lengths, _BATCH_TOKENS)
        batches = [pad([texts[i] for i in group]) for group in groups]
        ours, theirs = _Stream(student, batches), _Stream(teacher, batches)
        for i, (layer, original) in enumerate(zip(layers, originals, strict=True)):
            bar.set_description(f"layer {i}")
            ours.through_attention(layer, pattern)
            theirs.through_attention(original, pattern)
            theirs.through_feed_forward(original)
            if i < len(done):
                _set_width(student, i, widths[i])
                layer.load_state_dict(done[i])
            elif widths[i] < layer.ffn.lin1.out_features:
                inputs = ours.tokens()
                _cut(student, i, widths[i], inputs)
                _fit(layer, inputs, theirs.tokens(), settings, i, bar)
            ours.through_feed_forward(layer)
            if i >= len(done):
                done.append(copy.deepcopy(layer.state_dict()))
                with whole_or_not_at_all(state) as temporary:
                    torch.save(done, temporary)
            bar.n = (i + 1) * steps
            bar.refresh()


def _cut(student: DistilBertForSequenceClassification, i: int, width: int, inputs: Tensor) -> None:
    """Keeps `width` neurons of layer `i`, chosen on inputs float [T, H] of its network."""
    layer: Any = student.distilbert.transformer.layer[i]
    network = layer.ffn
    step = -(-len(inputs) // _GRAM_ROWS)
    gram = torch.zeros((), dtype=torch.float64)
    for some in inputs[::step].split(8 * _ROWS):
        gram = gram + gram_of(network.activation(network.lin1(some)))
    outer = network.lin2
    index, weight, bias = keep_neurons(gram, outer.weight, outer.bias, width)
    inner = network.lin1.weight[index], network.lin1.bias[index]
    _set_width(student, i, width)
    for parameter, value in zip(
        (*network.lin1.parameters(), *network.lin2.parameters()),
        (*inner, weight, bias),
        strict=True,
    ):
        parameter.copy_(value)


def _set_width(student: DistilBertForSequenceClassification, i: int, width: int) -> None:
    before = feed_forward_of(student)
    set_feed_forward(student, (*before[:i], width, *before[i + 1 :]))


def _fit(
    layer: Any,
    inputs: Tensor,
    outputs: Tensor,
    settings: TrainingSettings,
    i: int,
    bar: tqdm[Any],
) -> None:
    """Fits the network of `layer` and the LayerNorm after it: inputs float [T, H] of the network to
    outputs float [T, H] of the layer, in the mean square, by Adam."""
    parameters = [*layer.ffn.parameters(), *layer.output_layer_norm.parameters()]
    steps = settings.epochs * _steps(len(inputs))
    random = torch.Generator().manual_seed(1000 * settings.seed + i)
    with torch.enable_grad():
        optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / 100) * (1 - step / steps)
        )
        for _ in range(settings.epochs):
            order = torch.randperm(len(inputs), generator=random)
            for rows in order.split(_ROWS):
                error = feed_forward(layer, inputs[rows]) - outputs[rows]
                loss = error.square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()


def _steps(tokens: int) -> int:
    """Of one pass of the fit."""
    return -(-tokens // _ROWS)
