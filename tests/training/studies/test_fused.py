"""The fused step in C++ against torch: losses, gradients, and whole epochs."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from training.pattern import AttentionPattern
from training.study import fit
from training.study.batch_pass import batch_pass
from training.study.descent import Descent
from training.study.dropout import Dropout, Dropped
from training.study.encoder import EncoderSize, forward, initial_parameters
from training.study.fused import step as fused
from training.study.fused.step import fused_serves, fused_step
from training.study.mechanisms import MECHANISMS
from training.study.tasks.registry import TASKS
from training.study.tasks.task import draw_examples

pytestmark = pytest.mark.skipif(
    not (shutil.which("c++") or shutil.which("g++")), reason="torch alone where no C++ compiler is"
)

CPU = torch.device("cpu")
SIZE = EncoderSize(symbols=5, classes=3, blocks=2)
MODELS = 3
UNCLIPPED = Descent(rate=1.0, clip=math.inf)  # a step is the gradient
# More than a vector, a whole one, less than one; a text of one token, and of fewer than k.
LENGTHS = (37, 32, 20, 8, 3, 1)


@pytest.fixture
def forgotten() -> Iterator[None]:
    """The library is built anew, and again afterwards."""
    fused._library.cache_clear()
    yield
    fused._library.cache_clear()


def texts() -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, lengths and labels of a batch for each model, of a seed with which no two scores are
    so near that the last bits decide which link is kept."""
    generator = torch.Generator().manual_seed(0)
    shape = (MODELS, len(LENGTHS))
    lengths = torch.tensor(LENGTHS).expand(shape)
    tokens = torch.randint(1, SIZE.symbols + 1, (*shape, max(LENGTHS)), generator=generator)
    labels = torch.randint(0, SIZE.classes, shape, generator=generator)
    return tokens * (torch.arange(max(LENGTHS)) < lengths[..., None]), lengths, labels


def decided() -> dict[str, Tensor]:
    """Parameters with which every unit is well above ReLU's threshold or well below it: where the
    last bits decide, gradients differ by a token's."""
    parameters = initial_parameters(SIZE, range(MODELS))
    for block in range(SIZE.blocks):
        parameters[f"{block}.up.bias"][..., ::2] += 4
        parameters[f"{block}.up.bias"][..., 1::2] -= 4
    return parameters


def test_a_batch_goes_by_the_fused_step_where_it_serves() -> None:
    parameters, batch = initial_parameters(SIZE, range(MODELS)), texts()
    pattern = MECHANISMS["topk-5"]
    losses, _ = batch_pass(parameters, batch, SIZE, pattern)
    assert torch.equal(losses, fused_step(parameters, *batch, SIZE, pattern)[0])


@pytest.mark.parametrize("name", MECHANISMS)
def test_losses_and_gradients_are_torchs(name: str) -> None:
    pattern, parameters, batch = MECHANISMS[name], decided(), texts()
    assert fused_serves(SIZE, pattern, CPU)
    found, expected = (
        {name: tensor.clone() for name, tensor in parameters.items()} for _ in range(2)
    )
    (losses, right), (plain_losses, plain_right) = (
        batch_pass(
            changed,
            batch,
            SIZE,
            pattern,
            drop=Dropout(0.1, range(MODELS)),
            descent=UNCLIPPED,
            plain=plain,
        )
        for changed, plain in ((found, False), (expected, True))
    )
    torch.testing.assert_close(losses, plain_losses, atol=1e-5, rtol=1e-5)
    assert torch.equal(right, plain_right)
    for key, before in parameters.items():
        gradients = before - found[key], before - expected[key]
        torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-3)


def test_products_keep_at_least_sixteen_bits() -> None:
    """Unsplit bfloat16 rounds by a five-hundredth, TF32 by a two-thousandth."""
    parameters, batch = decided(), texts()
    found = {name: tensor.clone() for name, tensor in parameters.items()}
    exact = {name: tensor.double() for name, tensor in parameters.items()}
    batch_pass(found, batch, SIZE, MECHANISMS["full"], descent=UNCLIPPED)
    torch.set_default_dtype(torch.float64)
    try:
        batch_pass(exact, batch, SIZE, MECHANISMS["full"], descent=UNCLIPPED, plain=True)
    finally:
        torch.set_default_dtype(torch.float32)
    gradient, error = (
        torch.cat([(each - exact[name]).flatten(1) for name, each in those.items()], dim=1)
        for those in (parameters, found)
    )
    assert (error.norm(dim=1) / gradient.norm(dim=1)).max() < 2e-5


