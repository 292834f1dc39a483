"""Types of the integers that flow along the edges, and the checks that all network objects share."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ModelError

MAX_DIMENSION = 4096
"""Largest extent of any axis; keeps a hostile file from asking for absurd amounts of work."""

MAX_ELEMENTS = 1 << 24
"""Largest number of elements of one tensor, for the same reason."""

MAX_BITS = 32
"""Widest integer on an edge (raw accumulators of the last layer)."""

MAX_CODE_BITS = 8
"""Widest activation code that a weight layer accepts."""

Ints = np.ndarray


def require(condition: bool, sentence: str) -> None:
    """Raise `ModelError(sentence)` unless ``condition`` holds."""
    if not condition:
        raise ModelError(sentence)


def index(value: Any) -> int | None:
    """``value`` as a Python integer if it is one of Python's or numpy's integers and no boolean; else None."""
    if isinstance(value, bool | np.bool_ | np.ndarray):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def integer(value: Any, what: str, low: int, high: int) -> int:
    """``value`` as a Python integer from ``low`` to ``high``."""
    found = index(value)
    if found is None or not low <= found <= high:
        raise ModelError(f"{what} must be an integer from {low} to {high}, not {value!r}")
    return found


def _has_boolean(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_boolean, value))
    return isinstance(value, bool | np.bool_) or (isinstance(value, np.ndarray) and value.dtype == np.bool_)


def integers(value: Any, what: str, *, dtype: type = np.int64) -> Ints:
    """``value`` as a read-only integer array; floats, booleans and objects are refused, never rounded."""
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise ModelError(f"{what} must be a rectangular array of integers") from error
    require(array.dtype.kind in "iu" or array.size == 0, f"{what} must hold integers, not {array.dtype}")
    # numpy takes a boolean among integers for 0 or 1.
    require(not _has_boolean(value), f"{what} must hold integers, not bool")
    info = np.iinfo(dtype)
    if array.size:
        low, high = int(array.min()), int(array.max())
        require(info.min <= low and high <= info.max, f"{what} must fit {np.dtype(dtype)}, not span {low} to {high}")
    array = array.astype(dtype, order="C")
    array.setflags(write=False)
    return array


def magnitude(array: Ints) -> int:
    """Largest absolute value; unlike numpy's ``abs`` it knows that of ``-2**63``."""
    return max(-int(array.min()), int(array.max()))


@dataclass(frozen=True)
class TensorType:
    """Integers of ``bits`` bits in a ``shape``: ``(H, W, C)`` for maps (channel last) or ``(N,)`` for vectors.

    Raises
    ------
    ModelError
        If the shape is not one of the two kinds, an extent is outside 1..4096 (of a vector: 1..65536), there are more
        than 2**24 elements, or ``bits`` is outside 1..32.
    """

    shape: tuple[int, ...]
    bits: int
    signed: bool = False

    def __post_init__(self) -> None:
        extents = tuple(map(index, self.shape)) if isinstance(self.shape, tuple) and len(self.shape) in (1, 3) else ()
        shape = tuple(n for n in extents if n is not None and n >= 1)
        require(len(shape) > 0 and len(shape) == len(extents),
                f"shape must be (H, W, C) or (N,) with positive extents, not {self.shape!r}")
        limit = MAX_DIMENSION if len(shape) == 3 else MAX_DIMENSION * 16
        require(max(shape) <= limit, f"shape must have no extent above {limit}, not {shape}")
        require(math.prod(shape) <= MAX_ELEMENTS, f"shape must have at most {MAX_ELEMENTS} elements, not {shape}")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "bits", integer(self.bits, "bits", 1, MAX_BITS))
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
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        """Extent of the last axis."""
        return self.shape[-1]

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)``; a vector of N counts as a 1 x 1 map of N channels."""
        height, width = self.shape[:2] if len(self.shape) == 3 else (1, 1)
        return height, width, self.channels

    @property
    def levels(self) -> Ints:
        """Every value, ascending: the rows of a product table."""
        return np.arange(self.min, self.max + 1, dtype=np.int64)

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))} {'s' if self.signed else 'u'}{self.bits}"


def signed_bits(low: int, high: int) -> int:
    """Bits of the smallest two's-complement integer that holds ``low`` to ``high``."""
    return max(1 + int(high).bit_length() if high >= 0 else 1, 1 + int(-low - 1).bit_length() if low < 0 else 1)
