"""`crisp explain`: the same explanation as the service's, coloured for a terminal."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import crisp
from export.errors import ExportError
from service.engine import Engine
from service.errors import InputError, ModelsError
from service.explain import ExplainedModel, Explanation, explain
from service.explain_command import coloured, layers_table

TEXT = "This is not a good story,\nit is slow \x1b[31m and long"


@pytest.fixture(scope="module")
def explanation(models_dir: Path) -> Explanation:
    engine = Engine.load(models_dir / "sparse", threads=1)
    return explain(engine, ExplainedModel(engine.folder, engine.library), TEXT)


def run(models: Path, *arguments: str) -> str:
    command = ["explain", "--models", str(models), *arguments]
    result = CliRunner().invoke(crisp.app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_is_the_explanation(models_dir: Path, explanation: Explanation) -> None:
    found = json.loads(run(models_dir, "--json", TEXT))
    assert found == json.loads(json.dumps(asdict(explanation)))


def test_the_terminal_shows_the_label_the_text_and_each_layer(
    models_dir: Path, explanation: Explanation
) -> None:
    shown = run(models_dir, "--layer", "1", TEXT)
    assert f"{explanation.prediction.label}  {explanation.prediction.score:.3f}" in shown
    assert "This is not a good story" in shown
    assert "\x1b[31m" not in shown
    dropped = explanation.layers[0].tokens - explanation.layers[0].passed_on
    assert dropped > 0
    assert [str(explanation.layers[0].tokens), str(dropped)] in [
        line.replace("│", " ").split()[1:3] for line in shown.splitlines()
    ]


def test_colours_say_what_the_layer_says(explanation: Explanation) -> None:
    for layer in range(len(explanation.layers)):
        text = coloured(TEXT, explanation, layer)
        assert text.plain == TEXT.replace("\x1b", " ")
        words = [token for token in explanation.tokens if not token.special]
        styles = {(span.start, span.end): span.style for span in text.spans}
        for token in words:
            style = styles[token.start, token.end]
            assert style.strike is (True if len(token.received) <= layer else None)
        hottest = max(
            (token for token in words if len(token.received) > layer),
            key=lambda token: token.received[layer],
        )
        assert styles[hottest.start, hottest.end].bgcolor.name == "#ffa600"
    assert layers_table(explanation).row_count == len(explanation.layers)


def test_a_character_of_several_tokens_is_shown_once(explanation: Explanation) -> None:
    """Korean: each syllable is a token for each of its letters."""
    first = next(token for token in explanation.tokens if not token.special)
    places = [(0, 1), (0, 1), (0, 1), (1, 2), (1, 2), (3, 5), (4, 7)]
    tokens = [replace(first, start=start, end=end) for start, end in places]
    text = "한국 good"
    assert coloured(text, replace(explanation, tokens=tokens), 0).plain == text


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["--layer", "3", "good"], InputError, "has 2 layers"),
        ([" "], InputError, "is empty"),
        (["--variant", "huge", "good"], ModelsError, "known: dense, sparse"),
        (["--models", "/nowhere", "good"], ModelsError, "is not a folder"),
    ],
)
def test_what_it_cannot_do_is_one_line(
    models_dir: Path, arguments: list[str], error: type[Exception], words: str
) -> None:
    with pytest.raises((error, ExportError), match=words):
        run(models_dir, *arguments)
