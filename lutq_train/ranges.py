"""Options within their ranges: one sentence for each that is not."""

from __future__ import annotations

from collections.abc import Iterable

from lutq_hw.errors import InputError


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse a value outside of ``low`` to ``high``; a NaN is outside of everything.

    Raises
    ------
    InputError
        With the option's name.
    """
    if not low <= value <= high:
        raise InputError(f"{name} must be from {low} to {high}, not {value}")


def check_ranges(options: object, table: str, **ranges: tuple[float, float]) -> None:
    """`check_range` for attributes of ``options``, which is ``table`` of a recipe (empty: its top level)."""
    for key, (low, high) in ranges.items():
        check_range(f"{table}.{key}".lstrip("."), getattr(options, key), low, high)


def check_choices(options: object, table: str, **choices: Iterable[str]) -> None:
    """Refuse attributes that are none of their words; as `check_ranges`."""
    for key, words in choices.items():
        value = getattr(options, key)
        if value not in words:
            raise InputError(f"{table}.{key}".lstrip(".") + f" must be one of {', '.join(words)}, not {value!r}")
