"""Batch norm, biases and scales folded into integer thresholds, exactly.

Channel o of a quantised layer computes, from its integer sum ``acc``,

    z    = unit * acc + bias                            unit = input scale * dictionary scale
    y    = gamma * (z - mean) / sqrt(var + eps) + beta
    code = clamp(floor(y / scale + 1/2), 0, top)

so ``code >= t`` means ``acc`` lies on one side of ``bound_t``, which is a real number: all parameters are floats, hence
rationals, and the one square root is taken to 256 binary places (exactly, where it is rational). Rounding the bound to
the integer on the right side gives thresholds that decide as real arithmetic does. A negative gamma turns the side.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, isqrt

import numpy as np

ROOT_PLACES = 256


@dataclass(frozen=True)
class Norm:
    """Batch norm of one channel in evaluation mode; the default does nothing."""

    gamma: float = 1.0
    beta: float = 0.0
    mean: float = 0.0
    var: float = 1.0
    eps: float = 0.0


def root(value: Fraction) -> Fraction:
    """Square root of a non-negative fraction to ``ROOT_PLACES`` binary places; exact where it is rational."""
    p, q = value.numerator, value.denominator
    whole_p, whole_q = isqrt(p), isqrt(q)
    if whole_p**2 == p and whole_q**2 == q:
        return Fraction(whole_p, whole_q)
    return Fraction(isqrt((p << 2 * ROOT_PLACES) // q), 1 << ROOT_PLACES)


def bounds(norm: Norm, *, unit: Fraction, bias: float, scale: float, top: int) -> list[Fraction]:
    """``bound_t`` for t = 1 .. top, in units of ``acc``; ``norm.gamma`` must not be zero."""
    deviation = root(Fraction(norm.var) + Fraction(norm.eps))
    offset = Fraction(norm.mean) - Fraction(bias)
    beta, step, gamma = Fraction(norm.beta), Fraction(scale), Fraction(norm.gamma)
    return [(((t - Fraction(1, 2)) * step - beta) * deviation / gamma + offset) / unit for t in range(1, top + 1)]


def channel(norm: Norm, *, unit: Fraction, bias: float, scale: float, top: int, low: int,
            high: int) -> tuple[list[int], bool]:
    """Thresholds of one channel, ascending, and whether it counts downwards.

    ``low`` and ``high`` bound ``acc``; thresholds beyond them are moved next to them, where they decide the same.
    """
    if norm.gamma == 0:
        code = min(max(floor(Fraction(norm.beta) / Fraction(scale) + Fraction(1, 2)), 0), top)
        return [low] * code + [high + 1] * (top - code), False
    exact = bounds(norm, unit=unit, bias=bias, scale=scale, top=top)
    if norm.gamma > 0:
        return [min(max(ceil(bound), low), high + 1) for bound in exact], False
    return [min(max(floor(bound), low - 1), high) for bound in reversed(exact)], True


def layer(norms: list[Norm], *, unit: Fraction, biases: list[float], scale: float, top: int, low: np.ndarray,
          high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds ``(O, top)`` and ``descending`` ``(O,)`` of a layer whose sums lie in ``low[o]`` to ``high[o]``."""
    rows = [channel(norm, unit=unit, bias=bias, scale=scale, top=top, low=int(a), high=int(b))
            for norm, bias, a, b in zip(norms, biases, low, high, strict=True)]
    return np.array([row for row, _ in rows], np.int64), np.array([turned for _, turned in rows], np.uint8)
