"""Paths between registers, as far as structure shows them: what delays are estimated from.

A part's price is counted from its structure, and what is counted there also lies on paths: `counted_paths` collects them
while the price is computed, so that a unit says both in one place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Path(NamedTuple):
    """From one register to the next."""

    levels: float = 0
    """Luts one behind the other."""

    adders: int = 0
    """Adders one behind the other."""

    bits: int = 0
    """Bits that a carry runs through."""

    fanout: float = 0
    """Base-two logarithm of how many cells lie around it; as a delay, without those that lie close together anyway."""

    enables: int = 0
    """1 if it ends at the clock enables of many registers, not at the data input of one."""

    dsps: int = 0
    """Multiplier blocks."""

    brams: int = 0
    """Block RAMs whose output the path begins at."""

    stores: int = 0
    """1 if it ends at an input of a block RAM."""

    entry: int = 0
    """Bit of the result at which logic ends: an adder behind it carries from there on. No delay by itself."""


DELAYS = Path._fields[:-1]
"""Fields that a path's delay is a sum of: all but ``entry``."""


_counted: ContextVar[list[Path] | None] = ContextVar("_counted", default=None)


@contextmanager
def counted_paths() -> Iterator[list[Path]]:
    """Collects the paths of everything that is counted inside the block."""
    paths: list[Path] = []
    token = _counted.set(paths)
    try:
        yield paths
    finally:
        _counted.reset(token)


def counting() -> bool:
    """Whether anybody collects paths."""
    return _counted.get() is not None


def note_paths(paths: Iterable[Path]) -> None:
    """Hands paths to whoever collects them around."""
    collected = _counted.get()
    if collected is not None:
        collected += paths
