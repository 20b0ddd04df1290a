"""What is said where BentoML manages the processes in its own way."""

from __future__ import annotations

import pytest

from service.bento_process import warn_of_bentoml
from service.settings import Settings

CONTAINER = {"BENTOML_CONTAINERIZED": "true"}


@pytest.mark.parametrize(
    ("settings", "environment", "said"),
    [
        (Settings(), {}, ""),
        (Settings(), CONTAINER, ""),
        (Settings(workers=2), {}, ""),
        (Settings(workers=2), CONTAINER, "not started again by BentoML in a container"),
        (Settings(), {"CRISP_PORT": "4000"}, "CRISP_PORT is not what `bentoml serve` listens on"),
        (Settings(), {"CRISP_HOST": "::", "CRISP_PORT": ""}, "set BENTOML_HOST"),
    ],
)
def test_what_bentoml_does_otherwise_is_said(
    settings: Settings, environment: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_bentoml(settings, environment)
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)
