"""Token pruning in torch against a plain reference: one sequence at a time, no padding, tokens
ranked in a Python list. And what must not change anything: padding, and the rest of the batch."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import DistilBertConfig, DistilBertForSequenceClassification
from typer.testing import CliRunner

import crisp
from training.attention.registry import IMPLEMENTATION, register_attention, set_attention
from training.attention.registry import sparse_attention as attend
from training.config import RunRecord
from training.errors import PruningError
from training.evaluate import evaluate, evaluate_run
from training.finetune import encode
from training.model import load_base, load_checkpoint
from training.pattern import AttentionPattern
from training.pruned_model import importance, kept_tokens, prune_model, pruning_of
from training.pruning import TokenPruning

PATTERNS = (
    AttentionPattern("dense"),
    AttentionPattern("topk", density=0.3),
    AttentionPattern("blocktopk", size=4, density=0.3),
    AttentionPattern("band", window=5, globals=1),
    AttentionPattern("block", size=4, globals=1),
)
every_pattern = pytest.mark.parametrize("pattern", PATTERNS, ids=str)
PRUNING = TokenPruning((0.8, 0.5, 0.2), floor=3)
VOCABULARY = 50


def small_model(
    pattern: AttentionPattern, pruning: TokenPruning | None, *, seed: int = 0
) -> DistilBertForSequenceClassification:
    """Four random layers, in evaluation mode."""
    register_attention()
    torch.manual_seed(seed)
    config = DistilBertConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
        dim=16,
        hidden_dim=32,
        n_layers=4,
        n_heads=2,
        initializer_range=0.5,
    )
    set_attention(config, pattern)
    config._attn_implementation = IMPLEMENTATION
    model = DistilBertForSequenceClassification(config)
    if pruning is not None:
        prune_model(model, pruning)
    return model.eval()


def random_batch(lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    """input_ids [B, S] with rubbish in the padding, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return {"input_ids": ids, "attention_mask": mask.long()}


def reference(
    model: DistilBertForSequenceClassification,
    ids: Tensor,
    pattern: AttentionPattern,
    pruning: TokenPruning,
) -> tuple[Tensor, list[list[int]]]:
    """Logits [C] of one text of tokens `ids` [L], and the original positions left after each
    layer, straight from the definition."""
    hidden = model.distilbert.embeddings(ids[None])[0]  # [L, H]
    positions = list(range(len(ids)))
    left = []
    layers: list[torch.nn.Module] = list(model.distilbert.transformer.layer)
    for i, layer in enumerate(layers):
        attention = layer.attention
        heads = [
            linear(hidden).unflatten(-1, (attention.n_heads, -1)).transpose(0, 1)[None]
            for linear in (attention.q_lin, attention.k_lin, attention.v_lin)
        ]
        everything = torch.ones(1, len(positions), dtype=torch.bool)
        context, probabilities = attend(*heads, everything, pattern)
        context = context[0].transpose(0, 1).flatten(1)  # [L', H]
        if i < len(pruning.keep):
            received = probabilities[0].mean(0).sum(0).tolist()
            others = sorted(range(1, len(positions)), key=lambda j: -received[j])  # stable
            rows = sorted([0, *others[: pruning.kept(i, len(ids)) - 1]])
            hidden, context = hidden[rows], context[rows]
            positions = [positions[row] for row in rows]
        hidden = layer.sa_layer_norm(attention.out_lin(context) + hidden)
        hidden = layer.output_layer_norm(layer.ffn(hidden) + hidden)
        left.append(positions)
    return model.classifier(model.pre_classifier(hidden[0]).relu()), left


@every_pattern
@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    seed=st.integers(0, 999),
    pruning=st.builds(
        lambda keep, floor: TokenPruning(tuple(sorted(keep, reverse=True)), floor),
        st.lists(st.sampled_from([0.01, 0.1, 0.3, 0.5, 0.9, 1.0]), min_size=3, max_size=3),
        st.integers(1, 12),
    ),
)
def test_logits_equal_the_reference(
    pattern: AttentionPattern, lengths: list[int], seed: int, pruning: TokenPruning
) -> None:
    model = small_model(pattern, pruning, seed=seed)
    batch = random_batch(lengths, seed)
    with torch.inference_mode():
        logits = model(**batch).logits
        for row, length in enumerate(lengths):
            expected, left = reference(model, batch["input_ids"][row, :length], pattern, pruning)
            assert [len(kept) for kept in left[:-1]] == [pruning.kept(i, length) for i in range(3)]
            torch.testing.assert_close(logits[row], expected, atol=1e-4, rtol=1e-4)


