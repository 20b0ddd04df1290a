"""What is a valid request, and what is said of one that is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import strict_json
from service.errors import RequestError
from service.reply import error_response
from service.schemas import PredictRequest, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("texts"), inner),
    max_leaves=10,
)


def refusal(body: bytes, max_texts: int = 4) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(PredictRequest, body, max_texts)
    return caught.value


def test_a_valid_request() -> None:
    found = parse(PredictRequest, '{"texts": ["good", " wärm ☃\\n"], "variant": null}'.encode(), 4)
    assert found.texts == ["good", " wärm ☃\n"]
    assert found.variant is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"texts": ["a"],}',
        b'{"texts": ["a"]} trailing',
        b'{"texts": ["\xff"]}',
        b'{"texts": ["a"], "variant": NaN}',
        b'{"texts": [-Infinity]}',
        b'{"texts": ["a"], "texts": ["b"]}',
        b'{"texts": ["a\nb"]}',
        b'{"texts": [' + b"9" * 5000 + b"]}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_is_no_json_gets_400(body: bytes) -> None:
    error = refusal(body)
    assert (error.status, error.code) == (400, "invalid_json")
    assert "send {" in str(error)


@pytest.mark.parametrize(
    ("body", "code", "field", "message"),
    [
        ('["a"]', "invalid_request", None, "the body must be an object, got a list"),
        ("null", "invalid_request", None, "the body must be an object, got null"),
        ("{}", "invalid_request", "texts", "texts is missing"),
        ('{"texts": "a"}', "invalid_request", "texts", "must be a list of strings, got a string"),
        ('{"texts": []}', "invalid_request", "texts", "texts is an empty list"),
        ('{"texts": ["a", 3]}', "invalid_request", "texts[1]", "must be a string, got a number"),
        ('{"texts": [null]}', "invalid_request", "texts[0]", "must be a string, got null"),
        ('{"texts": [["a"]]}', "invalid_request", "texts[0]", "must be a string, got a list"),
        ('{"texts": ["a", ""]}', "empty_text", "texts[1]", "texts[1] is empty"),
        ('{"texts": [" \\n\\u00a0"]}', "empty_text", "texts[0]", "texts[0] is empty"),
        ('{"texts": ["\\ud800"]}', "unreadable_text", "texts[0]", "half a surrogate pair"),
        ('{"texts": ["a", "b\\u0000"]}', "unreadable_text", "texts[1]", "NUL character"),
        ('{"texts": ["a"], "variant": 1}', "invalid_request", "variant", "must be a string"),
        ('{"texts": ["a"], "model": "x"}', "invalid_request", "model", "no known field"),
        ('{"texts": ["a","b","c","d","e"]}', "too_many_texts", "texts", "at most 4 texts"),
    ],
)
def test_what_is_not_the_json_asked_for_gets_422(
    body: str, code: str, field: str | None, message: str
) -> None:
    error = refusal(body.encode())
    assert (error.status, error.code, error.field) == (422, code, field)
    assert message in str(error)


@given(body=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_a_request_or_a_client_error_that_can_be_sent(body: bytes) -> None:
    refused = None
    try:
        assert 1 <= len(parse(PredictRequest, body, 4).texts) <= 4
    except RequestError as error:
        refused = error
    if refused:
        sent = json.loads(error_response(refused).body)["error"]
        assert refused.status in (400, 422)
        assert sent["message"] == str(refused)
        assert len(sent["message"]) < 300
        assert "\n" not in sent["message"]


def test_a_name_of_several_lines_is_told_on_one() -> None:
    with pytest.raises(RequestError) as refused:
        parse(PredictRequest, b'{"texts": ["a"], "vari\\nt\\u001b": 1}', 4)
    assert str(refused.value).startswith(r"vari\u000at\u001b is no known field")


def test_a_name_that_comes_again_is_found_at_once() -> None:
    body = ",".join(f'"{i}": 0' for i in range(90_000))
    with pytest.raises(ValueError, match="the name '89999' occurs twice in one object"):
        strict_json.loads(f'{{{body}, "89999": 1}}'.encode())  # looked for one by one: minutes


@given(value=JSON)
def test_strict_json_reads_what_json_writes(value: object) -> None:
    text = json.dumps(value)
    if "NaN" in text or "Infinity" in text:
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            with pytest.raises(ValueError, match="is no JSON number"):
                strict_json.loads(text.encode())
            return
    assert strict_json.loads(text.encode()) == value
