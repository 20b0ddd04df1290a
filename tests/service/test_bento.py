"""The bento: only what serving needs, pinned, for a user without rights, and it serves by itself.

`bentoml build` runs on a copy of the checkout's sources with the tests' tiny models, so that the
bundled models play no part.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import venv
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from running_server import ROOT, free_port, running

from export.op_library import DEFAULT_PATH, find_op_library

pytestmark = pytest.mark.slow

COMMAND_LINE = {  # not for the bento
    *("commands", "explain_command", "keys_command", "predict", "server", "supervisor", "worker"),
}
COPIED = ("service", "export", "bentofile.yaml", "pyproject.toml", "README.md")
LARGEST = 1 << 20  # bytes, the models and the operator library aside


@pytest.fixture(scope="module")
def checkout(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    skipped = shutil.ignore_patterns("__pycache__", "models", "build")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=skipped)
        else:
            shutil.copy(ROOT / name, folder / name)
    shutil.copytree(models_dir, folder / "service" / "models")
    for decoy in ("notes.txt", "runs/big.bin", ".venv/lib.py", "service/compare/private.py"):
        (folder / decoy).parent.mkdir(parents=True, exist_ok=True)
        (folder / decoy).write_text("not for the bento")
    return folder


def build(checkout: Path, out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bentoml", "build", "--output", "tag"]
    return subprocess.run(
        command,
        cwd=checkout,
        env={**os.environ, "BENTOML_HOME": str(out), "BENTOML_DO_NOT_TRACK": "True", **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.fixture(scope="module")
def bento(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not find_op_library().available:
        pytest.skip(find_op_library().reason)
    home = tmp_path_factory.mktemp("bentoml")
    done = build(checkout, home)
    assert done.returncode == 0, done.stdout + done.stderr
    version = (home / "bentos" / "crisp" / "latest").read_text()
    return home / "bentos" / "crisp" / version


def relative(folder: Path, *patterns: str) -> set[str]:
    found = (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    return {path.relative_to(folder).as_posix() for path in found}


def test_only_what_serving_needs_is_in_it(bento: Path) -> None:
    models = ("dense", "sparse")
    wanted = {
        "bentofile.yaml",
        *relative(ROOT, "service/*.py", "service/endpoints/*.py", "service/page/*"),
        *(
            f"export/{name}.py"
            for name in (
                *("__init__", "errors", "gpu", "manifest"),
                *("op_library", "packing", "processors", "share"),
            )
        ),
        *relative(ROOT, "export/ops/lib/*.so"),
        *(
            f"service/models/{model}/{file}"
            for model in models
            for file in ("model.onnx", "tokenizer.json", "manifest.json")
        ),
    }
    assert relative(bento / "src", "**/*") == wanted - {
        f"service/{name}.py" for name in COMMAND_LINE
    }


def test_it_is_small(bento: Path) -> None:
    weights = {*(bento / "src/service/models").rglob("*"), *(bento / "src/export/ops").rglob("*")}
    others = [path for path in bento.rglob("*") if path.is_file() and path not in weights]
    assert sum(path.stat().st_size for path in others) < LARGEST
    library = bento / "src/export/ops/lib/libcrisp_ops.so"
    assert library.read_bytes() == DEFAULT_PATH.read_bytes()


def test_every_package_is_pinned_and_none_is_for_training(bento: Path) -> None:
    lines = (bento / "env/python/requirements.txt").read_text().split()
    assert all(re.fullmatch(r"[a-z0-9-]+==[a-z0-9.]+", line) for line in lines), lines
    names = {line.partition("==")[0] for line in lines}
    base = [Requirement(line) for line in metadata.requires("crisp") or ()]
    direct = [r for r in base if r.marker is None or r.marker.evaluate({"extra": ""})]
    assert {requirement.name.removesuffix("-gpu") for requirement in direct} <= names
    assert not names & {"torch", "transformers", "onnx", "scipy", "locust", "pytest"}


def test_the_pins_are_those_of_the_constraints(bento: Path) -> None:
    def normal(line: str) -> str:
        return line.lower().replace("_", "-").replace(".", "-")

    constraints = {normal(line) for line in (ROOT / "constraints.txt").read_text().split()}
    lines = (bento / "env/python/requirements.txt").read_text().split()
    assert {normal(line) for line in lines} <= constraints


def test_the_image_is_for_a_user_without_rights_and_has_no_compiler(bento: Path) -> None:
    dockerfile = (bento / "env/docker/Dockerfile").read_text()
    assert not re.search(r"build-essential|\bgcc\b|\bg\+\+|\bcmake\b|\bmake\b", dockerfile)
    assert not re.search(r"\bapt(-get)?\b", dockerfile)
    steps = re.findall(r"^(?:FROM|RUN|USER|ENTRYPOINT) .*$", dockerfile, re.MULTILINE)
    users = [line for line in steps if line.startswith("USER ")]
    assert set(users) <= {"USER $BENTO_USER", "USER bentoml"}
    assert "ARG BENTO_USER=bentoml" in dockerfile
    before = steps[: steps.index(users[0])]
    assert not [line for line in before if "requirements" in line]
    assert dockerfile.index(users[0]) < dockerfile.index("pip install -r")
    assert steps[-1].startswith("ENTRYPOINT")


def test_the_image_tells_whether_it_is_healthy_and_writes_to_tmp_alone(bento: Path) -> None:
    dockerfile = (bento / "env/docker/Dockerfile").read_text()
    (health,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", dockerfile, re.MULTILINE)
    command = json.loads(health)
    assert command[:2] == ["python", "-c"]
    compile(command[2], "HEALTHCHECK", "exec")
    assert "/readyz" in command[2]
    assert re.findall(r"^ENV BENTOML_HOME=(.*)$", dockerfile, re.MULTILINE)[-1] == "/tmp/bentoml"
    assert "UV_NO_CACHE=1" in dockerfile  # nothing that was downloaded stays in a layer


def test_the_health_check_is_one(bento: Path) -> None:
    dockerfile = (bento / "env/docker/Dockerfile").read_text()
    (health,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", dockerfile, re.MULTILINE)
    asked = []

    class Probed(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if len(asked) == 1 else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Probed) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        command = [sys.executable, *json.loads(health)[1:]]
        environment = {**os.environ, "PORT": str(server.server_port)}
        codes = [
            subprocess.run(command, env=environment, capture_output=True).returncode for _ in "ab"
        ]
        server.shutdown()
        thread.join()
    assert asked == ["/readyz", "/readyz"]
    assert codes[0] == 0
    assert codes[1] != 0


def test_an_image_for_gpus_is_asked_for() -> None:
    def runtimes(**environment: str) -> set[str]:
        script = "from service.image import packages; print(*(name for name, _ in packages()))"
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return {name for name in done.stdout.split() if name.startswith("onnxruntime")}

    base = [Requirement(line) for line in metadata.requires("crisp") or ()]
    here = {r.name for r in base if r.marker is None or r.marker.evaluate({"extra": ""})}
    assert runtimes() == {"onnxruntime"}
    kept = {"onnxruntime": "onnxruntime", "onnxruntime-gpu": "onnxruntime-gpu[cuda,cudnn]"}
    assert runtimes(CRISP_BENTO_GPU="1") == {kept[name] for name in here & kept.keys()}


def test_the_image_for_gpus_has_their_operators_and_libraries(
    checkout: Path, tmp_path: Path
) -> None:
    if not find_op_library().available:
        pytest.skip(find_op_library().reason)
    copy = tmp_path / "checkout"
    shutil.copytree(checkout, copy)
    library = copy / "export/ops/lib/libcrisp_ops_cuda.so"
    library.unlink(missing_ok=True)
    done = build(copy, tmp_path / "home", CRISP_BENTO_GPU="1")
    assert done.returncode != 0
    assert "export/ops/cuda/build.sh" in done.stdout + done.stderr
    library.write_bytes(b"for this test, nobody loads it")
    done = build(copy, tmp_path / "home", CRISP_BENTO_GPU="1")
    assert done.returncode == 0, done.stdout + done.stderr
    bentos = tmp_path / "home" / "bentos" / "crisp"
    made = bentos / (bentos / "latest").read_text()
    assert (made / "src/export/ops/lib" / library.name).is_file()
    assert "ENV CRISP_DEVICE=auto" in (made / "env/docker/Dockerfile").read_text().splitlines()
    lock = (made / "env/python/requirements.txt").read_text()
    if "onnxruntime-gpu" in {d.metadata["Name"] for d in metadata.distributions()}:
        assert re.search(r"^onnxruntime-gpu\[cuda,cudnn\]==", lock, re.MULTILINE)


def test_it_is_not_built_without_the_operators(checkout: Path, tmp_path: Path) -> None:
    missing = {"CRISP_OP_LIBRARY": str(tmp_path / "missing.so")}
    done = build(checkout, tmp_path / "home", **missing)
    assert done.returncode != 0
    assert "would lack the compiled operators" in done.stdout + done.stderr
    assert "make ops" in done.stdout + done.stderr


@pytest.mark.timeout(1800)
def test_it_serves_from_an_environment_made_of_its_own_lock(bento: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    lock = str(bento / "env/python/requirements.txt")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", lock], check=True)
    absent = subprocess.run([python, "-c", "import torch"], capture_output=True)
    assert absent.returncode != 0
    port = free_port()
    command = [python, "-m", "bentoml", "serve", "--port", str(port), str(bento)]
    # Nothing of the checkout may be needed: not as working directory, not on the path. What is
    # written goes to where the image says.
    clean = {"PYTHONPATH": "", "CRISP_MODELS": "", "CRISP_OP_LIBRARY": "", "PATH": "/usr/bin:/bin",
             "BENTOML_HOME": str(tmp_path / "written")}  # fmt: skip
    before = relative(bento, "**/*") | relative(environment, "**/*")
    with running(command, port, tmp_path / "log", tmp_path, **clean) as server:
        body = {"texts": ["good film", "bad film"]}
        answer = httpx.post(f"{server.url}/predict", json=body, timeout=60).json()
        assert answer["variant"] == "sparse"
        assert len(answer["predictions"]) == 2
        facts = httpx.get(f"{server.url}/models").json()["variants"]["sparse"]
        assert facts["operators"]["kernel"] == "compiled"
    after = relative(bento, "**/*") | relative(environment, "**/*")
    assert not {path for path in after - before if not path.endswith(".pyc")}