@every_pattern
def test_the_tokens_left_are_those_of_the_reference(pattern: AttentionPattern) -> None:
    """The encoder's result holds the rows that are left, in their order and no others."""
    model = small_model(pattern, PRUNING)
    lengths = [30, 4, 1, 17]
    batch = random_batch(lengths)
    with torch.inference_mode():
        hidden = model.distilbert(**batch).last_hidden_state
        assert hidden.shape[1] == PRUNING.kept(2, 30)
        for row, length in enumerate(lengths):
            ids = batch["input_ids"][row, :length]
            alone = model.distilbert(ids[None]).last_hidden_state[0]
            _, left = reference(model, ids, pattern, PRUNING)
            assert alone.shape[0] == len(left[-1])
            torch.testing.assert_close(hidden[row, : len(alone)], alone, atol=1e-5, rtol=1e-4)


@every_pattern
def test_dropping_nothing_equals_the_model_of_transformers(pattern: AttentionPattern) -> None:
    batch = random_batch([12, 20, 2])
    plain = small_model(pattern, None)
    pruned = small_model(pattern, TokenPruning((1.0, 1.0, 1.0)))
    with torch.inference_mode():
        torch.testing.assert_close(pruned(**batch).logits, plain(**batch).logits)
    prune_model(pruned, PRUNING)
    with torch.inference_mode():
        assert not torch.allclose(pruned(**batch).logits, plain(**batch).logits, atol=1e-3)
    prune_model(pruned, None)
    with torch.inference_mode():
        torch.testing.assert_close(pruned(**batch).logits, plain(**batch).logits)


def test_a_text_without_mask_is_all_real() -> None:
    model = small_model(AttentionPattern(), PRUNING)
    batch = random_batch([20])
    with torch.inference_mode():
        with_mask, without = model(**batch).logits, model(batch["input_ids"]).logits
    torch.testing.assert_close(with_mask, without, rtol=0, atol=0)


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    data=st.data(),
)
def test_kept_tokens_equal_a_sorted_list(lengths: list[int], data: st.DataObject) -> None:
    """Few different values, so that there are many ties; NaN and infinities among them."""
    values = st.sampled_from([0.0, 0.5, 1.0, math.inf, math.nan])
    longest = max(lengths)
    drawn = [data.draw(st.lists(values, min_size=longest, max_size=longest)) for _ in lengths]
    counts = [data.draw(st.integers(1, length)) for length in lengths]
    valid = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    index, left = kept_tokens(torch.tensor(drawn), valid, torch.tensor(counts))
    assert index.shape == left.shape == (len(lengths), max(counts))
    for row, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        keys = [-math.inf if math.isnan(x) else -x for x in drawn[row]]
        tied_with_nan = [(not math.isnan(x), key) for x, key in zip(drawn[row], keys, strict=True)]
        ranked = sorted(range(1, length), key=lambda j: tied_with_nan[j])
        assert index[row][left[row]].tolist() == sorted([0, *ranked[: count - 1]])


