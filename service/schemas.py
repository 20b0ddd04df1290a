"""What goes over HTTP: the bodies of requests and responses, and how a body becomes a request.

The engine's own dataclasses are part of the responses, so there is one definition of each shape;
`service/openapi.py` describes the same classes at /docs.json.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from export.manifest import Manifest
from service import strict_json
from service.engine import Prediction, Timing
from service.errors import RequestError

UNION_TAGS = ONE, MANY, BATCH = "<one>", "<many>", "<batch>"  # of a field of several shapes
_HALF_PAIR = "holds half a surrogate pair: send valid Unicode"


def _readable(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty_text", "is empty: send some text or leave it out")
    if "\0" in text:
        raise PydanticCustomError("unreadable_text", "holds a NUL character: remove it")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can spell "\\ud800", which no tokenizer can read
        raise PydanticCustomError("unreadable_text", _HALF_PAIR) from None
    return text


# The same as _readable, for /docs.json: at least one character that Python does not strip, no NUL.
_BLANKS = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
TEXT_PATTERN = rf"^[^\x00]*[^\x00{_BLANKS}][^\x00]*$"

Text = Annotated[
    str,
    AfterValidator(_readable),
    Field(min_length=1, json_schema_extra={"pattern": TEXT_PATTERN}),
]


class JsonRequest(BaseModel):
    """Base of every request: `parse` makes one of a body, and says what is wrong with it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    list_field: ClassVar[str]  # holds the texts; how many is limited
    example: ClassVar[str]  # what messages tell to send


class PredictRequest(JsonRequest):
    """Texts to classify. Each may be of any length; what exceeds the model's maximum is cut."""

    list_field: ClassVar[str] = "texts"
    example: ClassVar[str] = '{"texts": ["A warm, funny film."]}'

    texts: list[Text] = Field(min_length=1, examples=[["A warm, funny film."]])
    variant: str | None = Field(None, description="A name from GET /models; null: the default.")


class CompareRequest(PredictRequest):
    """Texts to classify under every variant. `variant` says with which one to compare the others;
    by default it is `dense`, where there is one."""

    variant: str | None = Field(
        None, description="A name from GET /models; null: `dense`, where there is one."
    )


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True)


class PredictResponse(_Response):
    """One prediction for each text, in order."""

    variant: str
    predictions: list[Prediction]
    timing: Timing


class Comparison(_Response):
    """One text under every variant."""

    agree: bool = Field(description="All variants give the same label.")
    predictions: dict[str, Prediction] = Field(description="By variant.")


class CompareResponse(_Response):
    """Every text under every variant, in order, and how often they agree."""

    baseline: str = Field(description="The variant that the others are compared with.")
    comparisons: list[Comparison]
    agreement: dict[str, float] = Field(
        description="For each other variant, the share of texts with the baseline's label."
    )
    timing: dict[str, Timing] = Field(description="By variant.")


class OperatorFacts(_Response):
    """Whether the compiled operators are in use, and if not, why."""

    kernel: Literal["compiled", "fallback"]
    reason: str


class VariantFacts(_Response):
    """What is known of one model."""

    operators: OperatorFacts
    manifest: Manifest


class ModelsResponse(_Response):
    """Every variant that the service holds."""

    default: str
    variants: dict[str, VariantFacts]


class ErrorFacts(_Response):
    """What went wrong."""

    code: str = Field(description="A stable word for programs.", examples=["empty_text"])
    message: str = Field(description="What was expected, what came, what to do.")
    field: str | None = Field(None, description="The part of the body.", examples=["texts[3]"])


class ErrorResponse(_Response):
    """The body of every answer with a status of 400 and above."""

    error: ErrorFacts


R = TypeVar("R", bound=JsonRequest)


def parse(kind: type[R], body: bytes, max_texts: int) -> R:
    """The request in `body`.

    Raises RequestError: 400 where the body is no JSON, 422 where it is not the JSON asked for.
    """
    return validate(kind, json_fields(body, kind.example), max_texts)


def json_fields(body: bytes, example: str) -> Any:
    """The JSON value in `body`; raises RequestError 400, which tells to send `example`."""
    try:
        return strict_json.loads(body)
    except ValueError as error:
        message = f"the body is no valid JSON: {error}; send {example}"
        raise RequestError(400, "invalid_json", message) from None


def validate(kind: type[R], fields: Any, max_texts: int) -> R:
    """`fields` as a request of `kind`; raises RequestError 422 where they are none."""
    texts = fields.get(kind.list_field) if isinstance(fields, dict) else None
    if isinstance(texts, list) and len(texts) > max_texts:
        message = f"expected at most {max_texts} texts in one request, got {len(texts)}; send fewer"
        raise RequestError(422, "too_many_texts", message, field=kind.list_field)
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _invalid(kind, error.errors(include_url=False)[0]) from None


def _invalid(kind: type[JsonRequest], error: ErrorDetails) -> RequestError:
    field = _path(error["loc"])
    code, message = "invalid_request", f"{error['msg']}, got {_kind(error['input'])}"
    match error["type"]:
        case "empty_text" | "unreadable_text" | "pair":
            code, message = error["type"], error["msg"]
        case "string_unicode":
            code, message = "unreadable_text", _HALF_PAIR
        case "missing":
            message = f"is missing: send {kind.example}"
        case "too_short":
            message = "is an empty list: send at least one text"
        case "list_type":
            message = f"must be a list of strings, got {_kind(error['input'])}: send {kind.example}"
        case "string_type":
            message = f"must be a string, got {_kind(error['input'])}"
        case "extra_forbidden":
            known = " and ".join(kind.model_fields)
            message = "is no known field; "
            message += f"known are {known}" if len(error["loc"]) == 1 else "see /docs.json"
        case "model_type":
            message = f"must be an object, got {_kind(error['input'])}: send {kind.example}"
    return RequestError(422, code, f"{field or 'the body'} {message}", field=field or None)


def _path(location: tuple[int | str, ...]) -> str:
    """("texts", 3) as `texts[3]`; the tags of a union's members say nothing to a caller."""
    named = (part for part in location if part not in UNION_TAGS)
    parts = (
        f"[{part}]" if isinstance(part, int) else f".{_printable(part[:40])}" for part in named
    )
    return "".join(parts).removeprefix(".")


def _printable(name: str) -> str:
    """A caller's name for a field on one line, whatever is in it."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in name)


def _kind(value: Any) -> str:
    names = {str: "a string", bool: "a boolean", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), "a number")
