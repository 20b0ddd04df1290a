"""Other models in every worker or in none, whatever workers do: simulated, without processes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import rollout
from service.errors import RequestError
from service.rollout import Ended, Models

LOADS = ("loaded", "refused", "ended", "ended after loading", "hangs")
TAKES = ("taken", "ended", "hangs")


@dataclass(eq=False)
class Simulated:
    """A worker that does as it is told here, and notes what it holds."""

    loads: str = "loaded"
    takes: str = "taken"
    alive: bool = True
    killed: bool = False
    answers_with: str = "models-1"
    prepared: str | None = None
    heard: list[str] = field(default_factory=list)

    async def ask(self, *words: str) -> list[str]:
        self.heard.append(words[0])
        await asyncio.sleep(0)
        does = self.loads if words[0] == "load" else self.takes
        if does == "hangs":
            await asyncio.sleep(3600)
        if does.startswith("ended"):
            self.alive = False
        if does == "ended" or (words[0] == "take" and not self.alive):
            raise Ended
        if does == "refused":
            return ["refused", f"{words[1]}/dense/model.onnx is altered"]
        if words[0] == "load":
            self.prepared = Path(words[1]).name
            return ["loaded"]
        assert self.prepared is not None
        self.answers_with = self.prepared
        return ["taken"]

    def say(self, *words: str) -> None:
        self.heard.append(words[0])
        self.prepared = None

    def kill(self) -> None:
        self.killed, self.alive = True, False


@pytest.fixture
def folders(models_dir: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The models, and the folder for copies."""
    return Path(shutil.copytree(models_dir, tmp_path / "models")), tmp_path


def outcome(models: Models, workers: Sequence[Simulated]) -> RequestError | None:
    def ready() -> Sequence[Simulated]:
        return [worker for worker in workers if worker.alive]

    async def scenario() -> RequestError | None:
        try:
            await models.exchange(ready)
        except RequestError as error:
            return error
        return None

    return asyncio.run(scenario())


@given(plans=st.lists(st.tuples(st.sampled_from(LOADS), st.sampled_from(TAKES)), min_size=1))
def test_all_take_them_or_all_keep_theirs(
    plans: list[tuple[str, str]],
    models_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rollout, "SECONDS_TO_LOAD", 0.01)
        patched.setattr(rollout, "SECONDS_TO_TAKE", 0.01)
        patched.setattr(rollout, "SECONDS_TO_START", 0.0)
        models = Models(models_dir, tmp_path_factory.mktemp("copies"), 60, workers=len(plans))
        workers = [Simulated(*plan) for plan in plans]
        error = outcome(models, workers)
    left = [worker for worker in workers if worker.alive]
    if all(loads == "loaded" for loads, _ in plans):
        assert error is None
        assert {worker.answers_with for worker in left} <= {"models-2"}
        hanging = [worker for worker in workers if worker.takes == "hangs"]
        assert all(worker.killed for worker in hanging)  # and started again, with these
    else:
        assert error is not None
        assert error.code == "models_refused"
        assert {worker.answers_with for worker in left} <= {"models-1"}
        assert all(worker.prepared is None for worker in left)
        assert all(worker.heard[-1] == "drop" for worker in left)  # and counts it as failed
        assert all("take" not in worker.heard for worker in workers)
    assert models.now.models.name == ("models-1" if error else "models-2")
    assert models.now.models.is_dir()


def test_the_refusal_names_the_folder_and_not_the_copy(folders: tuple[Path, Path]) -> None:
    models = Models(*folders, 60, workers=2)
    error = outcome(models, [Simulated(), Simulated("refused")])
    assert f"{folders[0] / 'dense' / 'model.onnx'} is altered" in str(error)
    assert not (folders[1] / "models-2").exists()


def test_a_folder_without_models_is_refused(folders: tuple[Path, Path]) -> None:
    models = Models(*folders, 60, workers=1)
    shutil.rmtree(folders[0])
    worker = Simulated()
    error = outcome(models, [worker])
    assert "is not a folder" in str(error)
    assert worker.heard == ["drop"]
    assert outcome(models, [worker]) is not None  # not for ever in progress


def test_where_a_worker_stays_away_the_others_count_it_as_failed(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "SECONDS_TO_START", 0.0)
    models, worker = Models(*folders, 60, workers=2), Simulated()
    assert "not every process" in str(outcome(models, [worker, Simulated(alive=False)]))
    assert worker.heard == ["drop"]


def test_it_waits_for_a_worker_that_is_on_its_way(folders: tuple[Path, Path]) -> None:
    models, worker = Models(*folders, 60, workers=1), Simulated()
    looks = 0

    def ready() -> Sequence[Simulated]:
        nonlocal looks
        looks += 1
        return [worker] if looks > 2 else []

    asyncio.run(models.exchange(ready))
    assert worker.answers_with == "models-2"


def test_one_at_a_time_and_the_old_copy_goes_when_nobody_can_need_it(
    folders: tuple[Path, Path],
) -> None:
    async def scenario() -> tuple[Sequence[BaseException | None], bool, bool]:
        models, worker = Models(*folders, 0.2, workers=1), Simulated()
        first = await asyncio.gather(
            models.exchange(lambda: [worker]),
            models.exchange(lambda: [worker]),
            return_exceptions=True,
        )
        kept = (folders[1] / "models-1").is_dir()
        while (folders[1] / "models-1").exists():
            await asyncio.sleep(0.01)
        return first, kept, (folders[1] / "models-2").is_dir()

    (done, refused), kept, now = asyncio.run(scenario())
    assert done is None
    assert isinstance(refused, RequestError)
    assert refused.code == "reload_in_progress"
    assert kept
    assert now
