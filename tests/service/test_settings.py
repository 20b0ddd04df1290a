"""Settings travel to the server's processes through the environment, and bad ones are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings import BUNDLED_MODELS, Settings


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
    ],
)
def test_the_environment_carries_every_setting(settings: Settings) -> None:
    assert Settings.from_environment(settings.to_environment()) == settings


def test_an_empty_variable_counts_as_none() -> None:
    assert Settings.from_environment({"CRISP_MAX_TEXTS": "", "OTHER": "1"}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CRISP_MAX_TEXTS", "many"),
        ("CRISP_MAX_TEXTS", "0"),
        ("CRISP_THREADS", "-1"),
        ("CRISP_TIMEOUT_SECONDS", "0"),
        ("CRISP_ACCESS_LOG", "perhaps"),
    ],
)
def test_a_bad_value_is_named_with_its_variable(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{variable}='{value}': "):
        Settings.from_environment({variable: value})