def test_each_model_is_clipped_by_its_own_norm() -> None:
    parameters, batch = initial_parameters(SIZE, range(MODELS)), texts()
    parameters["head.weight"][1] *= 100  # whose gradients are steep
    norms = []
    for plain in (False, True):
        changed = {name: tensor.clone() for name, tensor in parameters.items()}
        descent = Descent(rate=2.0, clip=0.5)
        batch_pass(changed, batch, SIZE, MECHANISMS["full"], descent=descent, plain=plain)
        steps = [(parameters[name] - changed[name]).flatten(1) for name in parameters]
        norms.append(torch.cat(steps, dim=1).norm(dim=1))
    torch.testing.assert_close(norms[0], norms[1], atol=1e-5, rtol=1e-4)
    assert norms[0][1].item() == pytest.approx(2.0 * 0.5, rel=1e-3)


@pytest.mark.usefixtures("forgotten")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have one width")
@pytest.mark.parametrize("less", ["-DFUSED_WITHOUT_AMX", "-mno-avx512f", "-mno-avx"])
def test_a_lesser_processor_gives_torchs_results(
    less: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "_FLAGS", (*fused._FLAGS, less))
    for name in ("full", "topk-5", "bottomk-5", "band-5"):
        test_losses_and_gradients_are_torchs(name)
    test_a_share_of_the_links_and_other_sizes()


def test_a_share_of_the_links_and_other_sizes() -> None:
    size = EncoderSize(symbols=2, classes=2, blocks=1)
    split = draw_examples(TASKS["even-pairs"], length=50, train=60, held_out=60, seed=1)
    for pattern in (AttentionPattern("topk", density=0.4), AttentionPattern("random", density=0.1)):
        state = fit.start(size, (5, 6))
        plain = fit.evaluate(state, split.held_out, size, pattern, plain=True)
        torch.testing.assert_close(fit.evaluate(state, split.held_out, size, pattern), plain)


@pytest.mark.parametrize("name", ["full", "topk-5", "block-5-1"])
def test_an_epoch_is_torchs_epoch(name: str) -> None:
    size, pattern = EncoderSize(symbols=2, classes=2, blocks=2), MECHANISMS[name]
    split = draw_examples(TASKS["even-pairs"], length=12, train=200, held_out=100, seed=0)
    states = [fit.start(size, (0, 1)) for _ in range(2)]
    for state, plain in zip(states, (True, False), strict=True):
        parts = split.train, split.held_out, size, pattern, fit.Optimisation()
        fit.train_epoch(state, *parts, plain=plain)
    for key, tensor in states[0].parameters.items():
        torch.testing.assert_close(states[1].parameters[key], tensor, atol=1e-4, rtol=1e-3)
    first, second = (state.curves[0] for state in states)
    assert second.train_loss == pytest.approx(first.train_loss, abs=1e-4)
    assert second.held_out_loss == pytest.approx(first.held_out_loss, abs=1e-4)


def test_threads_and_company_change_nothing() -> None:
    pattern, parameters, batch = MECHANISMS["topk-5"], initial_parameters(SIZE, range(3)), texts()
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            changed = {name: tensor.clone() for name, tensor in parameters.items()}
            losses, _ = fused_step(changed, *batch, SIZE, pattern, descent=UNCLIPPED)
            found.append({"losses": losses, **changed})
    finally:
        torch.set_num_threads(before)
    last = {name: tensor[2:].clone() for name, tensor in parameters.items()}
    mine = [tensor[2:] for tensor in batch]
    losses, _ = fused_step(last, *mine, SIZE, pattern, descent=UNCLIPPED)
    for key, tensor in {"losses": losses, **last}.items():
        assert torch.equal(found[0][key], found[1][key])
        assert torch.equal(found[0][key][2:], tensor)


