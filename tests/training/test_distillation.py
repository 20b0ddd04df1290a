"""Learning from a teacher: the loss against its definition, and a student on a tiny model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.batches import Encodings
from training.config import RunRecord, TrainingSettings
from training.distillation import (
    TEACHER_SHARE,
    TEMPERATURE,
    check_states,
    distillation_loss,
    states_loss,
)
from training.errors import RunError, TrainingError
from training.finetune import finetune
from training.model import load_base, load_checkpoint
from training.narrow import narrow_run
from training.pattern import AttentionPattern
from training.pruned_model import pruning_of
from training.pruning import TokenPruning
from training.teachers import load_teacher, mean_logits

logit = st.floats(-10, 10, width=32)


def softmax(logits: list[float], temperature: float) -> list[float]:
    weights = [math.exp(x / temperature) for x in logits]
    return [weight / sum(weights) for weight in weights]


@given(st.data(), st.integers(1, 4), st.integers(2, 3))
def test_the_loss_is_its_definition(data: st.DataObject, texts: int, classes: int) -> None:
    row = st.lists(logit, min_size=classes, max_size=classes)
    student = [data.draw(row) for _ in range(texts)]
    teacher = [data.draw(row) for _ in range(texts)]
    labels = [data.draw(st.integers(0, classes - 1)) for _ in range(texts)]
    expected = 0.0
    for s, t, label in zip(student, teacher, labels, strict=True):
        hard = -math.log(softmax(s, 1.0)[label])
        pairs = zip(softmax(t, TEMPERATURE), softmax(s, TEMPERATURE), strict=True)
        soft = sum(p * math.log(p / q) for p, q in pairs)
        expected += (1 - TEACHER_SHARE) * hard + TEACHER_SHARE * TEMPERATURE**2 * soft
    loss = distillation_loss(torch.tensor(student), torch.tensor(teacher), torch.tensor(labels))
    assert float(loss) == pytest.approx(expected / texts, abs=1e-4)


@pytest.fixture(scope="module")
def settings(base: Path, train_tsv: Path, dev_tsv: Path) -> TrainingSettings:
    return TrainingSettings(
        data=(str(train_tsv),),
        dev=(str(dev_tsv),),
        base=str(base),
        epochs=4,
        learning_rate=5e-3,
        batch_size=16,
        max_tokens=24,
        precision="fp32",
    )


@pytest.fixture(scope="module")
def dense(settings: TrainingSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "dense"
    finetune(settings, out)
    return out


def test_a_pruned_student_learns_from_the_run_it_started_from(
    settings: TrainingSettings, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def recorded(logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        seen.append((logits.detach(), teacher_logits))
        assert not teacher_logits.requires_grad
        return distillation_loss(logits, teacher_logits, labels)

    monkeypatch.setattr("training.trainer.distillation_loss", recorded)
    student = replace(
        settings,
        base=str(dense),
        teachers=(str(dense),),
        pruning=TokenPruning((0.5,), floor=4),
        epochs=1,
    )
    finetune(student, tmp_path / "student")
    assert len(seen) == 15  # one a step
    first, expected = seen[0]  # the head is kept: from the first step it says nearly the same
    assert (first.argmax(1) == expected.argmax(1)).float().mean() > 0.7
    record = RunRecord.load(tmp_path / "student")
    assert record.settings == student
    (dev,) = [key for key in record.history[-1] if key.endswith("dev.tsv")]
    assert record.history[-1][dev]["accuracy"] > 0.85
    model, _, _ = load_checkpoint(tmp_path / "student")
    assert pruning_of(model) == student.pruning


def test_a_teacher_that_does_not_fit(dense: Path, base: Path, tmp_path: Path) -> None:
    _, tokenizer = load_base(str(base), ("negative", "positive"), AttentionPattern())
    assert not any(
        p.requires_grad
        for p in load_teacher(dense, ("negative", "positive"), tokenizer).parameters()
    )
    with pytest.raises(RunError, match=r"tells negative, positive apart, .* cat, dog"):
        load_teacher(dense, ("cat", "dog"), tokenizer)
    with pytest.raises(RunError, match="no finished run"):
        load_teacher(tmp_path, ("negative", "positive"), tokenizer)
    tokenizer.add_tokens(["another"])
    with pytest.raises(RunError, match="another vocabulary"):
        load_teacher(dense, ("negative", "positive"), tokenizer)


@given(seed=st.integers(0, 1000), layers=st.integers(1, 3))
def test_the_loss_of_states_is_of_real_tokens_in_units_of_the_variance(
    seed: int, layers: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    ours = [torch.randn(2, 4, 3, generator=random) for _ in range(layers)]
    theirs = [torch.randn(2, 4, 3, generator=random) for _ in range(layers)]
    expected = 0.0
    for a, b in zip(ours, theirs, strict=True):
        pairs = [
            (float(a[text, token, unit]), float(b[text, token, unit]))
            for text, token in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))
            for unit in range(3)
        ]
        targets = [b for _, b in pairs]
        mean = sum(targets) / len(targets)
        variance = sum((b - mean) ** 2 for b in targets) / (len(targets) - 1)
        expected += sum((a - b) ** 2 for a, b in pairs) / len(pairs) / variance
    found = float(states_loss(ours, theirs, mask))
    assert found == pytest.approx(expected, rel=1e-4)
    for a in ours:
        a[0, 3] += 5  # padding
    assert float(states_loss(ours, theirs, mask)) == pytest.approx(found)


def test_a_narrow_student_learns_the_states_of_its_teacher(
    settings: TrainingSettings, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow_run(dense, tmp_path / "narrow", (8, 8), epochs=1)
    seen: list[float] = []

    def recorded(ours: Sequence[Tensor], theirs: Sequence[Tensor], mask: Tensor) -> Tensor:
        assert len(ours) == len(theirs) == 2
        loss = states_loss(ours, theirs, mask)
        seen.append(float(loss.detach()))
        return loss

    monkeypatch.setattr("training.trainer.states_loss", recorded)
    asked = replace(settings, base=str(tmp_path / "narrow"), teachers=(str(dense),), epochs=6)
    finetune(replace(asked, teacher_states=True), tmp_path / "taught")
    assert sum(seen[-5:]) < 0.9 * sum(seen[:5])


def test_states_that_cannot_be_compared_are_refused(
    settings: TrainingSettings, dense: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="needs one --teacher"):
        replace(settings, teacher_states=True)
    pruned = replace(settings, teachers=(str(dense),), teacher_states=True)
    with pytest.raises(RunError, match="student drops tokens"):
        finetune(replace(pruned, pruning=TokenPruning((0.5,))), tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()
    (teacher, _, _), (student, _, _) = load_checkpoint(dense), load_checkpoint(dense)
    student.config.n_layers = 1
    with pytest.raises(RunError, match="n_layers is 2, the student's 1"):
        check_states(teacher, student)


def test_an_ensemble_says_the_mean_of_what_its_runs_say_and_remembers_it(
    settings: TrainingSettings, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.teachers.fastest_precision", lambda _: "fp32")
    finetune(replace(settings, seed=1, epochs=1), tmp_path / "other")
    runs, names = [str(dense), str(tmp_path / "other")], ("negative", "positive")
    _, tokenizer = load_base(settings.base, names, AttentionPattern())
    texts = Encodings([[2, 5, 6, 3], [2, 7, 3], [2, 9, 8, 7, 6, 3]], [0, 1, 0])
    expected = torch.zeros(3, 2)
    for run in runs:
        model, _, _ = load_checkpoint(Path(run))
        for i, ids in enumerate(texts.input_ids):
            with torch.no_grad():
                expected[i] += model(input_ids=torch.tensor([ids])).logits[0] / 2
    found = mean_logits(runs, names, tokenizer, texts)
    torch.testing.assert_close(torch.tensor(found), expected, atol=1e-5, rtol=1e-4)

    monkeypatch.setattr("training.teachers._logits", None)  # is not computed again
    again = mean_logits(runs, names, tokenizer, texts)
    assert (again == found).all()
    with pytest.raises(TypeError):  # other texts would be
        mean_logits(runs, names, tokenizer, Encodings(texts.input_ids[:2], texts.labels[:2]))

    monkeypatch.undo()
    finetune(replace(settings, teachers=tuple(runs), epochs=1), tmp_path / "student")
    assert RunRecord.load(tmp_path / "student").settings.teachers == tuple(runs)
