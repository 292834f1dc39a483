"""Step functions: accumulator to activation code, monotone and exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .tensor import MAX_CODE_BITS, Ints, integer, integers, magnitude, require


def _check_code(step: Thresholds | Shift) -> None:
    object.__setattr__(step, "bits", integer(step.bits, "step bits", 1, MAX_CODE_BITS))
    require(isinstance(step.signed, bool), f"step signed must be true or false, not {step.signed!r}")


@dataclass(frozen=True, eq=False)
class Thresholds:
    """``code = min + #{t : acc >= values[o, t]}``, or ``#{t : acc <= values[o, t]}`` where ``descending[o]``.

    Batch norm, scales and activation intervals fold into it exactly; a channel with a negative scale counts downwards.

    Parameters
    ----------
    values
        ``(O, T)`` integers, every row non-decreasing, ``1 <= T <= 2**bits - 1``.
    bits, signed
        Type of the code; ``min`` is 0 or ``-2**(bits-1)``.
    descending
        ``(O,)`` of 0 and 1; absent means all 0.
    """

    values: Any
    bits: int
    signed: bool = False
    descending: Any = None

    def __post_init__(self) -> None:
        _check_code(self)
        values = integers(self.values, "thresholds")
        require(values.ndim == 2 and values.size > 0, f"thresholds must have shape (O, T), not {values.shape}")
        require(values.shape[1] < 1 << self.bits,
                f"thresholds must number at most {(1 << self.bits) - 1} for {self.bits} bits, not {values.shape[1]}")
        require(bool((values[:, 1:] >= values[:, :-1]).all()), "thresholds must not decrease along a row")
        limit = magnitude(values)
        require(limit < 1 << 40, f"thresholds must be below 2**40 in magnitude, not {limit}")
        descending = np.zeros(len(values), np.uint8) if self.descending is None else self.descending
        descending = integers(descending, "descending", dtype=np.uint8)
        require(descending.shape == (len(values),),
                f"descending must have shape ({len(values)},), not {descending.shape}")
        require(int(descending.max()) <= 1, "descending must hold 0 and 1 only")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "descending", descending)

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return len(self.values)

    def apply(self, acc: Ints) -> Ints:
        """Codes of accumulators ``(..., O)``."""
        low = -(1 << (self.bits - 1)) if self.signed else 0
        code = np.empty(acc.shape, np.int64)
        for o, row in enumerate(self.values):
            if self.descending[o]:
                code[..., o] = len(row) - np.searchsorted(row, acc[..., o], side="left") + low
            else:
                code[..., o] = np.searchsorted(row, acc[..., o], side="right") + low
        return code


@dataclass(frozen=True)
class Shift:
    """``code = clamp(floor((acc + 2**(shift-1)) / 2**shift))``: shift right rounding half up, then saturate."""

    shift: int
    bits: int
    signed: bool = False

    def __post_init__(self) -> None:
        _check_code(self)
        object.__setattr__(self, "shift", integer(self.shift, "shift", 0, 31))

    def apply(self, acc: Ints) -> Ints:
        """Codes of accumulators ``(..., O)``."""
        low = -(1 << (self.bits - 1)) if self.signed else 0
        return np.clip((acc + ((1 << self.shift) >> 1)) >> self.shift, low, low + (1 << self.bits) - 1)


Step = Thresholds | Shift