def test_a_pass_in_which_nothing_is_dropped_is_scaled_too() -> None:
    parameters, batch = initial_parameters(SIZE, range(MODELS)), texts()
    # So small a scale that LayerNorm's ε shows it.
    nothing = torch.zeros(0, dtype=torch.int64), torch.zeros(MODELS + 1, dtype=torch.int64)
    dropped = Dropped(*nothing, count=batch[0][0].numel() * SIZE.width, scale=1e-3)
    losses, _ = fused_step(parameters, *batch, SIZE, MECHANISMS["full"], dropped=dropped)
    unscaled, _ = fused_step(parameters, *batch, SIZE, MECHANISMS["full"])
    logits = forward(parameters, *batch[:2], SIZE, MECHANISMS["full"], dropped=dropped)
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch[2].flatten(), reduction="none"
    )
    torch.testing.assert_close(losses.flatten(), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(losses, unscaled, atol=1e-2)


def test_what_is_not_finite_stays_visible() -> None:
    for name in ("full", "topk-5", "bottomk-5", "band-5"):
        parameters = initial_parameters(SIZE, range(MODELS))
        parameters["0.qkv.weight"][1, 0, 0] = torch.nan
        step = Descent(rate=0.1, clip=0.5)
        losses, _ = fused_step(parameters, *texts(), SIZE, MECHANISMS[name], descent=step)
        assert losses[1].isnan().all()
        assert losses[[0, 2]].isfinite().all()
        for parameter in parameters.values():
            assert parameter[1].isnan().all()  # its norm is not a number
            assert parameter[[0, 2]].isfinite().all()


def test_large_scores_neither_overflow_nor_vanish() -> None:
    parameters, batch = initial_parameters(SIZE, range(MODELS)), texts()
    parameters["0.qkv.weight"] *= 30
    for name in ("full", "topk-5", "bottomk-5"):
        losses, _ = fused_step(parameters, *batch, SIZE, MECHANISMS[name])
        expected, _ = batch_pass(parameters, batch, SIZE, MECHANISMS[name], plain=True)
        torch.testing.assert_close(losses, expected, atol=1e-4, rtol=1e-4)


def test_what_it_does_not_serve_is_left_to_torch() -> None:
    assert not fused_serves(EncoderSize(2, 2, 1, width=32), MECHANISMS["full"], CPU)
    assert not fused_serves(SIZE, MECHANISMS["full"], torch.device("meta"))
    blocks = AttentionPattern("blocktopk", size=4, density=0.5)
    assert not fused_serves(SIZE, blocks, CPU)
    wrong = initial_parameters(SIZE, range(MODELS))
    wrong["0.up.weight"] = wrong["0.up.weight"].transpose(1, 2)
    with pytest.raises(ValueError, match="contiguous"):
        fused_step(wrong, *texts(), SIZE, MECHANISMS["full"], descent=UNCLIPPED)
    tokens, lengths, labels = texts()
    parameters = initial_parameters(SIZE, range(MODELS))
    for beyond in ((tokens + 1, lengths, labels), (tokens, lengths, labels + 1)):
        with pytest.raises(ValueError, match="a token or a label is beyond"):
            fused_step(parameters, *beyond, SIZE, MECHANISMS["full"])


@pytest.mark.usefixtures("forgotten")
def test_without_a_compiler_torch_does_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert not fused_serves(SIZE, MECHANISMS["full"], CPU)
    assert "no C++ compiler" in capsys.readouterr().err


@pytest.mark.usefixtures("forgotten")
def test_what_cannot_be_built_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fused, "_FLAGS", ("-fno-such-thing",))
    assert not fused_serves(SIZE, MECHANISMS["full"], CPU)
    assert "training by torch alone" in capsys.readouterr().err


@pytest.mark.usefixtures("forgotten")
def test_what_cannot_be_loaded_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fused, "_FLAGS", ("-std=c++17", "-c"))  # an object, not a library
    assert not fused_serves(SIZE, MECHANISMS["full"], CPU)
    assert "training by torch alone" in capsys.readouterr().err


SANITIZED = """
import sys
import pytest
from training.study.fused import step
step._FLAGS += ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
sys.exit(pytest.main([sys.argv[1], "-k", "torchs or other_sizes or threads", *quiet]))
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the sanitizers' libraries are g++'s")
def test_it_is_clean_under_sanitizers() -> None:
    names = ("libasan.so", "libubsan.so", "libstdc++.so")
    asked = [["g++", f"-print-file-name={name}"] for name in names]
    libraries = [subprocess.check_output(each, text=True).strip() for each in asked]
    environment = os.environ | {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-c", SANITIZED, __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
