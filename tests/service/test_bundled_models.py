"""The pair that comes with the checkout: whole, small, sparse, right about plain sentences, and
described by its card."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from export.manifest import ModelFolder
from export.op_library import OpLibrary
from service.engine import Engine

BUNDLED = Path(__file__).parents[2] / "service" / "models"
CARD = BUNDLED / "README.md"
SENTENCES = {
    "A warm, funny film that never talks down to its audience.": "positive",
    "Two hours that I will not get back.": "negative",
    "I would happily watch it again tomorrow.": "positive",
    "The plot is thin, the jokes are stale and the acting is worse.": "negative",
    "It is not without charm, and I was not bored for a minute.": "positive",
    "Nothing about it is good.": "negative",
}


@pytest.mark.parametrize("name", ["dense", "sparse"])
def test_the_folder_is_whole_and_small(name: str) -> None:
    folder = ModelFolder.load(BUNDLED / name)
    manifest = folder.manifest
    assert sum(facts.bytes for facts in manifest.files.values()) <= 25_000_000
    assert manifest.precision == "int8"
    assert manifest.max_tokens == 512
    dense = {"name": "dense"}
    assert manifest.attention == (
        dense if name == "dense" else {"name": "blocktopk", "size": 64, "k": 4}
    )
    pruning = {"keep": [1.0, 1.0, 0.7, 0.3, 0.1], "floor": 8}
    assert manifest.pruning == (None if name == "dense" else pruning)
    assert {found.data.name for found in manifest.measured} >= {"sst2/dev.tsv", "imdb/dev.tsv"}


def test_the_pair_has_the_same_weights() -> None:
    dense, sparse = (ModelFolder.load(BUNDLED / name).manifest for name in ("dense", "sparse"))
    assert dense.trained == sparse.trained
    assert dense.files["tokenizer.json"] == sparse.files["tokenizer.json"]


@pytest.mark.parametrize("name", ["dense", "sparse"])
@pytest.mark.parametrize("fallback", [False, True])
def test_plain_sentences(name: str, fallback: bool) -> None:
    library = OpLibrary(None, "switched off for this test") if fallback else None
    answer = Engine.load(BUNDLED / name, threads=1, library=library).predict(list(SENTENCES))
    found = dict(zip(SENTENCES, (p.label for p in answer.predictions), strict=True))
    assert found == SENTENCES


@pytest.mark.parametrize("name", ["dense", "sparse"])
def test_the_card_says_what_the_manifest_says(name: str) -> None:
    """Every accuracy of the card's table stands in the manifest, and the other way round."""
    measured = ModelFolder.load(BUNDLED / name).manifest.measured
    rows = re.findall(rf"^\| {name} \|.*$", CARD.read_text(encoding="utf-8"), flags=re.MULTILINE)
    expected = [
        f"| {name} | {m.data.name} | {m.data.rows} | {100 * m.accuracy:.2f} | "
        f"{100 * m.low:.2f} to {100 * m.high:.2f} |"
        for m in measured
    ]
    assert rows == expected
