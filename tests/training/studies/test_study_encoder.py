"""The batched encoder: against an encoder of torch's own layers, and that no model sees another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.pattern import AttentionPattern
from training.study.encoder import (
    EncoderSize,
    forward,
    initial_parameters,
    positions,
)

SIZE = EncoderSize(symbols=4, classes=3, blocks=2, width=8)
DENSE = AttentionPattern("dense")
PATTERNS = (DENSE, AttentionPattern("topk", k=2), AttentionPattern("band", window=3, globals=1))
every_pattern = pytest.mark.parametrize("pattern", PATTERNS, ids=str)


def batch(models: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """tokens [M, 3, 6] and lengths [M, 3]."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([6, 4, 1]).expand(models, 3)
    tokens = torch.randint(1, 5, (models, 3, 6), generator=generator)
    return tokens * (torch.arange(6) < lengths[..., None]), lengths


def plain(parameters: dict[str, Tensor], symbols: Tensor) -> Tensor:
    """Logits [C] of one text [L] by one model, through torch's own modules."""
    width, length = SIZE.width, len(symbols)

    def linear(name: str) -> nn.Linear:
        weight = parameters[f"{name}.weight"]
        layer = nn.Linear(*weight.shape)
        layer.weight.data, layer.bias.data = weight.T, parameters[f"{name}.bias"][0]
        return layer

    table = torch.tensor(
        [
            [
                (np.cos if i % 2 else np.sin)(p / 10_000 ** (i // 2 * 2 / width))
                for i in range(width)
            ]
            for p in range(length)
        ],
        dtype=torch.float32,
    )
    hidden = parameters["embedding"][symbols] + table
    norm = nn.LayerNorm(width, elementwise_affine=False)
    for block in range(SIZE.blocks):
        query, key, value = linear(f"{block}.qkv")(norm(hidden)).split(width, dim=-1)
        context = nn.functional.scaled_dot_product_attention(query[None], key[None], value[None])[0]
        hidden = hidden + linear(f"{block}.out")(context)
        hidden = hidden + linear(f"{block}.down")(linear(f"{block}.up")(norm(hidden)).relu())
    logits: Tensor = linear("head")(norm(hidden).mean(dim=0))
    return logits


def test_it_computes_what_an_encoder_of_torchs_layers_computes() -> None:
    parameters = initial_parameters(SIZE, (3, 4))
    tokens, lengths = batch(2)
    logits = forward(parameters, tokens, lengths, SIZE, DENSE)
    assert logits.shape == (2, 3, 3)
    for m in range(2):
        one = {name: tensor[m] for name, tensor in parameters.items()}
        for b in range(3):
            expected = plain(one, tokens[m, b, : lengths[m, b]])
            torch.testing.assert_close(logits[m, b], expected, atol=1e-5, rtol=1e-5)


@every_pattern
def test_no_model_sees_another(pattern: AttentionPattern) -> None:
    parameters = initial_parameters(SIZE, (3, 4))
    for parameter in parameters.values():
        parameter.requires_grad_()
    tokens, lengths = batch(2)
    logits = forward(parameters, tokens, lengths, SIZE, pattern)
    alone = forward(
        {name: tensor[1:] for name, tensor in parameters.items()},
        tokens[1:],
        lengths[1:],
        SIZE,
        pattern,
    )
    torch.testing.assert_close(logits[1:], alone)
    logits[1].sum().backward()
    for parameter in parameters.values():
        assert parameter.grad is not None
        assert not parameter.grad[0].any()
    assert parameters["0.qkv.weight"].grad is not None
    assert parameters["0.qkv.weight"].grad[1].any()


@every_pattern
def test_padding_changes_nothing(pattern: AttentionPattern) -> None:
    parameters = initial_parameters(SIZE, (5,))
    tokens, lengths = batch(1)
    logits = forward(parameters, tokens, lengths, SIZE, pattern)
    short = forward(parameters, tokens[:, 1:2, :4], lengths[:, 1:2], SIZE, pattern)
    torch.testing.assert_close(logits[:, 1:2], short)


def test_observers_see_the_scores_of_every_block() -> None:
    parameters = initial_parameters(SIZE, (1, 2))
    tokens, lengths = batch(2)
    seen: list[tuple[int, torch.Size, torch.Size]] = []

    def observe(block: int, query: Tensor, key: Tensor, valid: Tensor) -> None:
        assert key.shape == query.shape
        seen.append((block, query.shape, valid.shape))

    forward(parameters, tokens, lengths, SIZE, DENSE, observe=observe)
    assert seen == [(block, (6, 1, 6, 8), (6, 6)) for block in range(2)]


def test_a_seeds_weights_do_not_depend_on_the_others() -> None:
    together, alone = initial_parameters(SIZE, (7, 8, 9)), initial_parameters(SIZE, (8,))
    for name, tensor in together.items():
        assert torch.equal(tensor[1], alone[name][0])
        assert not torch.equal(tensor[1], tensor[0])
    bound = 1 / SIZE.width**0.5
    weight = together["0.up.weight"]
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.9 * bound


def test_positions_alternate_sine_and_cosine() -> None:
    table = positions(50, 4)
    assert table[0].tolist() == [0, 1, 0, 1]
    assert table[3, 0] == pytest.approx(np.sin(3))
    assert table[3, 3] == pytest.approx(np.cos(3 / 100))
