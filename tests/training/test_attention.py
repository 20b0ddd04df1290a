"""The torch patterns against a plain loop, and the properties that every pattern must keep."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.attention.random import link_ranks
from training.attention.registry import (
    CONFIG_FIELD,
    IMPLEMENTATION,
    LINK_RULES,
    register_attention,
    sparse_attention,
)
from training.pattern import PATTERN_NAMES, AttentionPattern

PATTERNS = (
    AttentionPattern("dense"),
    AttentionPattern("topk", density=0.2),
    AttentionPattern("topk", density=1.0),
    AttentionPattern("topk", k=3),
    AttentionPattern("band", window=5),
    AttentionPattern("band", window=1, globals=2),
    AttentionPattern("block", size=4),
    AttentionPattern("block", size=3, globals=1),
    AttentionPattern("blocktopk", size=3, density=0.3),
    AttentionPattern("blocktopk", size=2, k=2),
    AttentionPattern("bottomk", density=0.3),
    AttentionPattern("random", k=3),
)
every_pattern = pytest.mark.parametrize("pattern", PATTERNS, ids=str)


def random_input(lengths: list[int], seed: int = 0, heads: int = 2, size: int = 8) -> list[Tensor]:
    """query, key, value [B, H, S, D] and valid [B, S], with rubbish in the padding."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    qkv = [torch.randn(len(lengths), heads, longest, size, generator=generator) for _ in range(3)]
    valid = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    for tensor in qkv:
        tensor.masked_fill_(~valid[:, None, :, None], 1e3)
    return [*qkv, valid]


def visible(pattern: AttentionPattern, i: int, j: int) -> bool:
    """Whether query i may see key j by its position alone, as the pattern's definition says."""
    tokens = pattern.globals or 0
    if pattern.name == "band":
        assert pattern.window is not None
        return abs(i - j) <= pattern.window // 2 or i < tokens or j < tokens
    if pattern.name == "block":
        assert pattern.size is not None
        return i // pattern.size == j // pattern.size or i < tokens or j < tokens
    return True


def chosen_blocks(q: Tensor, k: Tensor, pattern: AttentionPattern) -> list[set[int]]:
    """The key blocks that each query block sees, from pooled queries and keys, block by block."""
    assert pattern.size is not None
    queries = [block.double().mean(0) for block in q.split(pattern.size)]
    keys = [block.double().mean(0) for block in k.split(pattern.size)]
    found = []
    for own, query in enumerate(queries):
        scores = [float(query @ key) for key in keys]
        last = sorted(scores, reverse=True)[pattern.kept_blocks(len(q)) - 1]
        found.append({own, 0} | {b for b, score in enumerate(scores) if score >= last})
    return found


