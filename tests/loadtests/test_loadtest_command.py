"""`crisp loadtest` as it is typed: against a small server of the test's, and the real service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_service import fake_service, right
from typer.testing import CliRunner, Result

import crisp
from loadtests.errors import LoadTestError
from loadtests.plan import Plan

SHORT = ("--seconds", "0.2", "--budget", "15", "--connections", "20")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(crisp.app, ["loadtest", *map(str, arguments)])


def flat(text: str) -> str:
    """The text without the frame and the line breaks that a terminal adds."""
    return " ".join(text.replace("│", " ").split())


def results_in(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("*/loadtest.json")
    return dict(json.loads(file.read_text()))


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left_running")
def test_a_load_test_prints_a_table_and_saves_everything(tmp_path: Path) -> None:
    """One variant of a small server against itself."""
    texts = tmp_path / "texts.txt"
    texts.write_text("A fine film.\nA dull one.\n")
    with fake_service() as server:
        done = run(
            *("--url", server.url, *SHORT, "--texts", texts, "--slo-ms", 300),
            *("--variants", "sparse"),
            *("--out", tmp_path / "results", "--json", tmp_path / "copy.json"),
            *("--compare-url", f"the other=crisp+{server.url}#sparse"),
        )
    assert done.exit_code == 0, done.output
    for words in ("requests/s", "sparse carries", "requests of the other"):
        assert words in flat(done.stdout)
    content = results_in(tmp_path / "results")
    assert content == json.loads((tmp_path / "copy.json").read_text())
    assert str(tmp_path.parent) not in json.dumps(content), "folders are nobody's business"
    assert content["plan"]["texts"] == "texts.txt"
    assert (content["complete"], content["stopped_by"]) == (True, None)
    assert set(content["capacities"]) == {"sparse", "the other"}
    assert {w["phase"] for w in content["windows"]} == {"warm-up", "search", "curve"}
    assert {tuple(r["texts"]) for r in server.requests} <= {
        ("A fine film.",),
        ("A dull one.",),
        ("Fine.",),  # asks whether an overloaded server has recovered
    }
    (folder,) = (tmp_path / "results").iterdir()
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(("status", "code"), [(500, "broken"), (429, "overloaded")])
def test_a_service_without_right_answers_ends_the_test_with_its_message(
    status: int, code: str, tmp_path: Path
) -> None:
    def broken(_: dict[str, Any]) -> tuple[int, Any]:
        return status, {"error": {"code": code, "message": "not now"}}

    with fake_service(broken) as server:
        done = run("--url", server.url, *SHORT, "--out", tmp_path)
    assert isinstance(done.exception, LoadTestError)
    assert f"of them so: HTTP {status}: {code}: not now" in str(done.exception)
    assert "partial" in done.stdout
    content = results_in(tmp_path)
    assert not content["complete"]
    assert "not now" in content["stopped_by"]
    (window,) = content["windows"]
    assert list(window["measurement"]["faults"]) == [f"HTTP {status}: {code}: not now"]


def test_a_machine_that_was_busy_before_the_test_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = iter((64.0, 0.0))  # before the servers start; then it does not matter
    monkeypatch.setattr(os, "getloadavg", lambda: (next(loads), 0.0, 0.0))

    def broken(_: dict[str, Any]) -> tuple[int, Any]:
        return 500, {"error": {"code": "broken"}}

    with fake_service(broken) as server:
        done = run("--url", server.url, *SHORT, "--out", tmp_path)
    assert "The machine was busy (load 64.0 on" in flat(done.stdout)
    assert results_in(tmp_path)["environment"]["load_average_before"] == 64.0


def test_a_service_that_dies_half_way_leaves_partial_results(tmp_path: Path) -> None:
    def dies(request: dict[str, Any]) -> tuple[int, Any] | None:
        server.gone = len(server.requests) > 1500
        return right(request)

    with fake_service(dies) as server:
        done = run("--url", server.url, "--seconds", 1, "--out", tmp_path)
    assert isinstance(done.exception, LoadTestError)
    assert "went away: no service answers at" in str(done.exception)
    content = results_in(tmp_path)
    assert not content["complete"]
    assert any(window["measurement"]["right"] for window in content["windows"])
    assert not content["windows"][-1]["measurement"]["complete"]


def test_results_are_kept_in_the_other_place_where_one_fails(tmp_path: Path) -> None:
    """The folder of results becomes a file during the test."""
    out, copy = tmp_path / "results", tmp_path / "copy.json"

    def broken(_: dict[str, Any]) -> tuple[int, Any]:
        out.touch()
        return 500, {"error": {"code": "broken"}}

    with fake_service(broken) as server:
        done = run("--url", server.url, *SHORT, "--out", out, "--json", copy)
    assert isinstance(done.exception, LoadTestError)
    assert f"cannot write {out}" in str(done.exception)
    assert json.loads(copy.read_text())["windows"]


@pytest.mark.parametrize(
    ("options", "seconds", "budget"),
    [
        ((), 5, 600),
        (("--quick",), 2, 60),
        (("--quick", "--budget", 600), 2, 600),  # also where it is the default without --quick
        (("--seconds", 1, "--quick"), 1, 60),
    ],
)
def test_what_is_said_beside_quick_is_kept(
    options: tuple[object, ...], seconds: float, budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plan] = []

    def stop(_: object, plan: Plan, __: object) -> None:
        plans.append(plan)
        raise LoadTestError("that is enough")

    monkeypatch.setattr("loadtests.commands._generator", stop)
    with fake_service() as server:
        done = run("--url", server.url, *options)
    assert "that is enough" in str(done.exception)
    ((found,),) = [[(plan.seconds, plan.budget) for plan in plans]]
    assert found == (seconds, budget)


def test_an_unknown_variant_is_refused_with_those_there_are() -> None:
    with fake_service() as server:
        done = run("--url", server.url, "--variants", "dense,tiny")
        assert isinstance(done.exception, LoadTestError)
        assert "has no variant 'tiny'; it has dense, sparse" in str(done.exception)
        assert server.requests == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--workload", "tweets"], "'tweets' is not one of sst, imdb, mixed"),
        (["--url", "http://127.0.0.1:1", "--models", "models"], "has its own models"),
        (["--url", "http://127.0.0.1:1", "--peers", "all"], "leave --url out"),
        (["--variants", "dense,dense"], "expected different names"),
        (["--variants", ","], "expected different names"),
        (["--peers", "soap"], "'soap' is not one of fastapi-ort"),
        (["--compare-url", "http://127.0.0.1:1"], "expected [NAME=]ADAPTER+URL"),
        (["--compare-url", "soap+http://127.0.0.1:1"], "expected [NAME=]ADAPTER+URL"),
        (["--json", "missing/load.json"], "there is no folder missing"),
        (["--json", "."], "is a folder: name a file"),
        (["--out", "/dev/null"], "/dev/null is no folder"),
        (["--out", "/dev/null/below"], "/dev/null is no folder"),
        (["--slo-ms", "0"], "--slo-ms"),
        (["--batch", "0"], "--batch"),
    ],
)
def test_bad_usage_is_refused_before_anything_starts(
    arguments: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 2
    assert complaint in flat(done.output)
    assert list(tmp_path.iterdir()) == []


def test_a_budget_that_is_too_short_is_refused_before_load_is_sent() -> None:
    with fake_service() as server:
        done = run("--url", server.url, "--budget", 10)
        assert isinstance(done.exception, LoadTestError)
        assert "a budget of 10 s is too short: 2 need" in str(done.exception)
        assert server.requests == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--url", "http://127.0.0.1:9"], "no service answers at http://127.0.0.1:9"),
        (["--url", "localhost:3000"], "expected a URL such as"),
        (["--arrivals", "tides"], "unknown arrivals 'tides'"),
        (["--arrivals", "replay:none.log"], "cannot read the log none.log"),
        (["--texts", "empty.txt"], "has no texts"),
        (["report", "none.json"], "cannot read none.json"),
        (["report", "empty.txt"], "is not JSON"),
        (["report", "other.json"], "is no result of `crisp loadtest`"),
        (["--accuracy", "other.json"], "is no result of `crisp compare --json`"),
    ],
)
def test_bad_input_is_one_clear_line(
    arguments: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "other.json").write_text('{"schema_version": 1}')
    done = run(*arguments)
    assert isinstance(done.exception, LoadTestError)
    assert complaint in str(done.exception)


@pytest.mark.parametrize("option", ["--url", "--compare-url"])
@pytest.mark.parametrize("secret", ["http://bob:geheim@{}", "http://{}/?key=geheim", "http://{}?"])
def test_a_url_with_what_a_report_must_not_show_is_refused_and_not_repeated(
    option: str, secret: str, tmp_path: Path
) -> None:
    with fake_service() as server:
        url = secret.format(server.url.removeprefix("http://"))
        others = {"--url": url, "--compare-url": f"other=crisp+{url}"}
        options = ["--url", server.url, option, others[option], "--out", tmp_path / "out"]
        done = run(*SHORT, *options)
        assert server.requests == []
    assert isinstance(done.exception, LoadTestError)
    assert "without user, password, query and fragment" in str(done.exception)
    assert "geheim" not in str(done.exception) + done.output
    assert list(tmp_path.iterdir()) == []


def test_two_contenders_of_one_name_are_refused() -> None:
    with fake_service() as server:
        done = run("--url", server.url, "--compare-url", f"dense=crisp+{server.url}")
    assert isinstance(done.exception, LoadTestError)
    assert "two contenders have the same name among dense, sparse, dense" in str(done.exception)


@pytest.mark.parametrize("models", [[], {}, {"variants": {}}, b"<html>hello</html>"])
def test_what_is_no_crisp_service_is_refused(models: Any) -> None:
    with fake_service(models=models) as server:
        done = run("--url", server.url)
    assert isinstance(done.exception, LoadTestError)
    assert "not a Crisp service" in str(done.exception)


@pytest.mark.slow
def test_a_service_that_cannot_start_shows_its_last_words(tmp_path: Path) -> None:
    done = run("--models", tmp_path)
    assert isinstance(done.exception, LoadTestError)
    assert "the service ended with exit code 2" in str(done.exception)
    assert "holds no model folder" in str(done.exception)


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left_running")
def test_the_real_service_is_started_driven_and_stopped(models_dir: Path, tmp_path: Path) -> None:
    done = run(
        *("--models", models_dir, "--seconds", 1, "--budget", 40, "--slo-ms", 1000),
        *("--batch", 3, "--workload", "mixed", "--out", tmp_path),
    )
    assert done.exit_code == 0, done.output
    content = results_in(tmp_path)
    assert content["complete"]
    for name in ("dense", "sparse"):
        contender = content["contenders"][name]
        assert contender["server"]["started_with"].startswith("crisp serve --host 127.0.0.1")
        assert contender["facts"]["precision"] == "fp32"
        assert contender["facts"]["bytes"] > 0
    for window in content["windows"]:
        assert window["measurement"]["right"] > 0
        assert window["rss_mib"] > 10
        assert set(window["mean_ms"]) >= {"service", "queue", "tokenize", "inference"}
    assert content["usage"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_test_keeps_its_results_and_leaves_nothing_running(
    number: signal.Signals, models_dir: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "crisp", "loadtest", "--models", str(models_dir)]
    command += ["--seconds", "2", "--out", str(tmp_path / "results")]
    root = Path(crisp.__file__).parent
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=root, stdout=log, stderr=log, env=os.environ)
    family = wait_until_it_sends(process)
    assert len(family) >= 2, (tmp_path / "log").read_text()
    process.send_signal(number)
    assert process.wait(60) == 130, (tmp_path / "log").read_text()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    content = results_in(tmp_path / "results")
    assert not content["complete"]
    assert content["stopped_by"] == "interrupted"
    assert content["windows"]
    assert not content["windows"][-1]["measurement"]["complete"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no nohup")
def test_a_test_in_the_background_survives_its_terminal_and_ends_with_sigterm(
    models_dir: Path, tmp_path: Path
) -> None:
    """As `nohup crisp loadtest &` in a script, where SIGINT and SIGHUP are ignored."""
    command = [sys.executable, "-m", "crisp", "loadtest", "--models", str(models_dir)]
    shell = ["sh", "-c", 'trap "" INT HUP; exec "$@"', "sh", *command, "--out", str(tmp_path / "r")]
    root = Path(crisp.__file__).parent
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(shell, cwd=root, stdout=log, stderr=log)
    family = wait_until_it_sends(process)
    assert len(family) >= 2, (tmp_path / "log").read_text()
    for ignored in (signal.SIGINT, signal.SIGHUP):
        process.send_signal(ignored)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    process.terminate()
    assert process.wait(60) == 130, (tmp_path / "log").read_text()
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert not results_in(tmp_path / "r")["complete"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="terminals of other systems")
def test_results_are_saved_after_the_terminal_is_closed(models_dir: Path, tmp_path: Path) -> None:
    import fcntl
    import pty
    import termios

    command = [sys.executable, "-m", "crisp", "loadtest", "--models", str(models_dir)]
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)],
        cwd=Path(crisp.__file__).parent,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(its)
    family = wait_until_it_sends(process)
    assert len(family) >= 2
    os.close(ours)
    assert process.wait(60) == 130
    assert psutil.wait_procs(family, timeout=5)[1] == []
    content = results_in(tmp_path)
    assert content["stopped_by"] == "interrupted"
    assert content["windows"]


@pytest.mark.slow
def test_a_started_service_that_is_killed_ends_the_test_and_leaves_no_worker(
    models_dir: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "crisp", "loadtest", "--models", str(models_dir)]
    root = Path(crisp.__file__).parent
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--out", str(tmp_path)], cwd=root, stdout=log, stderr=log
        )
    family = wait_until_it_sends(process)
    served = [p for p in family if "serve" in p.cmdline()]
    served[0].kill()
    assert process.wait(60) == 2, (tmp_path / "log").read_text()
    assert "the service ended with exit code -9" in (tmp_path / "log").read_text()
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert not results_in(tmp_path)["complete"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_load_test_that_is_killed_takes_its_service_along(
    models_dir: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "crisp", "loadtest", "--models", str(models_dir)]
    root = Path(crisp.__file__).parent
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--out", str(tmp_path)], cwd=root, stdout=log, stderr=log
        )
    family = wait_until_it_sends(process)
    assert len(family) >= 2, (tmp_path / "log").read_text()
    process.kill()
    process.wait()
    assert psutil.wait_procs(family, timeout=30)[1] == []


def wait_until_it_sends(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes of a load test, a moment after its generator started."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
        if any("loadtests.sender" in " ".join(child.cmdline()) for child in family):
            time.sleep(4)
            return family
        time.sleep(0.2)
    return []
