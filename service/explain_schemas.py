"""The body of POST /explain and of its answer."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, Field

from service.explain import Explanation
from service.schemas import JsonRequest, Text

MAX_EXPLAINED = 16  # texts of one request: an answer has some 50 bytes for each token and layer


class ExplainRequest(JsonRequest):
    """Texts to explain, at most 16."""

    list_field: ClassVar[str] = "texts"
    example: ClassVar[str] = '{"texts": ["A warm, funny film."]}'

    texts: list[Text] = Field(
        min_length=1, max_length=MAX_EXPLAINED, examples=[["A warm, funny film."]]
    )
    variant: str | None = Field(
        default=None, description="A name from GET /models; null: the default."
    )


class ExplainResponse(BaseModel, frozen=True):
    """One explanation for each text, in order."""

    variant: str
    explanations: list[Explanation]
