"""Whether two results are of the same kind of machine: by its name and what it can do."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from loadtests import remarks, results
from loadtests.changes import other_machine
from training.machine import environment

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
ZEN3 = ["avx", "avx2", "fma"]
ZEN4 = [*ZEN3, "avx512_bf16", "avx512_vnni", "avx512bw", "avx512f"]


def result(processor: str | None, sets: list[str] | None) -> dict[str, Any]:
    facts = {"processor": processor, "instruction_sets": sets}
    return {"environment": {name: fact for name, fact in facts.items() if fact is not None}}


def test_load_tests_note_the_machine_as_the_bench_does() -> None:
    here = results.environment()
    assert [here[key] for key in ("processor", "instruction_sets")] == [
        environment()[key] for key in ("processor", "instruction_sets")
    ]
    assert json.loads(json.dumps(here)) == here


@pytest.mark.parametrize("package", ["onnxruntime", "onnxruntime-gpu"])
def test_the_version_of_onnx_runtime_is_noted_whichever_package_it_came_in(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name != package:
            raise PackageNotFoundError
        return "1.31.0"

    monkeypatch.setattr(results, "version", version)
    assert results.environment()["versions"] == {package: "1.31.0"}


def test_a_busy_machine_is_told() -> None:
    assert remarks.busy(1.0, cores=2) is remarks.busy(None, cores=2) is None
    assert "The machine was busy (load 1.7 on 2 cores)" in str(remarks.busy(1.73, cores=2))


X86 = "model name\t: A 9\nflags\t\t: fpu sse2 avx2 avx512_vnni fma fma4 amx_int8\nflags\t\t: avx\n"
ARM = "Features\t: fp asimd asimddp sve i8mm bf16 crc32\n"  # it does not say its name


@pytest.mark.parametrize(
    ("facts", "sets"),
    [
        (X86, ["amx_int8", "avx2", "avx512_vnni", "fma"]),
        (ARM, ["asimd", "asimddp", "bf16", "i8mm", "sve"]),
        ("", []),
    ],
)
def test_of_what_a_processor_can_do_that_is_noted_which_models_use(
    facts: str, sets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(facts)
    monkeypatch.setattr(results, "Path", lambda _: tmp_path / "cpuinfo")
    found = results.environment()
    assert found["instruction_sets"] == sets
    assert isinstance(found["processor"], str)
    assert (found["processor"] == "A 9") is (facts == X86)


@pytest.mark.parametrize("sets", [ZEN3, [], None])
def test_the_same_machine_is_no_other(sets: list[str] | None) -> None:
    here = result("AMD EPYC", sets)
    assert other_machine(here, result("AMD EPYC", sets and sets[::-1])) is None
    assert other_machine({}, {}) is None


def test_a_processor_of_another_name_is_another_machine() -> None:
    for sets in (ZEN3, None):
        warning = other_machine(result("AMD EPYC", ZEN3), result("Another 9000", sets))
        assert warning is not None
        assert "another machine (Another 9000, here AMD EPYC)" in warning


def test_a_processor_of_the_same_name_with_other_instructions_is_another_machine() -> None:
    new, old = result("AMD EPYC", ZEN4), result("AMD EPYC", ZEN3)
    more = "AMD EPYC with avx512_bf16, avx512_vnni, avx512bw and 1 more"
    assert f"another machine (AMD EPYC, here {more})" in str(other_machine(new, old))
    assert f"another machine ({more}, here AMD EPYC)" in str(other_machine(old, new))
    less = result("AMD EPYC", ["avx", "avx2"])
    assert "(AMD EPYC, here AMD EPYC with fma)" in str(other_machine(old, less))
    assert "(AMD EPYC with fma, here AMD EPYC)" in str(other_machine(less, old))


def test_a_processor_with_other_cores_is_another_machine() -> None:
    for sets in (ZEN3, None):
        old, new = result("AMD EPYC", sets), result("AMD EPYC", ZEN3)
        for document, cores in ((old, 8), (new, 2)):
            document["environment"]["cores"] = cores
        warning = str(other_machine(new, old))
        assert "another machine (AMD EPYC, cores: 8, here AMD EPYC, cores: 2)" in warning
        del old["environment"]["cores"]  # unknown is not different
        assert "another machine" not in str(other_machine(new, old))


def test_a_result_from_before_instructions_were_noted_says_that_it_does_not_tell() -> None:
    before, now = result("AMD EPYC", None), result("AMD EPYC", ZEN3)
    for new, old, which in ((now, before, "older"), (before, now, "newer")):
        warning = str(other_machine(new, old))
        assert f"the {which} result does not say which instructions" in warning
        assert "another machine" not in warning


def test_the_results_in_this_repository_are_told_apart() -> None:
    zen3, zen4, intel = (
        json.loads((RESULTS / name).read_text())
        for name in ("bench.json", "bench-zen4.json", "bench-amx.json")
    )
    assert zen3["environment"]["processor"] == zen4["environment"]["processor"]
    assert "AMD EPYC with avx512" in str(other_machine(zen4, zen3))
    assert "Intel" in str(other_machine(zen4, intel))
    assert other_machine(zen3, zen3) is None
