"""Step functions: accumulator to activation code, exact in integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .tensor import MAX_BITS, MAX_CODE_BITS, Ints, TensorType, integer, integers, magnitude, require, signed_bits

MAX_TABLE = 1 << 16
"""Most entries of an `ActivationTable`."""

BEYOND = 1 << 39
"""A threshold out of reach of every accumulator, which has at most 32 bits: ``acc >= -BEYOND`` always holds."""


def _check_code(step: Thresholds | Shift | ActivationTable) -> None:
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


@dataclass(frozen=True, eq=False)
class ActivationTable:
    """``code = values[clamp(acc >> shift, 0, N_x - 1)]``: the activation table of a table-based neural unit.

    arXiv 1906.04798: the bias holds the origin of the table and half a step for rounding, the product table the scale
    ``2**shift / Δx``, so that the shift alone gives the row. Any function, monotone or not, the same for all channels.

    Parameters
    ----------
    values
        ``(N_x,)`` codes of the type that ``bits`` and ``signed`` give, ``1 <= N_x <= 65536``.
    shift
        0 to 31; the shift rounds towards minus infinity.
    bits, signed
        Type of the code.
    """

    values: Any
    shift: int
    bits: int
    signed: bool = False

    def __post_init__(self) -> None:
        _check_code(self)
        object.__setattr__(self, "shift", integer(self.shift, "shift", 0, 31))
        values = integers(self.values, "activation table")
        require(values.ndim == 1 and 1 <= values.size <= MAX_TABLE,
                f"activation table must have shape (N,) with N from 1 to {MAX_TABLE}, not {values.shape}")
        low, high = -(1 << (self.bits - 1)) if self.signed else 0, (1 << (self.bits - self.signed)) - 1
        require(low <= int(values.min()) and int(values.max()) <= high,
                f"activation table must hold codes from {low} to {high}, not {values.min()} to {values.max()}")
        object.__setattr__(self, "values", values)

    def apply(self, acc: Ints) -> Ints:
        """Codes of accumulators of any shape."""
        return self.values[np.clip(acc >> self.shift, 0, len(self.values) - 1)]

    @property
    def monotone(self) -> bool:
        """Whether the values never decrease or never increase, so that there are equal thresholds."""
        steps = np.diff(self.values)
        return bool((steps >= 0).all() or (steps <= 0).all())

    def thresholds(self, channels: int) -> Thresholds:
        """The equal `Thresholds` with one row, always the same, for each of ``channels``.

        Codes that the table always exceeds get a threshold that always holds.

        Raises
        ------
        ModelError
            If the values neither never decrease nor never increase: no count of thresholds gives such a function.
        """
        rising = bool((np.diff(self.values) >= 0).all())
        require(self.monotone,
                "activation table must never decrease or never increase to have equal thresholds, not do both")
        low = -(1 << (self.bits - 1)) if self.signed else 0
        codes = np.arange(low + 1, int(self.values.max()) + 1)
        # Rows of the table whose code is smaller: as many at the start if it rises, at the end if it falls.
        smaller = np.searchsorted(np.sort(self.values), codes, side="left")
        if rising:
            row = np.where(smaller == 0, -BEYOND, np.minimum(smaller << self.shift, BEYOND))
        else:
            last = np.minimum((len(self.values) - smaller << self.shift) - 1, BEYOND)
            row = np.where(smaller == 0, BEYOND, last)[::-1]
        if not len(row):  # the table holds nothing but the smallest code, and a bank has at least one threshold
            row = np.array([BEYOND if rising else -BEYOND])
        return Thresholds(np.tile(row, (channels, 1)), self.bits, self.signed, np.full(channels, 1 - rising))


Step = Thresholds | Shift | ActivationTable


def check_step(step: Any, *, optional: bool = False) -> None:
    """Refuse what is no step function; with ``optional`` None is one."""
    good = "Thresholds, Shift, ActivationTable or None" if optional else "Thresholds, Shift or ActivationTable"
    require((optional and step is None) or isinstance(step, Step), f"step must be {good}, not {type(step).__name__}")


def result_type(step: Step | None, shape: tuple[int, ...], low: int, high: int) -> TensorType:
    """Type of what ``step`` makes of sums from ``low`` to ``high``; without a step the smallest that holds them.

    Raises
    ------
    ModelError
        If the sums do not fit 32 bits, or the step's thresholds are not one row for each channel of ``shape``.
    """
    bits = signed_bits(low, high) if low < 0 else max(1, high.bit_length())
    require(bits <= MAX_BITS, f"sum must fit {MAX_BITS} bits, not {bits}")
    if isinstance(step, Thresholds):
        require(step.channels == shape[-1],
                f"thresholds must have one row for each of {shape[-1]} channels, not {step.channels}")
    return TensorType(shape, bits, low < 0) if step is None else TensorType(shape, step.bits, step.signed)