def loop_attention(q: Tensor, k: Tensor, v: Tensor, pattern: AttentionPattern, head: int) -> Tensor:
    """Context [L, D] of one sequence and head, link by link, in double precision."""
    length, size = q.shape
    context = torch.zeros(length, size, dtype=torch.float64)
    chosen = chosen_blocks(q, k, pattern) if pattern.name == "blocktopk" else None
    for i in range(length):
        scores = {
            j: float(q[i].double() @ k[j].double()) / math.sqrt(size)
            for j in range(length)
            if visible(pattern, i, j)
        }
        if chosen is not None and i > 0:
            assert pattern.size is not None
            blocks = chosen[i // pattern.size]
            scores = {j: score for j, score in scores.items() if j // pattern.size in blocks}
        if pattern.name == "topk":
            threshold = sorted(scores.values(), reverse=True)[pattern.kept(length) - 1]
            scores = {j: score for j, score in scores.items() if score >= threshold}
        if pattern.name == "bottomk":
            threshold = sorted(scores.values())[pattern.kept(length) - 1]
            scores = {j: score for j, score in scores.items() if score <= threshold}
        if pattern.name == "random":
            ranks = link_ranks(head + 1, length)[0, head, i].tolist()
            drawn = sorted(scores, key=ranks.__getitem__, reverse=True)
            scores = {j: scores[j] for j in drawn[: pattern.kept(length)]}
        total = sum(math.exp(score) for score in scores.values())
        for j, score in scores.items():
            context[i] += math.exp(score) / total * v[j].double()
    return context


def test_every_pattern_has_a_rule() -> None:
    assert set(LINK_RULES) == set(PATTERN_NAMES)


@every_pattern
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_equals_the_loop(pattern: AttentionPattern, lengths: list[int], seed: int) -> None:
    q, k, v, valid = random_input(lengths, seed)
    context, probabilities = sparse_attention(q, k, v, valid, pattern)
    for b, length in enumerate(lengths):
        for h in range(q.shape[1]):
            one = (q[b, h, :length], k[b, h, :length], v[b, h, :length])
            torch.testing.assert_close(
                context[b, h, :length].double(),
                loop_attention(*one, pattern, h),
                atol=1e-5,
                rtol=1e-5,
            )
    real = probabilities.transpose(1, 2)[valid]
    torch.testing.assert_close(real.sum(-1), torch.ones(real.shape[:-1]))


@every_pattern
def test_padding_is_never_attended_and_gives_no_nan(pattern: AttentionPattern) -> None:
    q, k, v, valid = random_input([3, 11, 1])
    context, probabilities = sparse_attention(q, k, v, valid, pattern)
    assert context.isfinite().all()
    to_padding = probabilities.masked_fill(valid[:, None, None, :], 0.0).transpose(1, 2)[valid]
    assert to_padding.sum() == 0


@every_pattern
def test_the_rest_of_the_batch_changes_nothing(pattern: AttentionPattern) -> None:
    q, k, v, valid = random_input([9, 4, 12])
    together, _ = sparse_attention(q, k, v, valid, pattern)
    for b, length in enumerate([9, 4, 12]):
        one = [tensor[b : b + 1, :, :length] for tensor in (q, k, v)]
        alone, _ = sparse_attention(*one, valid[b : b + 1, :length], pattern)
        torch.testing.assert_close(together[b, :, :length], alone[0])


@every_pattern
def test_gradients_flow_through_kept_links_only(pattern: AttentionPattern) -> None:
    q, k, v, valid = random_input([10])
    v.requires_grad_()
    k.requires_grad_()
    context, probabilities = sparse_attention(q, k, v, valid, pattern)
    query = 4
    context[0, 0, query].sum().backward()
    kept = probabilities[0, 0, query] > 0
    assert v.grad is not None
    assert k.grad is not None
    assert torch.equal(v.grad[0, 0].abs().sum(-1) > 0, kept)
    assert not k.grad[0, 0][~kept].any()
    if kept.sum() > 1:
        assert k.grad[0, 0][kept].any()
    assert not v.grad[0, 1].any()  # the other head


def test_random_links_ignore_the_scores_and_favour_no_position() -> None:
    pattern = AttentionPattern("random", k=8)
    q, k, v, valid = random_input([256])
    _, first = sparse_attention(q, k, v, valid, pattern)
    _, second = sparse_attention(k, v, q, valid, pattern)
    assert torch.equal(first > 0, second > 0)
    kept = (first[0] > 0).double()
    assert (kept.sum(-1) == 8).all()
    # Each key is chosen by Binomial(2 · 256, 8 / 256) queries: 16 of them, with deviation 4.
    chosen = kept.sum(dim=(0, 1))
    assert chosen.min() >= 2
    assert chosen.max() <= 34
    distance = (torch.arange(256)[:, None] - torch.arange(256)).abs()
    assert abs(float((kept * distance).sum() / kept.sum()) - 256 / 3) < 5
    assert not torch.equal(kept[0], kept[1])


def test_topk_at_density_1_equals_dense() -> None:
    q, k, v, valid = random_input([7, 30, 1])
    dense, _ = sparse_attention(q, k, v, valid, AttentionPattern("dense"))
    topk, _ = sparse_attention(q, k, v, valid, AttentionPattern("topk", density=1.0))
    torch.testing.assert_close(dense, topk, rtol=0, atol=0)


def test_keys_that_tie_with_the_last_kept_one_are_kept() -> None:
    q = torch.ones(1, 1, 5, 4)
    k = torch.tensor([3.0, 1.0, 2.0, 2.0, 2.0])[None, None, :, None].expand(1, 1, 5, 4)
    pattern = AttentionPattern("topk", k=2)
    _, probabilities = sparse_attention(q, k, q, torch.ones(1, 5, dtype=torch.bool), pattern)
    assert (probabilities[0, 0] > 0).tolist() == [[True, False, True, True, True]] * 5


def test_blocktopk_of_one_block_equals_dense() -> None:
    q, k, v, valid = random_input([8, 5, 1])
    dense, _ = sparse_attention(q, k, v, valid, AttentionPattern("dense"))
    pattern = AttentionPattern("blocktopk", size=8, k=1)
    chosen, _ = sparse_attention(q, k, v, valid, pattern)
    real = valid[:, None, :, None]
    torch.testing.assert_close(chosen.where(real, 0), dense.where(real, 0), rtol=0, atol=0)


def test_blocktopk_keeps_blocks_that_tie_with_the_last_kept_one() -> None:
    q = torch.ones(1, 1, 10, 4)
    k = torch.tensor([0.0, 0.0, 1.0, 1.0, 3.0, 3.0, 1.0, 1.0, 0.0, 0.0])[None, None, :, None]
    pattern = AttentionPattern("blocktopk", size=2, k=2)
    valid = torch.ones(1, 10, dtype=torch.bool)
    _, probabilities = sparse_attention(q, k.expand_as(q), q, valid, pattern)
    seen = probabilities[0, 0].unflatten(1, (5, 2)).sum(-1) > 0
    assert seen[0].all()  # [CLS] sees every key
    assert seen[1].tolist() == [True, True, True, True, False]
    assert seen[9].tolist() == [True] * 5  # the last block sees itself


def test_autocast_does_not_tie_scores() -> None:
    q, k, v, valid = random_input([64])
    pattern = AttentionPattern("topk", density=0.25)
    with torch.autocast("cpu", torch.bfloat16):
        _, probabilities = sparse_attention(q, k, v, valid, pattern)
    assert ((probabilities > 0).sum(-1) == 16).all()


@pytest.mark.parametrize(
    "pattern",
    [AttentionPattern("topk", k=1), AttentionPattern("blocktopk", size=1, k=1)],
    ids=str,
)
def test_a_nan_score_stays_visible(pattern: AttentionPattern) -> None:
    q, k, v, valid = random_input([6])
    k[0, 0, 2] = torch.nan
    context, _ = sparse_attention(q, k, v, valid, pattern)
    assert context[0, 0].isnan().all()
    assert context[0, 1].isfinite().all()


@every_pattern
def test_transformers_obeys_pattern_and_padding(base: Path, pattern: AttentionPattern) -> None:
    """Through the real DistilBERT: with the mask function missing or the pattern forgotten, the
    logits of a padded text would differ from those of the same text alone."""
    from training.model import load_base

    register_attention()
    model, tokenizer = load_base(str(base), ("negative", "positive"), pattern)
    model.eval()
    assert model.config._attn_implementation == IMPLEMENTATION
    assert getattr(model.config, CONFIG_FIELD) == pattern.to_dict()
    texts = ["good", "that meal was so very very bad and cold and dull and awful"]
    padded = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        together = model(**padded).logits
        for i, text in enumerate(texts):
            alone = model(**tokenizer(text, return_tensors="pt")).logits[0]
            torch.testing.assert_close(together[i], alone)
        unmasked = model(input_ids=padded["input_ids"]).logits[0]
    assert not torch.allclose(unmasked, together[0], atol=1e-4)
