"""What a run trains on and what it is measured on: the same split for all, found again later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import sentences, write_tsv

from training import data
from training.config import RunRecord, TrainingSettings
from training.data import LabelledTexts
from training.errors import DataError
from training.run_data import held_out_texts, load_data, records_of


def record_of(settings: TrainingSettings) -> RunRecord:
    train, dev, dropped = load_data(settings)
    return RunRecord(
        settings=settings,
        label_names=train[0].label_names,
        data=records_of(train),
        dev=records_of(dev),
        dropped_overlap=dropped,
        history=(),
        processes=1,
        seconds=0.0,
        versions={},
    )


def words(sets: list[LabelledTexts]) -> set[str]:
    return {example.text for texts in sets for example in texts.examples}


def test_runs_of_other_seeds_are_measured_on_the_same_texts(train_tsv: Path) -> None:
    settings = TrainingSettings(data=(str(train_tsv),))
    train, dev, _ = load_data(settings)
    assert len(dev[0]) == 12
    assert not words(train) & words(dev)
    for seed in (1, 2, 3):
        assert load_data(replace(settings, seed=seed)) == load_data(settings)


@pytest.mark.parametrize("dev", [True, False])
def test_what_a_run_was_measured_on_is_found_again(
    train_tsv: Path, dev_tsv: Path, *, dev: bool
) -> None:
    settings = TrainingSettings(data=(str(train_tsv),), dev=(str(dev_tsv),) if dev else (), seed=5)
    assert held_out_texts(record_of(settings)) == load_data(settings)[1]


def test_a_hub_data_set_has_a_validation_split(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(name: str, split: str) -> tuple[list[dict[str, object]], str, dict[str, list[str]]]:
        texts = sentences(20, 1 if split == "train" else 2)
        return [{"text": text, "label": label} for text, label in texts], f"{name} {split}", {}

    monkeypatch.setattr(data, "_rows_of_hub", rows)
    (found,) = held_out_texts(record_of(TrainingSettings(data=("someone/some-set",))))
    assert (found.name, found.sha256) == (
        "someone/some-set:validation",
        "someone/some-set validation",
    )


def test_a_rare_label_may_be_missing_in_some_of_the_sets(tmp_path: Path) -> None:
    def stars(name: str, *labels: int | str) -> str:
        rows = [(f"{name} {i}", label) for i, label in enumerate(labels * 3)]
        return str(write_tsv(tmp_path / f"{name}.tsv", rows))  # type: ignore[arg-type]

    two, three, dev = stars("two", 0, 1), stars("three", 0, 1, 2), stars("dev", 2, 1)
    for sources in ((two, three), (three, two)):
        train, (held,), _ = load_data(TrainingSettings(data=sources, dev=(dev,)))
        for texts in train:
            assert texts.label_names == ("0", "1", "2")
            written = {e.text: e.label for e in texts.examples}
            assert written[f"{Path(texts.name).stem} 1"] == 1
        assert [e.label for e in held.examples] == [2, 1] * 3
    # Two sets that each have what the other has not are more likely a misspelling.
    odd = stars("odd", "ham", "spam"), stars("even", "ham", "sapm")
    with pytest.raises(DataError, match=r"even.tsv, row 2: unknown label 'sapm'; known: ham, spam"):
        load_data(TrainingSettings(data=odd, dev=(dev,)))


def test_what_is_left_has_two_labels(tmp_path: Path) -> None:
    rows = [*((f"dull {i}", 0) for i in range(9)), ("fine", 1)]
    train = write_tsv(tmp_path / "train.tsv", rows)
    dev = write_tsv(tmp_path / "dev.tsv", [("Fine!", 1), ("dull too", 0)])
    with pytest.raises(DataError, match="every row to train on is labelled 'negative'"):
        load_data(TrainingSettings(data=(str(train),), dev=(str(dev),)))
    with pytest.raises(DataError, match="left to train on: 10 of them are held out, too"):
        load_data(TrainingSettings(data=(str(train),), dev=(str(train),)))


def test_two_sets_of_one_name_are_both_measured(tmp_path: Path) -> None:
    for folder in ("a/x", "b/x"):
        (tmp_path / folder).mkdir(parents=True)
    files = [
        write_tsv(tmp_path / f / "dev.tsv", sentences(8, i)) for i, f in enumerate(("a/x", "b/x"))
    ]
    train = write_tsv(tmp_path / "train.tsv", sentences(60, 5))
    settings = TrainingSettings(data=(str(train),), dev=tuple(map(str, files)))
    record = record_of(settings)
    assert [each.name for each in record.dev] == ["x/dev.tsv", "x/dev.tsv (2)"]
    assert held_out_texts(record) == load_data(settings)[1]


def test_each_set_may_be_of_one_label(tmp_path: Path) -> None:
    sets = [
        str(write_tsv(tmp_path / f"{label}.tsv", [(f"{label} {i}", label) for i in range(40)]))
        for label in (0, 1)
    ]
    train, dev, _ = load_data(TrainingSettings(data=tuple(sets)))
    assert [{e.label for e in texts.examples} for texts in (*train, *dev)] == [{0}, {1}, {0}, {1}]


def test_training_data_that_has_changed_holds_out_other_texts(tmp_path: Path) -> None:
    file = write_tsv(tmp_path / "train.tsv", sentences(60, 1))
    record = record_of(TrainingSettings(data=(str(file),)))
    write_tsv(file, sentences(60, 3))
    with pytest.raises(DataError, match=r"the data has changed.*name labelled texts with --data"):
        held_out_texts(record)
    file.unlink()
    with pytest.raises(DataError, match=r"train.tsv does not exist.*Name labelled texts"):
        held_out_texts(record)


def test_a_split_of_an_earlier_version_is_not_taken_for_ours(train_tsv: Path) -> None:
    """Those were drawn with the seed of the run."""
    record = record_of(TrainingSettings(data=(str(train_tsv),)))
    (dev,) = record.dev
    earlier = replace(record, dev=(replace(dev, name=dev.name.replace("fixed ", "")),))
    with pytest.raises(DataError, match="an earlier version of crisp"):
        held_out_texts(earlier)