def test_importance_is_what_real_queries_give() -> None:
    probabilities = torch.tensor(
        [[[[0.2, 0.8, 0.0], [0.4, 0.6, 0.0], [0.5, 0.5, 0.0]], [[1.0, 0, 0], [1, 0, 0], [1, 0, 0]]]]
    )
    received = importance(probabilities, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(received, torch.tensor([[1.3, 0.7, 0.0]]))


def test_a_nan_token_is_kept_and_stays_visible() -> None:
    model = small_model(AttentionPattern(), PRUNING)
    model.distilbert.embeddings.word_embeddings.weight.data[7] = torch.nan
    ids = torch.full((1, 20), 5)
    with torch.inference_mode():
        assert model(ids).logits.isfinite().all()
        ids[0, 11] = 7
        assert model(ids).logits.isnan().all()


def test_gradients_flow_through_kept_tokens() -> None:
    """To every layer, and to the embedding of a token dropped after the first layer: what it gave
    to the others in that layer's attention."""
    model = small_model(AttentionPattern(), PRUNING)
    ids = torch.arange(1, 31)[None]
    _, left = reference(model, ids[0], AttentionPattern(), PRUNING)
    model(ids).logits.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if "k_lin.bias" not in name:  # softmax does not see it
            assert parameter.grad.abs().sum() > 0, name
    dropped = set(range(30)) - set(left[0])
    assert dropped
    grads = model.distilbert.embeddings.word_embeddings.weight.grad
    assert grads is not None
    assert all(grads[int(ids[0, j])].abs().sum() > 0 for j in dropped)


def test_bfloat16_autocast_keeps_as_many_tokens_and_trains() -> None:
    model = small_model(AttentionPattern(), PRUNING).train()
    batch = random_batch([20, 9])
    with torch.autocast("cpu", torch.bfloat16):
        assert model.distilbert(**batch).last_hidden_state.shape[1] == PRUNING.kept(2, 20)
        loss = model(**batch, labels=torch.tensor([0, 1])).loss
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_it_is_saved_loaded_and_overridden(base: Path, tmp_path: Path) -> None:
    pruning = TokenPruning((0.5,), floor=2)
    names = ("negative", "positive")
    model, tokenizer = load_base(str(base), names, AttentionPattern(), pruning)
    model.eval()
    assert pruning_of(model) == pruning
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    inputs = tokenizer("that meal was so very very bad and cold and awful", return_tensors="pt")
    again, _, _ = load_checkpoint(tmp_path)
    assert pruning_of(again) == pruning
    dense, _ = load_base(str(tmp_path), names, AttentionPattern())
    assert pruning_of(dense) is None
    with torch.inference_mode():
        expected = model(**inputs).logits
        torch.testing.assert_close(again(**inputs).logits, expected)  # the head, too
        assert not torch.allclose(dense.eval()(**inputs).logits, expected, atol=1e-4)
    three, _ = load_base(str(tmp_path), ("a", "b", "c"), AttentionPattern())
    assert three.classifier.out_features == 3


def test_a_schedule_for_another_number_of_layers(base: Path) -> None:
    with pytest.raises(PruningError, match="a model of 2 layers needs 1 shares"):
        load_base(str(base), ("negative", "positive"), AttentionPattern(), PRUNING)


def test_the_command_trains_with_it_and_evaluation_obeys_it(
    base: Path, train_tsv: Path, dev_tsv: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pruned"
    command = ["train", "--base", str(base), "--data", str(train_tsv), "--dev", str(dev_tsv)]
    command += ["--attention", "blocktopk", "--size", "4", "--epochs", "2", "--max-tokens", "24"]
    command += ["--learning-rate", "5e-3", "--precision", "fp32", "--out", str(out)]
    done = CliRunner().invoke(crisp.app, [*command, "--prune", "0.5", "--prune-floor", "4"])
    assert done.exit_code == 0, done.output
    assert "blocktopk(density=0.2, size=4), keep 0.5; floor 4" in done.output
    record = RunRecord.load(out)
    assert record.settings.pruning == TokenPruning((0.5,), floor=4)
    (name,) = [key for key in record.history[-1] if key.endswith("dev.tsv")]
    (found,) = evaluate_run(out, [str(dev_tsv)], split="validation")
    assert found.loss == pytest.approx(record.history[-1][name]["loss"], abs=1e-4)
    model, tokenizer, _ = load_checkpoint(out)
    prune_model(model, None)
    texts = record.read([str(dev_tsv)], "validation")[0]
    whole = evaluate(model, texts, encode(texts, tokenizer, 24), 24)
    assert whole.loss != pytest.approx(found.loss, abs=1e-4)


def test_the_command_refuses_a_schedule_that_keeps_nothing(train_tsv: Path, tmp_path: Path) -> None:
    command = ["train", "--data", str(train_tsv), "--out", str(tmp_path / "none")]
    done = CliRunner().invoke(crisp.app, [*command, "--prune", "0.5,0"])
    assert isinstance(done.exception, PruningError)
    assert "keeps no token" in str(done.exception)
    assert not (tmp_path / "none").exists()
