"""Which runs `crisp study crisp-attention` makes of what it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from training.data import read_examples
from training.pattern import AttentionPattern
from training.study.crisp_attention import (
    DENSE,
    TuningSettings,
    band_of_density,
    sparse_patterns,
)
from training.study.errors import StudyError
from training.study.runs import Run

CONTROLS = ("random", "bottomk", "band")
NO_CONTROL = "none"
USUAL_DROPOUT = TuningSettings.attention_dropout


def sweep(
    *,
    data: str,
    dev: Sequence[str],
    sparsities: Sequence[float],
    links: Sequence[int],
    controls: Sequence[str],
    control_sparsity: float,
    dropouts: Sequence[float],
    phases: Sequence[float],
    fractions: Sequence[float],
    seeds: int,
    base: str,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    max_tokens: int,
    keep_weights: bool,
) -> list[Run]:
    """The runs, those of one fraction and seed side by side, so that a study that is stopped early
    has whole comparisons. Raises TrainingError where something makes no sense or cannot be read."""
    patterns = sparse_patterns(sparsities)
    patterns += [AttentionPattern("topk", k=k) for k in links]
    (control,) = sparse_patterns([control_sparsity])
    if control == DENSE and (phases or set(controls) - {NO_CONTROL}):
        raise StudyError("controls and phases need a --control-sparsity above 0")
    others = _controls(controls, control, data, base, max_tokens)
    sparse = [pattern for pattern in (*patterns, *others) if pattern != DENSE]
    first = TuningSettings(
        data=data,
        dev=tuple(dev),
        seed=0,
        base=base,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        max_tokens=max_tokens,
        keep_weights=keep_weights,
    )
    runs = []
    for fraction in fractions:
        for seed in range(seeds):
            here = replace(first, fraction=fraction, seed=seed)
            for pattern in dict.fromkeys([*patterns, *others]):
                inference = tuple(sparse) if pattern == DENSE else ()
                runs.append(replace(here, attention=pattern, inference=inference).run())
            runs += [
                replace(here, attention_dropout=dropout).run()
                for dropout in dropouts
                if dropout != USUAL_DROPOUT
            ]
            runs += [replace(here, attention=control, phase_in=phase).run() for phase in phases]
    return runs


def _controls(
    names: Sequence[str], pattern: AttentionPattern, data: str, base: str, max_tokens: int
) -> list[AttentionPattern]:
    found = []
    for name in names:
        if name == NO_CONTROL:
            continue
        if name not in CONTROLS:
            raise StudyError(
                f"unknown control {name!r}; known: {', '.join((*CONTROLS, NO_CONTROL))}"
            )
        if name == "band":
            found.append(band_of_density(pattern.density or 1.0, _lengths(data, base, max_tokens)))
        else:
            found.append(AttentionPattern(name, density=pattern.density))
    return found


def _lengths(data: str, base: str, max_tokens: int) -> list[int]:
    """Tokens of each training text."""
    from training.finetune import encode
    from training.model import load_base

    texts = read_examples(data)
    _, tokenizer = load_base(base, texts.label_names, DENSE)
    return encode(texts, tokenizer, max_tokens).lengths
