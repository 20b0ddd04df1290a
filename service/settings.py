"""The service's settings: one typed object, and where each value may come from.

A flag of `crisp serve` wins over a `CRISP_...` variable, that over the file of `--config`, that
over the default. A new setting is a field of `Settings`: its flag, its variable, its line in the
file and in `crisp serve --print-settings` follow from it. `crisp serve` hands all of them to the
server's processes as variables, which is also how a container or `bentoml serve` is configured:

    CRISP_MAX_TEXTS=64 bentoml serve

No setting is a secret: `keys` names a file of hashes.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from service.errors import SettingsError

PREFIX = "CRISP_"
CONFIG = f"{PREFIX}CONFIG"  # the variable that names the file
BUNDLED_MODELS = Path(__file__).resolve().parent / "models"

_CLOSE = (
    0.85  # a variable so like ours is a slip; CRISP_PORT_3000_TCP, which Kubernetes sets, is not
)


def setting(default: Any, help: str, group: str, *, shown: str = "", **limits: Any) -> Any:
    """A field of Settings: its default, what it is in which unit, under which heading `crisp serve
    --help` lists it, how its default is worded, and what pydantic's Field allows of it."""
    extra: dict[str, Any] = {"group": group, "shown": shown}
    return Field(default, description=help, json_schema_extra=extra, **limits)


class Settings(BaseModel):
    """What the service may be told."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    models: Path = setting(
        BUNDLED_MODELS,
        "Folder with a model folder for each variant, or one model folder.",
        "Models",
        shown="the bundled models",
    )
    threads: int | None = setting(
        None, "Threads that the runs of models share.", "Models", shown="every core", ge=1
    )
    device: Literal["cpu", "cuda", "auto"] = setting(
        "cpu",
        "Where models run: cpu; cuda, a GPU; or auto, a GPU where one works and the model can.",
        "Models",
    )
    shadow: float = setting(
        0.0,
        "Share of requests, 0 to 1, that run through the baseline too, off the critical path.",
        "Models",
        ge=0,
        le=1,
    )
    reports: Path | None = setting(
        None,
        "Folder with the reports of `crisp compare` and `crisp loadtest` that GET /report shows.",
        "Models",
        shown="no reports",
    )

    host: str = setting("127.0.0.1", "Address to listen on.", "Server", min_length=1)
    port: int = setting(3000, "Port to listen on.", "Server", ge=1, le=65535)
    workers: int = setting(1, "Processes that serve; they share the cores.", "Server", ge=1)

    max_wait_seconds: float = setting(
        2.0,
        "Seconds until its answer that a request may have to wait for others; else 429.",
        "Load",
        gt=0,
    )
    timeout_seconds: float = setting(
        60.0, "Seconds that a request may take as a whole; then 408, 503 or 504.", "Load", gt=0
    )
    drain_seconds: float = setting(
        0.5, "Seconds between being told to stop and taking no more requests.", "Load", ge=0
    )
    batch_tokens: int = setting(256, "Tokens of one run of a model.", "Load", ge=1)
    queue_tokens: int = setting(65536, "Tokens that may wait; more get 429.", "Load", ge=1)
    runs_at_once: int | None = setting(
        None,
        "Runs of models at once; they share the threads.",
        "Load",
        shown="one for each thread",
        ge=1,
    )

    max_texts: int = setting(256, "Texts of one request.", "Limits", ge=1)
    max_body_bytes: int = setting(1 << 20, "Bytes of the body of a request.", "Limits", ge=1)
    max_header_bytes: int = setting(
        1 << 14, "Bytes of the first line and headers of a request.", "Limits", ge=1 << 10
    )
    header_timeout_seconds: float = setting(
        10.0, "Seconds that the headers of a request may take to arrive.", "Limits", gt=0
    )
    max_connections: int = setting(
        16384, "Connections of one process; more are closed at once.", "Limits", ge=1
    )

    keys: Path | None = setting(
        None,
        "File of API keys, as `crisp keys add` writes it; every request then needs one.",
        "Access",
        shown="no key is needed",
    )
    rate_limit: float | None = setting(
        None, "Requests a second of one key; more get 429.", "Access", shown="unlimited", gt=0
    )
    rate_burst: int = setting(
        20, "Requests that a key may have saved up under --rate-limit.", "Access", ge=1
    )
    allowed_hosts: str | None = setting(
        None,
        "Names, commas between them, that requests may be for beside localhost and addresses; *: "
        "any.",
        "Access",
        shown="any; where no keys are asked for on 127.0.0.1, none",
    )

    access_log: bool = setting(True, "Log a line for each request.", "Logs")
    log_format: Literal["text", "json"] = setting(
        "text", "Log lines for people, or JSON for machines.", "Logs"
    )
    log_texts: bool = setting(
        False, "Log the texts of requests too. They may be private: leave this off.", "Logs"
    )

    @field_validator("allowed_hosts")
    @classmethod
    def _names(cls, given: str | None) -> str | None:
        for name in host_names(given):
            if name != "*" and not re.fullmatch(r"[\w-]+(\.[\w-]+)*", name):
                message = "expected names with commas between them, as in crisp.example,crisp.local"
                raise PydanticCustomError("name", message)
        return given

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.rate_limit is not None and self.keys is None:
            raise PydanticCustomError("misfit", "--rate-limit limits keys: give --keys too")
        return self

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Reads the variables that are set and not empty, and the file that CRISP_CONFIG names.

        Raises SettingsError for a bad value.
        """
        return resolve(environment=environment).settings

    def to_environment(self) -> dict[str, str]:
        """The variables from which `from_environment` makes the same settings, in any folder."""
        values = self.model_dump(exclude_none=True)
        return {
            CONFIG: "",  # its values are here already
            **{
                f"{PREFIX}{name.upper()}": str(
                    value.absolute() if isinstance(value, Path) else value
                )
                for name, value in values.items()
            },
        }


