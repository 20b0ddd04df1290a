"""Reading labelled texts: every format gives the same examples, every defect its own message."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import labels as spelling
from training.data import (
    Example,
    LabelledTexts,
    distinct,
    read_examples,
    require_several_classes,
    without_overlap,
)
from training.errors import DataError

ROWS = [
    ('He said "fine", and left.', 1),
    ("Dull, dull, dull", 0),
    ("naïve ☃", 1),
]


def write(file: Path, rows: list[tuple[str, int]]) -> Path:
    if file.suffix == ".tsv":
        lines = ["sentence\tlabel", *(f"{t}\t{n}" for t, n in rows)]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif file.suffix == ".csv":
        with file.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("sentence", "label"), *rows])
    elif file.suffix == ".jsonl":
        lines = [json.dumps({"sentence": t, "label": n}) for t, n in rows]
        file.write_text("\n".join(lines), encoding="utf-8")
    else:
        table = {"sentence": [t for t, _ in rows], "label": [n for _, n in rows]}
        pyarrow.parquet.write_table(pyarrow.table(table), file)
    return file


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_examples(tmp_path: Path, ending: str) -> None:
    texts = read_examples(write(tmp_path / f"rows{ending}", ROWS))
    assert texts.examples == tuple(Example(t, n) for t, n in ROWS)
    assert texts.label_names == ("negative", "positive")
    assert len(texts.sha256) == 64


plain = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(plain, st.integers(0, 1)), min_size=1, max_size=20))
def test_any_text_survives_csv_and_jsonl(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    expected = tuple(Example(t, n) for t, n in rows)
    assert read_examples(write(folder / "rows.csv", rows)).examples == expected
    assert read_examples(write(folder / "rows.jsonl", rows)).examples == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"sentence\tlabel\n", "no rows"),
        (b"words\tlabel\nfine\t1\n", "no column 'sentence' or 'text'.*'words'.*--text-column"),
        (b"sentence\tstars\nfine\t1\n", "no column 'label'.*--label-column"),
        (b"sentence\tlabel\nfine\t1\nbad\n", "row 2: 1 columns where the header has 2"),
        (b"sentence\tlabel\nfine\t1\n \t0\n", "row 2: the text is empty"),
        (b"sentence\tlabel\nfine\t1\nbad\t\n", "row 2 has no label"),
        (b"sentence\tlabel\nfine\t1\ncaf\xe9\t0\n", "not UTF-8: line 3 has the byte 0xe9.*iconv"),
    ],
)
def test_defects_of_a_table(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "rows.tsv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_examples(file)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", '{"sentence": "fine", "label": 1}\n{"sentence"\n', "line 2: not JSON"),
        ("rows.jsonl", "[1]\n", "line 1: expected a JSON object"),
        ("rows.csv", 'sentence,label\n"fine,1\n', "not a CSV file"),
        ("rows.parquet", "no", "cannot be read as a Parquet file"),
        ("rows.txt", "fine", "expected a file that ends in"),
        ("deep.jsonl", "[" * 100_000, "line 1: not JSON: .*recursion"),
        ("twice.csv", "text,label,label\nfine,1,0\n", "two columns called 'label'"),
        ("joined.tsv", "text\tlabel\nfine\t1\ntext\tlabel\ndull\t0\n", "row 2 is the header again"),
    ],
)
def test_defects_of_other_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        read_examples(file)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_examples(tmp_path / "rows.tsv")
    (tmp_path / "rows.tsv").mkdir()
    with pytest.raises(DataError, match="is no regular file"):
        read_examples(tmp_path / "rows.tsv")


def test_another_encoding_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.tsv"
    file.write_text("text\tlabel\nfine\t1\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"is UTF-16, expected UTF-8: convert it.*-f utf-16"):
        read_examples(file)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(tmp_path: Path, end: str) -> None:
    file = tmp_path / "rows.tsv"
    file.write_bytes(end.join(["text\tlabel", "fine\t1", "dull\t0", ""]).encode())
    assert read_examples(file).examples == (Example("fine", 1), Example("dull", 0))


def test_sets_of_one_name_are_told_apart(tmp_path: Path) -> None:
    texts = read_examples(write(tmp_path / "dev.tsv", ROWS))
    other = replace(texts, name="other")
    names = [each.name for each in distinct([texts, other, texts, texts])]
    assert names == [texts.name, "other", f"{texts.name} (2)", f"{texts.name} (3)"]


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match="Offline, give --data a") as caught:
        read_examples("someone/some-set")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "names"),
    [
        (("negative", "positive"), ("negative", "positive")),
        (("neg", "pos"), ("negative", "positive")),
        (("sadness", "joy", "love", "anger"), ("sadness", "joy", "love", "anger")),
        (("none", "against", "1"), ("none", "against", "1")),
    ],
)
def test_a_hub_data_set_through_the_real_loader(
    tmp_path: Path, declared: tuple[str, ...], names: tuple[str, ...]
) -> None:
    """`datasets` loads local folders by the same call as hub names. The names are the hub's in its
    order, so that its own numbers mean the same in a file."""
    import datasets

    labels = datasets.ClassLabel(names=list(declared))
    features = datasets.Features({"text": datasets.Value("string"), "label": labels})
    rows = {"text": ["fine", "dull"], "label": [1, 0]}
    table = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "set")
    loaded = datasets.load_from_disk(str(tmp_path / "set"))["train"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_dataset", lambda *_, **__: loaded)
        texts = read_examples("someone/some-set")
    assert texts.label_names == names
    assert texts.examples == (Example("fine", 1), Example("dull", 0))
    file = tmp_path / "set.parquet"
    loaded.to_parquet(file)
    if not any(name[0].isdigit() for name in names):
        assert read_examples(file, label_names=names).examples == texts.examples


def test_a_text_of_a_hub_without_a_label_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["ham", "spam"])}
    )
    rows = {"text": ["fine", "dull"], "label": [1, -1]}
    table = datasets.Dataset.from_dict(rows, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    with pytest.raises(DataError, match="someone/some-set:test, row 2 has no label"):
        read_examples("someone/some-set", split="test")


def test_labels_by_name_follow_the_models_order(tmp_path: Path) -> None:
    file = tmp_path / "rows.tsv"
    file.write_text("text\tsentiment\nfine\tPositive\ndull\tnegative\n")
    assert [e.label for e in read_examples(file).examples] == [1, 0]
    other = read_examples(file, label_names=("positive", "negative"))
    assert [e.label for e in other.examples] == [0, 1]
    with pytest.raises(DataError, match="row 1: unknown label 'Positive'; known: spam, ham"):
        read_examples(file, label_names=("spam", "ham"))


def labelled(file: Path, *labels: object) -> Path:
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


@pytest.mark.parametrize(
    "labels",
    [
        ("-1", "0", "1"),
        (-1, 0, 1),
        (-1, 1),
        (0, 0.5, 1),
        ("1", "neutral", "0"),
    ],
)
def test_labels_that_are_told_apart_stay_apart(tmp_path: Path, labels: tuple[object, ...]) -> None:
    texts = read_examples(labelled(tmp_path / "rows.jsonl", *labels))
    assert [texts.label_names[e.label] for e in texts.examples] == [str(each) for each in labels]
    assert texts.label_names == tuple(sorted(map(str, labels)))
    # As a held-out file is read: by the names of the training file, whichever of them it has.
    for label in labels:
        (alone,) = read_examples(
            labelled(tmp_path / "one.jsonl", label), label_names=texts.label_names
        ).examples
        assert texts.label_names[alone.label] == str(label)


def number(label: str) -> float | None:
    try:
        return float(label)
    except ValueError:
        return None


any_label = st.text("-01.2aAbBß ", min_size=1, max_size=3).map(str.strip).filter(bool)


@given(st.lists(any_label, min_size=1, max_size=8))
def test_any_label_reads_back_as_itself_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str]
) -> None:
    file = labelled(tmp_path_factory.mktemp("labels") / "rows.jsonl", *labels)
    if len({spelling.plain(each) for each in labels}) < len(set(labels)):
        with pytest.raises(DataError, match="one but for their spelling: write them alike"):
            read_examples(file)
        return
    numbers = [number(each) for each in labels]
    if None not in numbers and len(set(numbers)) < len(set(labels)):
        with pytest.raises(DataError, match="are one number: write them alike"):
            read_examples(file)
        return
    texts = read_examples(file)
    found = [texts.label_names[e.label] for e in texts.examples]
    binary = {"0": "negative", "1": "positive"}
    assert found == ([binary[each] for each in labels] if set(labels) <= {*binary} else labels)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ((10, "2", 1.0, 2), ("1", "2", "10")),
        ((2, -1, -2, 0, 1), ("-2", "-1", "0", "1", "2")),
        ((10.5, "9", "9" * 5000), ("9", "10.5", "9" * 5000)),
        (("pos", "neg"), ("negative", "positive")),
        (("Positive", "0"), ("negative", "positive")),
        (("0.0", "1.0"), ("negative", "positive")),
        (("2.0", "1.0"), ("1.0", "2.0")),
        (("pos", "neutral", "neg"), ("neg", "neutral", "pos")),
    ],
)
def test_names_of_labels(
    tmp_path: Path, labels: tuple[object, ...], names: tuple[str, ...]
) -> None:
    texts = read_examples(labelled(tmp_path / "rows.jsonl", *labels))
    assert texts.label_names == names
    if len(names) > 2:
        written = [names[e.label] for e in texts.examples]
        assert written == [str(each).removesuffix(".0") for each in labels]


def test_sentiments_are_read_however_they_are_spelled(tmp_path: Path) -> None:
    file = labelled(tmp_path / "rows.jsonl", "NEG", "pos", 1, False, "Negative")
    for names in (("negative", "positive"), ("NEGATIVE", "POSITIVE"), ("neg", "pos")):
        assert [e.label for e in read_examples(file, label_names=names).examples] == [0, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("a", None), r"/rows.jsonl, row 2 has no label$"),
        (("a", " "), r"/rows.jsonl, row 2 has no label$"),
        (("a", "None"), r"row 2 has no label \('None' reads like none: call the class otherwise"),
        ((1.0, float("nan")), r"row 2 has no label \('nan' reads like none"),
        (("neg", "Negative", "x"), "'Negative' and 'neg' are one but for their spelling"),
        (("1", "01", "2"), "'01' and '1' are one number: write them alike"),
        (("1", "1.0", "2"), "'1' and '1.0' are one but for their spelling: write them alike"),
    ],
)
def test_labels_that_are_refused(tmp_path: Path, labels: tuple[object, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_examples(labelled(tmp_path / "rows.jsonl", *labels))


def test_sentiments_as_numbers_are_not_taken_for_the_first_of_three(tmp_path: Path) -> None:
    names = ("neg", "neutral", "pos")
    file = labelled(tmp_path / "rows.jsonl", 0, 1, 1)
    with pytest.raises(
        DataError, match=r"negative and positive, or neg and neutral. Write the names"
    ):
        read_examples(file, label_names=names)
    all_three = labelled(tmp_path / "rows.jsonl", 0, 1, 2)
    assert [e.label for e in read_examples(all_three, label_names=names).examples] == [0, 1, 2]


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "fine", "label": 1}\n{"text": "half \\ud83d", "label": 0}\n')
    with pytest.raises(DataError, match=r"row 2: the text has half a character.*ud83d"):
        read_examples(file)


def test_indices_are_read_where_no_name_begins_with_a_number(tmp_path: Path) -> None:
    file = labelled(tmp_path / "rows.jsonl", 2, "0", 1.0, True, "HAM")
    texts = read_examples(file, label_names=("ham", "spam", "class 2"))
    assert [e.label for e in texts.examples] == [2, 0, 1, 1, 0]


@pytest.mark.parametrize(
    ("names", "written", "known"),
    [
        (("-1", "0", "1"), "2", "-1, 0, 1"),  # the third of them, or one that is not known?
        (("-1", "1"), "0", "-1, 1"),
        (("0.5", "1.5"), "1", "0.5, 1.5"),
        ((".5", "a"), "1", ".5, a"),
        (("1e-05", "2e-05"), "1", "1e-05, 2e-05"),
        (("1 star", "2 stars", "3 stars"), "1", "1 star, 2 stars, 3 stars"),
    ],
)
def test_a_label_of_two_meanings_is_refused(
    tmp_path: Path, names: tuple[str, ...], written: str, known: str
) -> None:
    file = labelled(tmp_path / "rows.jsonl", names[0], written)
    with pytest.raises(DataError, match=f"row 2: unknown label '{written}'; known: {known}$"):
        read_examples(file, label_names=names)


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    texts = read_examples(write(tmp_path / "rows.tsv", [("fine", 1), ("good", 1)]))
    with pytest.raises(DataError, match=r"rows.tsv: every row to train on is labelled 'positive'"):
        require_several_classes([texts])
    with pytest.raises(DataError, match=r"rows.tsv, .*rows.tsv: every row"):
        require_several_classes([texts, texts])
    other = read_examples(write(tmp_path / "other.tsv", [("dull", 0), ("bad", 0)]))
    require_several_classes([texts, other])


def test_texts_that_are_held_out_too_are_dropped() -> None:
    def texts(*words: str) -> LabelledTexts:
        examples = tuple(Example(word, 0) for word in words)
        return LabelledTexts("t", examples, ("negative", "positive"), "")

    kept, dropped = without_overlap(texts("A fine day!", "Rain."), [texts("a fine  day")])
    assert [e.text for e in kept.examples] == ["Rain."]
    assert dropped == 1
    # Without a word in them, texts are alike where they are the same.
    kept, dropped = without_overlap(texts("👍👍", "!!!", " 😡"), [texts("😡")])
    assert [e.text for e in kept.examples] == ["👍👍", "!!!"]
    assert dropped == 1
