"""JSON that nobody vouches for: bounded in size and depth, no duplicate keys, no NaN, no text beyond UTF-8."""

from __future__ import annotations

import json
import math
from typing import Any

MAX_DEPTH = 32
MAX_DIGITS = 20


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"must not repeat the key {short(double)}")
    return result


def _constant(text: str) -> None:
    raise ValueError(f"must hold finite numbers only, not {text}")


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"must hold integers of at most {MAX_DIGITS} characters, not {len(text)}")
    return int(text)


def _float(text: str) -> float:
    if len(text) > 64 or not math.isfinite(value := float(text)):
        raise ValueError(f"must hold finite numbers only, not {short(text)}")
    return value


def _check_depth(text: str) -> None:
    """Done before parsing, whose recursion a hostile text could exhaust; brackets inside strings do not count."""
    depth, quoted, escaped = 0, False, False
    for character in text:
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"must not nest deeper than {MAX_DEPTH} levels")
        elif character in "]}":
            depth -= 1


def short(value: Any, limit: int = 60) -> str:
    """``repr`` cut to ``limit`` characters, so that a hostile value cannot fill the screen."""
    text = repr(value[:limit] if isinstance(value, str | list | tuple) else value)
    return text if len(text) <= limit else text[:limit - 3] + "..."


def parse(data: bytes) -> Any:
    """The value of UTF-8 JSON text.

    Raises
    ------
    ValueError
        With a clause that can follow a subject: "must be JSON (line 3, column 5: ...)".
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"must be UTF-8 text (byte {error.start} is not)") from None
    _check_depth(text)
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer,
                           parse_float=_float)
    except json.JSONDecodeError as error:
        raise ValueError(f"must be JSON (line {error.lineno}, column {error.colno}: {error.msg})") from None
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("must hold Unicode text without lone surrogates") from None
    return value
