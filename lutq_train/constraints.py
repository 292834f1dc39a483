"""Constraints on a dictionary: plain functions from cluster centres to the nearest values that hardware likes.

Each takes ascending centres ``(..., K)`` (any number of layers at once), how many weights belong to each, and a width
in bits, and returns ``(integers, scale)``, ``(..., K)`` and ``(..., 1)``: the dictionary is ``integers * scale``. The
integers are what is exported; training multiplies by the very same scale, so nothing is rounded a second time. All
projections keep the order of the centres, so a dictionary stays sorted for ever. Constraining the dictionary and
nothing else is LUT-Q's idea (arXiv 1811.05355, section 2.1).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations, product

import torch
from torch import Tensor

from .grid import TINY

Projection = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def peak(centres: Tensor) -> Tensor:
    """Largest magnitude of each dictionary, ``(..., 1)``, never zero."""
    return centres.abs().amax(-1, keepdim=True).clamp(min=TINY)


def free(centres: Tensor, counts: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Any integer of ``bits`` signed bits, symmetric; the largest centre takes the largest integer."""
    top = (1 << (bits - 1)) - 1
    scale = peak(centres) / top
    return (centres / scale).round().clamp(-top, top), scale


def symmetric(centres: Tensor, counts: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Like ``free``, with magnitudes in pairs: entry k is minus entry K - 1 - k, so that K/2 products do for K entries."""
    opposite = counts.flip(-1)
    total = (counts + opposite).clamp(min=1)
    # A pair takes the mean magnitude of all its weights; where it has none, of its two centres.
    weighted = (centres * counts - centres.flip(-1) * opposite) / total
    pairs = torch.where(counts + opposite > 0, weighted, (centres - centres.flip(-1)) / 2)
    return free(pairs.sort(-1).values, counts, bits)


def power_of_two(centres: Tensor, counts: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """``±2^s``, ``0 <= s < bits``, rounded in the exponent as LUT-Q does; an exact zero stays zero."""
    size = centres.abs()
    exponent = size.clamp(min=TINY).log2().round()
    highest = exponent.amax(-1, keepdim=True)
    exponent = torch.maximum(exponent, highest - (bits - 1))
    lowest = torch.where(size > 0, exponent, highest).amin(-1, keepdim=True)
    return centres.sign() * torch.exp2(exponent - lowest), torch.exp2(lowest)


@cache
def signed_digit_sums(bits: int, digits: int) -> tuple[int, ...]:
    """Every integer from 0 to ``2^(bits-1)`` that is a sum of at most ``digits`` of ``±2^s``, ``0 <= s < bits``."""
    found = {0}
    for count in range(1, digits + 1):
        for powers in combinations([1 << s for s in range(bits)], count):
            found |= {abs(sum(sign * power for sign, power in zip(signs, powers, strict=True)))
                      for signs in product((-1, 1), repeat=count)}
    return tuple(sorted(value for value in found if value <= 1 << (bits - 1)))


def _few_digits(digits: int) -> Projection:
    def project(centres: Tensor, counts: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        allowed = centres.new_tensor(signed_digit_sums(bits, digits))
        mantissa, exponent = torch.frexp(peak(centres))  # peak = mantissa * 2^exponent, 1/2 <= mantissa < 1
        scale = torch.exp2((exponent - (mantissa == 0.5).to(exponent.dtype) - (bits - 1)).to(centres.dtype))
        nearest = allowed[torch.bucketize(centres.abs() / scale, (allowed[1:] + allowed[:-1]) / 2)]
        return centres.sign() * nearest, scale
    project.__doc__ = f"""The nearest sum of at most {digits} signed powers of two up to ``2^(bits-1)``; the scale is a
    power of two."""
    return project


def uniform(centres: Tensor, counts: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """``scale * {-n .. n}`` (one value less on the positive side where K is even): one number, fitted by least squares."""
    count = centres.shape[-1]
    integers = torch.arange(count, dtype=centres.dtype, device=centres.device) - count // 2
    weight = counts * integers
    below = (weight * integers).sum(-1, keepdim=True)
    scale = (weight * centres).sum(-1, keepdim=True) / below.clamp(min=1)
    # Where every weight is at zero, the scale stays what the empty clusters kept.
    scale = torch.where((below > 0) & (scale > 0), scale, peak(centres) / integers.abs().amax())
    return integers.expand_as(centres), scale.clamp(min=TINY)


def binary(centres: Tensor, counts: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """``{-1, 1}`` times the mean magnitude."""
    return _signs(centres, counts, (-1.0, 1.0))


def ternary(centres: Tensor, counts: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """``{-1, 0, 1}`` times the mean magnitude of the weights that are not at zero."""
    return _signs(centres, counts, (-1.0, 0.0, 1.0))


def _signs(centres: Tensor, counts: Tensor, values: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    integers = centres.new_tensor(values)
    used = counts * integers.abs()
    total = used.sum(-1, keepdim=True)
    mean = (centres.abs() * used).sum(-1, keepdim=True) / total.clamp(min=1)
    # Where every weight is at zero, the scale stays what the empty clusters kept.
    return integers.expand_as(centres), torch.where(total > 0, mean, peak(centres)).clamp(min=TINY)


CONSTRAINTS: dict[str, Projection] = {
    "free": free,
    "symmetric": symmetric,
    "power_of_two": power_of_two,
    "sum_of_two": _few_digits(2),
    "sum_of_three": _few_digits(3),
    "uniform": uniform,
    "binary": binary,
    "ternary": ternary,
}

FIXED_ENTRIES = {"binary": 2, "ternary": 3}


def signed_digits(integers: Tensor) -> Tensor:
    """Non-zero digits of the canonical signed-digit form of each integer: adders that a product by it needs, plus one."""
    value = integers.abs().long()
    return _ones(value ^ (3 * value)).to(integers.dtype)


def _ones(value: Tensor) -> Tensor:
    total = torch.zeros_like(value)
    for shift in range(24):
        total += (value >> shift) & 1
    return total
