"""Settings come from flags, variables and a file, travel through the environment, and bad ones are
named."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running_server import ROOT
from typer.testing import CliRunner

import crisp
from service.errors import SettingsError
from service.settings import BUNDLED_MODELS, Settings, flag, resolve, toml

NAMES = list(Settings.model_fields)


def test_without_variables_the_bundled_models_are_served() -> None:
    settings = Settings.from_environment({})
    assert settings.models == BUNDLED_MODELS
    assert settings.max_texts == 256
    assert settings.max_body_bytes == 1 << 20


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(models=Path("/somewhere else"), threads=3, access_log=False, timeout_seconds=0.5),
        Settings(keys=Path("/keys"), rate_limit=2.5, log_format="json", shadow=1),
    ],
)
def test_the_environment_carries_every_setting(settings: Settings) -> None:
    assert Settings.from_environment(settings.to_environment()) == settings


def test_the_environment_carries_a_relative_path_into_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    carried = Settings(models=Path("mine")).to_environment()
    monkeypatch.chdir("/")
    assert Settings.from_environment(carried).models == tmp_path / "mine"


def test_an_empty_variable_counts_as_none() -> None:
    assert Settings.from_environment({"CRISP_MAX_TEXTS": "", "OTHER": "1"}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CRISP_MAX_TEXTS", "many"),
        ("CRISP_MAX_TEXTS", "0"),
        ("CRISP_THREADS", "-1"),
        ("CRISP_TIMEOUT_SECONDS", "0"),
        ("CRISP_TIMEOUT_SECONDS", "inf"),
        ("CRISP_ACCESS_LOG", "perhaps"),
        ("CRISP_LOG_FORMAT", "xml"),
        ("CRISP_SHADOW", "1.5"),
        ("CRISP_PORT", "tcp://10.0.0.1:3000"),
    ],
)
def test_a_bad_value_is_named_with_its_variable(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable}='{value}': (input )?should"):
        Settings.from_environment({variable: value})


def test_a_bad_value_is_named_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "crisp.toml"
    file.write_text("max_texts = 0\n")
    for flags, config, start in (
        ({"max_wait_seconds": 0}, None, "--max-wait 0: "),
        ({}, file, f"max_texts = 0 in {file}: "),
    ):
        with pytest.raises(SettingsError) as refused:
            resolve(flags, {}, config)
        assert str(refused.value).startswith(start)
        assert "greater than" in str(refused.value)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("--port", "0", "greater than or equal to 1"),
        ("--port", "http", "a valid integer"),
        ("--max-wait", "inf", "a finite number"),
        ("--shadow", "1.5", "less than or equal to 1"),
        ("--log-format", "xml", "'text' or 'json'"),
    ],
)
def test_a_bad_flag_is_named_with_its_value(option: str, value: str, allowed: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "crisp.py"), "serve", option, value],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"crisp: error: {option} {value}: input should be ")
    assert allowed in line


def test_settings_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(SettingsError, match="--rate-limit limits keys: give --keys too"):
        resolve({"rate_limit": 1.0}, {})


def test_the_flag_wins_then_the_variable_then_the_file(tmp_path: Path) -> None:
    file = tmp_path / "crisp.toml"
    file.write_text("max_texts = 1\nport = 1\nthreads = 1\n")
    environment = {"CRISP_MAX_TEXTS": "2", "CRISP_PORT": "2", "CRISP_CONFIG": str(file)}
    found = resolve({"max_texts": 3, "port": None}, environment)
    assert (found.settings.max_texts, found.settings.port, found.settings.threads) == (3, 2, 1)
    wanted = {"max_texts": "--max-texts", "port": "CRISP_PORT", "threads": str(file)}
    assert found.sources == dict.fromkeys(NAMES, "default") | wanted


def test_a_path_in_the_file_stands_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "crisp.toml"
    file.write_text('models = "mine"\nkeys = "/etc/keys"\n')
    found = resolve({}, {}, file).settings
    assert (found.models, found.keys) == (tmp_path / "mine", Path("/etc/keys"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("max_text = 3", "max_text in {file} is no setting: did you mean max_texts?"),
        ("colour = 3", "colour in {file} is no setting: see `crisp serve --print-settings`"),
        ("max_texts", "{file} is no TOML: "),
        ("[max_texts]", "max_texts = {{}} in {file}: input should be a valid integer"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "crisp.toml"
    file.write_text(content)
    with pytest.raises(SettingsError) as refused:
        resolve({}, {}, file)
    assert message.format(file=file) in str(refused.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the settings in .*: No such file"):
        resolve({}, {"CRISP_CONFIG": str(tmp_path / "none.toml")})
    (tmp_path / "latin").write_bytes(b"models = 'caf\xe9'")
    with pytest.raises(SettingsError, match="latin is no TOML"):
        resolve({}, {}, tmp_path / "latin")


def test_a_slip_in_a_variable_is_named_and_those_of_others_are_not() -> None:
    with pytest.raises(SettingsError, match=r"CRISP_MAX_TEXT is no .* mean CRISP_MAX_TEXTS\?"):
        Settings.from_environment({"CRISP_MAX_TEXT": "3"})
    for short in ("TIMEOUT", "MAX_WAIT", "DRAIN", "HEADER_TIMEOUT"):  # flags have no unit
        meant = f"CRISP_{short} is no setting: did you mean CRISP_{short}_SECONDS\\?"
        with pytest.raises(SettingsError, match=meant):
            Settings.from_environment({f"CRISP_{short}": "3"})
    kubernetes = ("CRISP_SERVICE_HOST", "CRISP_SERVICE_PORT", "CRISP_PORT_3000_TCP_PROTO")
    others = dict.fromkeys((*kubernetes, "CRISP_OP_LIBRARY"), "x")
    assert Settings.from_environment(others) == Settings()


@given(st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_values_are_written_as_toml_reads_them(s: str, i: int, f: float, b: bool) -> None:
    s = s.encode(errors="ignore").decode()  # no half surrogate pairs: no file holds them
    values = {"s": s, "i": i % 2**63, "f": f, "b": b}
    written = "\n".join(f"{name} = {toml(value)}" for name, value in values.items())
    assert tomllib.loads(written) == values


FLAGS = st.fixed_dictionaries(
    {},
    optional={
        "max_texts": st.integers(1, 1000),
        "shadow": st.floats(0, 1),
        "access_log": st.booleans(),
        "log_format": st.sampled_from(["text", "json"]),
        "threads": st.none() | st.integers(1, 64),
        "models": st.sampled_from([Path("/a b"), Path('/a"b\\c')]),
    },
)


@given(FLAGS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_printed_is_a_file_that_says_the_same(
    tmp_path: Path, flags: dict[str, Any]
) -> None:
    found = resolve(flags, {})
    (tmp_path / "crisp.toml").write_text(str(found))
    assert resolve({}, {}, tmp_path / "crisp.toml").settings == found.settings


def test_the_command_prints_each_setting_and_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crisp.toml").write_text("max_texts = 7\n")
    monkeypatch.setenv("CRISP_PORT", "4000")
    options = ["--config", str(tmp_path / "crisp.toml"), "--no-access-log", "--max-wait", "0.5"]
    shown = CliRunner().invoke(crisp.app, ["serve", *options, "--print-settings"])
    assert shown.exit_code == 0, shown.output
    values = tomllib.loads(shown.output)
    wanted = {"max_texts": 7, "port": 4000, "access_log": False, "max_wait_seconds": 0.5}
    assert wanted.items() <= values.items()
    sources = {line.split()[0]: line.rpartition("# ")[2] for line in shown.output.splitlines()}
    assert sources["port"] == "CRISP_PORT"
    assert sources["access_log"] == "--access-log"
    assert sources["max_texts"].endswith("crisp.toml")
    assert sources["max_body_bytes"] == "default"


def test_paths_are_printed_as_they_are_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "crisp.toml").write_text('keys = "keys.json"\n')
    monkeypatch.chdir(tmp_path)
    printed = str(resolve({}, {}, Path("etc/crisp.toml")))
    assert tomllib.loads(printed)["keys"] == str(tmp_path / "etc" / "keys.json")


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_a_flag_with_a_help(name: str) -> None:
    shown = CliRunner(env={"COLUMNS": "300"}).invoke(crisp.app, ["serve", "--help"]).output
    help = Settings.model_fields[name].description
    assert help is not None
    (line,) = (line for line in shown.splitlines() if line.startswith(f"│ {flag(name)} "))
    assert help in line
    assert "[default: " in line
