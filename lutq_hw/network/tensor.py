"""Types of the integers that flow along the edges, and the checks that all network objects share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ModelError

MAX_DIMENSION = 4096
"""Largest extent of any axis; keeps a hostile file from asking for absurd amounts of work."""

MAX_BITS = 32
"""Widest integer on an edge (raw accumulators of the last layer)."""

MAX_CODE_BITS = 8
"""Widest activation code that a weight layer accepts."""

Ints = np.ndarray


def require(condition: bool, sentence: str) -> None:
    """Raise `ModelError(sentence)` unless ``condition`` holds."""
    if not condition:
        raise ModelError(sentence)


def integers(value: Any, what: str, *, dtype: type = np.int64) -> Ints:
    """``value`` as a read-only integer array; floats, booleans and objects are refused, never rounded."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ModelError(f"{what} must be a rectangular array of integers") from error
    require(array.dtype.kind in "iu" or array.size == 0, f"{what} must hold integers, not {array.dtype}")
    info = np.iinfo(dtype)
    if array.size:
        low, high = int(array.min()), int(array.max())
        require(info.min <= low and high <= info.max, f"{what} must fit {np.dtype(dtype)}, not span {low} to {high}")
    array = array.astype(dtype)
    array.setflags(write=False)
    return array


@dataclass(frozen=True)
class TensorType:
    """Integers of ``bits`` bits in a ``shape``: ``(H, W, C)`` for maps (channel last) or ``(N,)`` for vectors.

    Raises
    ------
    ModelError
        If the shape is not one of the two kinds, an extent is outside 1..4096, or ``bits`` is outside 1..32.
    """

    shape: tuple[int, ...]
    bits: int
    signed: bool = False

    def __post_init__(self) -> None:
        extents = all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in self.shape)
        require(
            isinstance(self.shape, tuple) and len(self.shape) in (1, 3) and extents,
            f"shape must be (H, W, C) or (N,) with positive extents, not {self.shape!r}",
        )
        limit = MAX_DIMENSION if len(self.shape) == 3 else MAX_DIMENSION * 16
        require(max(self.shape) <= limit, f"shape must have no extent above {limit}, not {self.shape!r}")
        good = isinstance(self.bits, int) and not isinstance(self.bits, bool) and 1 <= self.bits <= MAX_BITS
        require(good, f"bits must be an integer from 1 to {MAX_BITS}, not {self.bits!r}")
        require(isinstance(self.signed, bool), f"signed must be true or false, not {self.signed!r}")

    @property
    def min(self) -> int:
        """Smallest value."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def max(self) -> int:
        """Largest value."""
        return (1 << (self.bits - self.signed)) - 1

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

    @property
    def channels(self) -> int:
        """Extent of the last axis."""
        return self.shape[-1]

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)``; a vector of N counts as a 1 x 1 map of N channels."""
        return self.shape if len(self.shape) == 3 else (1, 1, self.shape[0])  # type: ignore[return-value]

    @property
    def levels(self) -> Ints:
        """Every value, ascending: the rows of a product table."""
        return np.arange(self.min, self.max + 1, dtype=np.int64)

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))} {'s' if self.signed else 'u'}{self.bits}"


def signed_bits(low: int, high: int) -> int:
    """Bits of the smallest two's-complement integer that holds ``low`` to ``high``."""
    return max(1 + int(high).bit_length() if high >= 0 else 1, 1 + int(-low - 1).bit_length() if low < 0 else 1)
