"""The search for a pruning schedule: its cost model against a plain count, its walk against the
definition, and the command on a tiny run."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import crisp
from training.attention.registry import LINK_RULES
from training.config import TrainingSettings
from training.cost import EncoderShape, links, multiply_adds
from training.finetune import finetune
from training.pattern import AttentionPattern
from training.prune_search import FLOORS, SHARES, Found, Point, Searcher, pareto_front, steps
from training.pruning import TokenPruning

SHAPE = EncoderShape(layers=3, hidden=5, feed_forward=7)


def test_the_cost_is_a_plain_count() -> None:
    """Matrix by matrix, for 10 tokens of which 6 and then 4 are left."""
    pruning = TokenPruning((0.5, 0.25), floor=2)
    assert [pruning.kept(i, 10) for i in range(2)] == [6, 4]
    one_projection, feed_forward = 5 * 5, 2 * 5 * 7
    first = 3 * 10 * one_projection + 2 * 10 * 10 * 5 + 6 * (one_projection + feed_forward)
    second = 3 * 6 * one_projection + 2 * 6 * 6 * 5 + 4 * (one_projection + feed_forward)
    last = (1 + 2 * 4) * one_projection + 2 * 1 * 4 * 5 + 1 * (one_projection + feed_forward)
    assert multiply_adds(10, SHAPE, AttentionPattern(), pruning) == first + second + last


@given(st.integers(1, 300), st.lists(st.sampled_from(SHARES), min_size=2, max_size=2))
def test_pruning_never_costs_more(length: int, keep: list[float]) -> None:
    pruning = TokenPruning(tuple(sorted(keep, reverse=True)))
    whole = multiply_adds(length, SHAPE, AttentionPattern(), None)
    nothing = TokenPruning((1.0, 1.0))
    assert multiply_adds(length, SHAPE, AttentionPattern(), nothing) == whole
    assert multiply_adds(length, SHAPE, AttentionPattern(), pruning) <= whole


@pytest.mark.parametrize(
    "pattern",
    [
        AttentionPattern("band", window=5, globals=1),
        AttentionPattern("block", size=4, globals=2),
        AttentionPattern("blocktopk", size=4, k=2),
    ],
    ids=str,
)
@given(length=st.integers(1, 40))
def test_links_are_at_least_those_of_the_reference(pattern: AttentionPattern, length: int) -> None:
    valid = torch.ones(1, length, dtype=torch.bool)
    scores = torch.randn(1, 1, length, length, generator=torch.Generator().manual_seed(length))
    kept = LINK_RULES[pattern.name](scores, valid, pattern).expand(1, 1, length, length)
    assert int(kept.sum()) <= links(length, length, pattern) <= length * length


def test_topk_computes_every_score() -> None:
    assert links(7, 9, AttentionPattern("topk", k=1)) == 63


@given(st.lists(st.sampled_from(SHARES), min_size=1, max_size=5), st.sampled_from(FLOORS))
def test_a_step_is_one_notch_and_never_dearer(keep: list[float], floor: int) -> None:
    pruning = TokenPruning(tuple(sorted(keep, reverse=True)), floor)
    found = steps(pruning)
    assert len(found) == sum(share > SHARES[-1] for share in keep) + (floor > FLOORS[-1])
    for step in found:
        assert step != pruning
        assert all(new <= old for new, old in zip(step.keep, pruning.keep, strict=True))
        assert step.floor <= pruning.floor


def point(accuracy: float, cost: float) -> Point:
    return Point(TokenPruning((cost,)), {"a": Found(accuracy, 1.0, cost)})


@given(st.lists(st.tuples(st.sampled_from([0.5, 0.6, 0.7]), st.sampled_from([0.2, 0.4, 0.9]))))
def test_the_front_is_what_no_point_beats(pairs: list[tuple[float, float]]) -> None:
    front = {(p.found["a"].accuracy, p.cost) for p in pareto_front([point(*p) for p in pairs], "a")}
    beaten = {
        (accuracy, cost)
        for accuracy, cost in pairs
        if any((a >= accuracy and c <= cost) and (a, c) != (accuracy, cost) for a, c in pairs)
    }
    assert front == set(pairs) - beaten


@pytest.fixture(scope="module")
def run(
    base: Path, train_tsv: Path, dev_tsv: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "dense"
    settings = TrainingSettings(
        data=(str(train_tsv),),
        dev=(str(dev_tsv),),
        base=str(base),
        epochs=4,
        learning_rate=5e-3,
        max_tokens=24,
        precision="fp32",
    )
    finetune(settings, out)
    return out


def test_the_command_searches_goes_on_and_refuses(
    run: Path, dev_tsv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.prune_search.SHARES", (1.0, 0.5, 0.2))
    monkeypatch.setattr("training.prune_search.FLOORS", (4, 2))
    measured: list[TokenPruning] = []
    original = Searcher._found

    def counted(self: Searcher, texts: object, pruning: TokenPruning) -> Found:
        measured.append(pruning)
        return original(self, texts, pruning)  # type: ignore[arg-type]

    monkeypatch.setattr(Searcher, "_found", counted)
    file, picture = tmp_path / "search.json", tmp_path / "search.png"
    command = ["prune-search", str(run), "--data", str(dev_tsv), "--json", str(file)]
    command += ["--plot", str(picture), "--sample", "30", "--within", "5"]
    done = CliRunner().invoke(crisp.app, command)
    assert done.exit_code == 0, done.output
    values = json.loads(file.read_text())
    points = {p.pruning: p for p in map(Point.from_dict, values["points"])}
    trace = [points[TokenPruning.from_dict(each)] for each in values["trace"]]
    assert len(measured) == len(set(measured)) == len(points)
    assert trace[0].pruning == TokenPruning((1.0,), 4)
    assert trace[0].cost == 1
    (name,) = trace[0].found
    for before, after in pairwise(trace):
        assert after.pruning in steps(before.pruning)
        assert after.cost < before.cost
        assert after.found[name].accuracy >= trace[0].found[name].accuracy - 0.05
    for step in steps(trace[-1].pruning):  # why it ended here: nothing saved, or too much lost
        if step in points:
            assert points[step].found[name].accuracy < trace[0].found[name].accuracy - 0.05
        else:
            assert all(step.kept(0, n) == trace[-1].pruning.kept(0, n) for n in range(1, 25))
    assert values["chosen"] == trace[-1].pruning.to_dict()
    assert "crisp train --prune " in done.output
    assert picture.read_bytes().startswith(b"\x89PNG")

    # Interrupted: what was measured is not measured again.
    values["points"], values["trace"] = values["points"][:2], []
    file.write_text(json.dumps(values))
    before = len(measured)
    again = CliRunner().invoke(crisp.app, command)
    assert again.exit_code == 0, again.output
    assert len(measured) - before == len(points) - 2
    assert json.loads(file.read_text())["chosen"] == trace[-1].pruning.to_dict()

    other = CliRunner().invoke(crisp.app, [*command, "--sample", "20"])
    assert other.exit_code != 0
    assert "a search with another texts" in str(other.exception)
    file.write_text("{}")
    broken = CliRunner().invoke(crisp.app, command)
    assert "holds no search" in str(broken.exception)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--sample", "0"], "--sample of at least 1"),
        (["--within", "-1"], "--within of at least 0"),
        (["--plot", "nowhere/front.png"], "a file in a folder that exists"),
        (["--json", "nowhere/search.json"], "cannot be written"),
    ],
)
def test_bad_options(run: Path, dev_tsv: Path, arguments: list[str], complaint: str) -> None:
    command = ["prune-search", str(run), "--data", str(dev_tsv), *arguments]
    done = CliRunner().invoke(crisp.app, command)
    assert done.exit_code == 2
    assert complaint in " ".join(done.output.replace("│", " ").split())
