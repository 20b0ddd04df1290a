"""JSON as RFC 8259 has it: what the standard library reads too generously is refused.

Invalid UTF-8, `NaN` and `Infinity`, a name that occurs twice in one object, numbers and nesting
beyond any sense: each gets a ValueError whose message says so.
"""

from __future__ import annotations

import codecs
import json
from typing import Any


def loads(body: bytes) -> Any:
    """The value that `body` holds, behind a byte order mark or none; raises ValueError with one
    clear line where it is no JSON."""
    try:
        text = body.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen = set[str]()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {name[:40]!r} occurs twice in one object")
            seen.add(name)
    return result


def _integer(digits: str) -> int:
    if len(digits) > 1000:  # Python itself refuses from 4,300 on, and names a setting of its own
        raise ValueError(f"a number of {len(digits)} digits is too long")
    return int(digits)


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


# Made once: json.loads would make one for each text.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)
