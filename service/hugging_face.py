"""The request shapes of two programs from Hugging Face, so that their clients work unmodified.

POST /hf takes what `huggingface_hub.InferenceClient(model=URL).text_classification(text)` sends to
an inference endpoint; POST /predict takes, beside our own shape, that of Text Embeddings Inference
(TEI), whose texts are in `inputs`. Both answer every label with its score, highest first. Errors
have our own shape everywhere.

Source: huggingface_hub 2.4 (inference/_providers/hf_inference.py) and the OpenAPI document of
TEI 1.8 (`PredictRequest`, `PredictResponse`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, Discriminator, Field, RootModel, Tag
from pydantic_core import PydanticCustomError

from service.engine import Prediction, softmax
from service.errors import RequestError
from service.schemas import BATCH, MANY, ONE, JsonRequest, Text

Transform = Literal["softmax", "sigmoid", "none"]


def _hf_shape(inputs: Any) -> str:
    return MANY if isinstance(inputs, list) else ONE


def _tei_shape(inputs: Any) -> str:
    if not isinstance(inputs, list):
        return ONE
    return BATCH if inputs and isinstance(inputs[0], list) else MANY


def _no_pair(texts: Any) -> Any:
    if isinstance(texts, list) and len(texts) > 1:
        message = (
            "must hold one string, since two are a pair, which the models do not read: "
            'a batch is [["..."], ["..."]]'
        )
        raise PydanticCustomError("pair", message)
    return texts


def _whole(number: Any) -> Any:
    """5.0 as 5: the same number in JSON, where only its spelling tells them apart."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _in_lower_case(word: Any) -> Any:
    return word.lower() if isinstance(word, str) else word


_Single = Annotated[list[Text], BeforeValidator(_no_pair), Field(min_length=1, max_length=1)]


class HuggingFaceParameters(BaseModel, extra="forbid", strict=True):
    """How scores are computed and how many are returned."""

    function_to_apply: Transform | None = Field(
        default=None, description="What turns logits into scores; null: softmax."
    )
    top_k: Annotated[int | None, BeforeValidator(_whole)] = Field(
        default=None, ge=1, description="The highest scores alone; null: all."
    )


class HuggingFaceRequest(JsonRequest):
    """Hugging Face's text classification. A text that is too long for the model is cut."""

    list_field: ClassVar[str] = "inputs"
    example: ClassVar[str] = '{"inputs": "A warm, funny film."}'

    inputs: Annotated[
        Annotated[Text, Tag(ONE)] | Annotated[list[Text], Field(min_length=1), Tag(MANY)],
        Discriminator(_hf_shape),
    ] = Field(examples=["A warm, funny film."])
    parameters: HuggingFaceParameters | None = None
    options: dict[str, Any] | None = Field(
        None, description="Older clients send them, as `wait_for_model`: without effect here."
    )
    variant: str | None = Field(None, description="A name from GET /models; null: the default.")

    @property
    def texts(self) -> list[str]:
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs


class TeiRequest(JsonRequest):
    """Text Embeddings Inference's classification: one text, or a batch of texts, each in a list of
    its own. Two strings in one list would be a pair, which these models do not read."""

    list_field: ClassVar[str] = "inputs"
    example: ClassVar[str] = '{"inputs": [["A warm, funny film."], ["Dull."]]}'

    inputs: Annotated[
        Annotated[Text, Tag(ONE)]
        | Annotated[_Single, Tag(MANY)]
        | Annotated[list[_Single], Field(min_length=1), Tag(BATCH)],
        Discriminator(_tei_shape),
    ] = Field(examples=["A warm, funny film.", [["A warm, funny film."], ["Dull."]]])
    truncate: bool | None = Field(
        None, description="Cut a text that is too long for the model; else it is refused with 413."
    )
    truncation_direction: Annotated[Literal["right"], BeforeValidator(_in_lower_case)] = Field(
        "right", description="Texts are cut at their end. `Right` is the same."
    )
    raw_scores: bool = Field(False, description="Logits in place of probabilities.")
    variant: str | None = Field(None, description="A name from GET /models; null: the default.")

    @property
    def texts(self) -> list[str]:
        if isinstance(self.inputs, str):
            return [self.inputs]
        return [text if isinstance(text, str) else text[0] for text in self.inputs]

    @property
    def is_batch(self) -> bool:
        return not isinstance(self.inputs, str) and not isinstance(self.inputs[0], str)


class LabelScore(BaseModel, frozen=True):
    """One label and its score."""

    label: str
    score: float


class HuggingFaceResponse(RootModel[list[list[LabelScore]]]):
    """For each text the labels, highest score first; a list of one for a single text too."""


class TeiResponse(RootModel[list[LabelScore] | list[list[LabelScore]]]):
    """The labels, highest score first: for a single text, or for each of a batch."""


def label_scores(
    logits: Sequence[Sequence[float]], labels: Sequence[str], transform: Transform
) -> list[list[LabelScore]]:
    """Every label with its score for each row of logits [B, C], highest first; equal scores in the
    order of `labels`."""
    rows = np.asarray(logits, np.float64).reshape(-1, len(labels))
    match transform:
        case "softmax":
            rows = softmax(rows.astype(np.float32))  # they were, and /predict computes just this
        case "sigmoid":
            rows = (1 + np.tanh(rows / 2)) / 2
    return [
        sorted(
            (
                LabelScore(label=label, score=score)
                for label, score in zip(labels, row, strict=True)
            ),
            key=lambda found: -found.score,
        )
        for row in rows.tolist()
    ]


def require_whole(request: TeiRequest, predictions: Sequence[Prediction], limit: int) -> None:
    """Raises RequestError 413, as TEI does, for the first text that was cut though `request` did
    not allow it; `limit` is the model's maximum of tokens."""
    for index, prediction in enumerate(predictions):
        if prediction.truncated and not request.truncate:
            field = f"inputs[{index}]" if request.is_batch else "inputs"
            raise RequestError(
                413,
                "text_too_long",
                f"{field} has more than the {limit} tokens that the model reads; "
                'send "truncate": true to have it cut',
                field=field,
            )
