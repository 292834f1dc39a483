"""Batch norm, biases and scales folded into integer thresholds, exactly.

Channel o of a quantised layer makes, from its integer sum ``acc``, the real number ``y = a * acc + b``, and its code
counts the boundaries that y has reached. All parameters are floats, hence rationals, and the one square root of batch
norm is taken to 256 binary places (exactly, where it is rational). ``y >= boundary`` means that ``acc`` lies on one
side of ``(boundary - b) / a``; rounded to the integer on the right side, this gives thresholds that decide as real
arithmetic does. A negative a turns the side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, isqrt

import numpy as np

ROOT_PLACES = 256


@dataclass(frozen=True)
class Norm:
    """Batch norm of one channel in evaluation mode; the default does nothing. ``slope`` replaces gamma / sqrt(var + eps)."""

    gamma: float = 1.0
    beta: float = 0.0
    mean: float = 0.0
    var: float = 1.0
    eps: float = 0.0
    slope: float | None = None

    @property
    def affine(self) -> Affine:
        """The same as ``a * x + b``."""
        slope = (Fraction(self.gamma) / root(Fraction(self.var) + Fraction(self.eps)) if self.slope is None
                 else Fraction(self.slope))
        return Affine(slope, Fraction(self.beta) - slope * Fraction(self.mean))


@dataclass(frozen=True)
class Affine:
    """``a * x + b``, exactly."""

    a: Fraction = Fraction(1)
    b: Fraction = Fraction(0)

    def then(self, after: Affine) -> Affine:
        """``after(self(x))``."""
        return Affine(after.a * self.a, after.a * self.b + after.b)


def root(value: Fraction) -> Fraction:
    """Square root of a non-negative fraction to ``ROOT_PLACES`` binary places; exact where it is rational."""
    p, q = value.numerator, value.denominator
    whole_p, whole_q = isqrt(p), isqrt(q)
    if whole_p**2 == p and whole_q**2 == q:
        return Fraction(whole_p, whole_q)
    return Fraction(isqrt((p << 2 * ROOT_PLACES) // q), 1 << ROOT_PLACES)


def channel(affine: Affine, boundaries: Sequence[Fraction], low: int, high: int, always: int = 0,
            never: int = 0) -> tuple[list[int], bool]:
    """Thresholds of one channel, ascending, and whether it counts downwards.

    ``low`` and ``high`` bound ``acc``; thresholds beyond them are moved next to them, where they decide the same.
    ``always`` and ``never`` boundaries below and above the given ones are reached by every and by no sum.
    """
    if affine.a == 0:
        reached = always + sum(affine.b >= boundary for boundary in boundaries)
        return [low] * reached + [high + 1] * (always + len(boundaries) + never - reached), False
    exact = [(boundary - affine.b) / affine.a for boundary in boundaries]
    if affine.a > 0:
        middle = [min(max(ceil(bound), low), high + 1) for bound in exact]
        return [low] * always + middle + [high + 1] * never, False
    middle = [min(max(floor(bound), low - 1), high) for bound in reversed(exact)]
    return [low - 1] * never + middle + [high] * always, True


def layer(affines: Sequence[Affine], boundaries: Sequence[Fraction], low: np.ndarray, high: np.ndarray, *,
          clamp: tuple[Fraction | None, Fraction | None] = (None, None), always: int = 0
          ) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds ``(O, T)`` and ``descending`` ``(O,)`` of a layer whose sums lie in ``low[o]`` to ``high[o]``.

    ``boundaries`` ascend. Values are clamped to ``clamp`` before they are compared. ``always`` more thresholds that
    every sum reaches come with every row, for codes that begin above their type's smallest value.
    """
    least, most = clamp
    reached = sum(least is not None and boundary <= least for boundary in boundaries)
    never = sum(most is not None and boundary > most for boundary in boundaries)
    middle = boundaries[reached:len(boundaries) - never]
    rows = [channel(affine, middle, int(a), int(b), always + reached, never)
            for affine, a, b in zip(affines, low, high, strict=True)]
    return np.array([row for row, _ in rows], np.int64), np.array([turned for _, turned in rows], np.uint8)
