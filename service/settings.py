"""The service's settings: one typed object, from the command line or from `CRISP_...` variables.

`crisp serve` hands its options to the server's worker processes through the environment, which is
also how a container or `bentoml serve` is configured: `CRISP_MAX_TEXTS=64 bentoml serve`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import SettingsError

PREFIX = "CRISP_"
BUNDLED_MODELS = Path(__file__).resolve().parent / "models"


class Settings(BaseModel):
    """What the service may be told; every field is the variable CRISP_<FIELD> in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Path = BUNDLED_MODELS  # a folder of model folders, or one model folder
    max_texts: int = Field(256, ge=1)  # texts of one request
    max_body_bytes: int = Field(1 << 20, ge=1)
    threads: int | None = Field(None, ge=1)  # of one run of a model; None: every core there is
    runs_at_once: int = Field(1, ge=1)  # runs share the cores, so more than one rarely pays
    timeout_seconds: float = Field(60, gt=0)  # of a request as a whole; then 408, 503 or 504
    access_log: bool = True  # one line for each request

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Reads the variables that are set and not empty; raises SettingsError for a bad value."""
        names = {name: f"{PREFIX}{name.upper()}" for name in cls.model_fields}
        given = {name: environment.get(variable) for name, variable in names.items()}
        try:
            return cls.model_validate({name: value for name, value in given.items() if value})
        except ValidationError as error:
            first = error.errors()[0]
            variable = names[str(first["loc"][0])]
            raise SettingsError(
                f"{variable}={first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
            ) from None

    def to_environment(self) -> dict[str, str]:
        """The variables from which `from_environment` makes the same settings."""
        values = self.model_dump(exclude_none=True)
        return {f"{PREFIX}{name.upper()}": str(value) for name, value in values.items()}
