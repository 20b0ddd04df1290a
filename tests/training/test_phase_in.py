"""Links that become fewer: how fast, that a run uses it, and what it ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from training.attention.registry import CONFIG_FIELD
from training.config import TrainingSettings
from training.errors import TrainingError
from training.finetune import finetune
from training.model import load_checkpoint
from training.pattern import AttentionPattern
from training.phase_in import PhaseIn

TOPK = AttentionPattern("topk", density=0.2)


def phase_in(pattern: AttentionPattern, share: float) -> PhaseIn:
    class Model:
        config = object()

    return PhaseIn(cast(PreTrainedModel, Model()), pattern, share)


@given(share=st.floats(0.01, 0.99), done=st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_links_only_become_fewer_and_end_where_they_should(share: float, done: list[float]) -> None:
    phases = phase_in(TOPK, share)
    early, late = (phases.pattern(each).density or 0 for each in sorted(done))
    assert 1 >= early >= late >= 0.2
    assert phases.pattern(0).density == 1
    assert phases.pattern(share) == phases.pattern(1) == TOPK


def test_half_way_through_it_half_of_the_links_to_lose_are_lost() -> None:
    assert phase_in(TOPK, 0.5).pattern(0.25).density == pytest.approx(0.6)


@pytest.mark.parametrize("pattern", [AttentionPattern(), AttentionPattern("topk", k=3)])
def test_a_pattern_without_a_density_is_refused(pattern: AttentionPattern) -> None:
    with pytest.raises(TrainingError, match="only a density can be phased in"):
        phase_in(pattern, 0.5)


def test_a_training_goes_through_it(
    base: Path, train_tsv: Path, dev_tsv: Path, tmp_path: Path
) -> None:
    seen: list[float] = []

    class Sees(TrainerCallback):
        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any
        ) -> None:
            del args, state, control
            seen.append(getattr(kw["model"].config, CONFIG_FIELD)["density"])

    settings = TrainingSettings(
        data=(str(train_tsv),),
        dev=(str(dev_tsv),),
        base=str(base),
        attention=TOPK,
        phase_in=0.5,
        epochs=1,
        max_tokens=24,
        batch_size=32,
    )
    finetune(settings, tmp_path / "run", callbacks=[Sees()])
    assert seen[0] == 1
    assert seen == sorted(seen, reverse=True)
    assert seen.index(0.2) == (len(seen) + 1) // 2
    assert load_checkpoint(tmp_path / "run")[2] == TOPK