@dataclass(frozen=True)
class Resolved:
    """The settings, and by name where each value comes from: a flag, a variable, a file, or
    `default`."""

    settings: Settings
    sources: dict[str, str]

    def __str__(self) -> str:
        """A line for each setting, as TOML that `--config` reads."""
        fields = Settings.model_fields
        values = {name: getattr(self.settings, name) for name in fields}
        shown = {
            name: f"# {name} = {_extra(name, 'shown')}"
            if value is None
            else f"{name} = {toml(value)}"
            for name, value in values.items()
        }
        width = max(map(len, shown.values()))
        return "\n".join(f"{shown[name]:{width}}  # {self.sources[name]}" for name in fields)


def resolve(
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
    config: Path | None = None,
) -> Resolved:
    """The settings from `flags` (by field name; None: not given), `environment` and the TOML file
    `config`, which CRISP_CONFIG may name too.

    Raises SettingsError with the name, the value and what is allowed.
    """
    given = dict[str, Any]()
    sources = dict.fromkeys(Settings.model_fields, "default")
    file = config or (Path(environment[CONFIG]) if environment.get(CONFIG) else None)
    for name, value, source in (
        *(_of_file(file) if file else ()),
        *_of_environment(environment),
        *((name, value, flag(name)) for name, value in (flags or {}).items() if value is not None),
    ):
        given[name], sources[name] = value, source
    try:
        return Resolved(Settings.model_validate(given), sources)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # of several settings together
            raise SettingsError(first["msg"]) from None
        name = str(first["loc"][0])
        message = f"{first['msg'][0].lower()}{first['msg'][1:]}"
        raise SettingsError(f"{_spelled(name, given[name], sources[name])}: {message}") from None


def host_names(allowed: str | None) -> tuple[str, ...]:
    """The names in `allowed_hosts`."""
    return tuple(name.strip() for name in allowed.split(",")) if allowed is not None else ()


def flag(name: str) -> str:
    """`--max-wait` for `max_wait_seconds`: the unit is in the help."""
    return "--" + name.removesuffix("_seconds").replace("_", "-")


def toml(value: Any) -> str:
    """`value` as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    escaped = (
        str(value.absolute() if isinstance(value, Path) else value)
        .replace("\\", "\\\\")
        .replace('"', '\\"')
    )
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def _of_file(file: Path) -> Iterator[tuple[str, Any, str]]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings in {file}: {error.strerror}") from None
    except ValueError as error:  # no UTF-8, or no TOML
        raise SettingsError(f"{file} is no TOML: {error}") from None
    for name, value in values.items():
        if name not in Settings.model_fields:
            close = difflib.get_close_matches(name, Settings.model_fields, 1)
            hint = f"did you mean {close[0]}?" if close else "see `crisp serve --print-settings`"
            raise SettingsError(f"{name} in {file} is no setting: {hint}")
        if isinstance(value, str) and "Path" in str(Settings.model_fields[name].annotation):
            value = file.parent / value  # as in any file: beside it, wherever it is read from
        yield name, value, str(file)


def _of_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    names = {f"{PREFIX}{name.upper()}": name for name in Settings.model_fields}
    # `--max-wait` has no unit in its name, CRISP_MAX_WAIT_SECONDS has
    spellings = {s: name for name in names for s in (name, name.removesuffix("_SECONDS"))}
    for variable, value in environment.items():
        if variable in names:
            if value:
                yield names[variable], value, variable
        elif variable.startswith(PREFIX) and variable != CONFIG:
            close = difflib.get_close_matches(variable, spellings, 1, _CLOSE)
            if close:
                meant = spellings[close[0]]
                raise SettingsError(f"{variable} is no setting: did you mean {meant}?")


def _spelled(name: str, value: Any, source: str) -> str:
    if source.startswith("--"):
        return f"{source} {value}"
    if source.startswith(PREFIX):
        return f"{source}={value!r}"
    return f"{name} = {value!r} in {source}"


def _extra(name: str, key: str) -> str:
    extra = Settings.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return str(extra[key])
