"""Constraints on a dictionary: plain functions from cluster centres to the nearest values that hardware likes.

Each takes ascending centres ``(..., K)`` (any number of layers at once), how many weights belong to each, and a width
in bits, and returns ``(integers, scale)``, ``(..., K)`` and ``(..., 1)``: the dictionary is ``integers * scale``. The
integers are what is exported; training multiplies by the very same scale, so nothing is rounded a second time. All
projections keep the order of the centres, so a dictionary stays sorted for ever. Constraining the dictionary and
nothing else is LUT-Q's idea (arXiv 1811.05355, section 2.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lutq_hw.errors import InputError

Projection = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]

TINY = 2.0**-60
"""Stands for the magnitude of a dictionary that is all zero, so that no scale is ever zero."""


def _peak(centres: Tensor) -> Tensor:
    return centres.abs().amax(-1, keepdim=True).clamp(min=TINY)


def free(centres: Tensor, counts: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Any integer of ``bits`` signed bits, symmetric; the largest centre takes the largest integer."""
    top = (1 << (bits - 1)) - 1
    scale = _peak(centres) / top
    return (centres / scale).round().clamp(-top, top), scale


def power_of_two(centres: Tensor, counts: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """``±2^s``, ``0 <= s < bits``, rounded in the exponent as LUT-Q does; an exact zero stays zero."""
    size = centres.abs()
    exponent = size.clamp(min=TINY).log2().round()
    highest = exponent.amax(-1, keepdim=True)
    exponent = torch.maximum(exponent, highest - (bits - 1))
    lowest = torch.where(size > 0, exponent, highest).amin(-1, keepdim=True)
    return centres.sign() * torch.exp2(exponent - lowest), torch.exp2(lowest)


def sum_of_two(centres: Tensor, counts: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The nearest ``±2^s ± 2^t`` (or one power, or zero) up to ``2^(bits-1)``; the scale is a power of two."""
    powers = [1 << s for s in range(bits)]
    sums = {abs(a + sign * b) for a in powers for b in powers for sign in (-1, 1)} | set(powers)
    allowed = centres.new_tensor(sorted(value for value in sums if value <= powers[-1]))
    mantissa, exponent = torch.frexp(_peak(centres))  # peak = mantissa * 2^exponent, 1/2 <= mantissa < 1
    scale = torch.exp2((exponent - (mantissa == 0.5).to(exponent.dtype) - (bits - 1)).to(centres.dtype))
    nearest = allowed[torch.bucketize(centres.abs() / scale, (allowed[1:] + allowed[:-1]) / 2)]
    return centres.sign() * nearest, scale


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
    return integers.expand_as(centres), torch.where(total > 0, mean, _peak(centres)).clamp(min=TINY)


CONSTRAINTS: dict[str, Projection] = {
    "free": free,
    "power_of_two": power_of_two,
    "sum_of_two": sum_of_two,
    "binary": binary,
    "ternary": ternary,
}

FIXED_ENTRIES = {"binary": 2, "ternary": 3}


@dataclass(frozen=True)
class Dictionary:
    """What the weights of a layer may be.

    Parameters
    ----------
    constraint
        One of ``CONSTRAINTS``.
    entries
        K, 2 to 256; ``binary`` has 2 and ``ternary`` 3.
    zero
        Pin one entry at zero (weights near it are pruned); ``ternary`` has it anyway, ``binary`` cannot.
    bits
        Width of the integers, 2 to 16: largest magnitude ``2^(bits-1) - 1``, or ``2^(bits-1)`` for the two kinds made
        of powers.

    Raises
    ------
    InputError
        If the four do not fit together.
    """

    constraint: str = "free"
    entries: int = 16
    zero: bool = False
    bits: int = 8

    def __post_init__(self) -> None:
        if self.constraint not in CONSTRAINTS:
            raise InputError(f"weights.constraint must be one of {', '.join(CONSTRAINTS)}, not {self.constraint!r}")
        count = FIXED_ENTRIES.get(self.constraint)
        if count and self.entries != count:
            raise InputError(f"weights.entries must be {count} for a {self.constraint} dictionary, not {self.entries}")
        if not 2 <= self.entries <= 256:
            raise InputError(f"weights.entries must be from 2 to 256, not {self.entries}")
        if not 2 <= self.bits <= 16:
            raise InputError(f"weights.bits must be from 2 to 16, not {self.bits}")
        if self.constraint == "binary" and self.zero:
            raise InputError("weights.zero must be false for a binary dictionary; ternary is the one with a zero")

    @property
    def pinned(self) -> bool:
        """Whether one entry is always zero."""
        return self.zero or self.constraint == "ternary"

    def project(self, centres: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """``(integers, scale)`` for ascending ``centres`` (..., K), those that are pinned already zero."""
        return CONSTRAINTS[self.constraint](centres, counts, self.bits)

    def start(self, weight: Tensor) -> tuple[Tensor, int | None]:
        """First centres for a weight tensor, ascending, and the index of the pinned entry.

        Quantiles of the negative and of the positive weights; halving magnitudes where values must be powers of two.
        """
        weight = weight.detach().reshape(-1)
        low, high = float(-weight.amin()), float(weight.amax())
        rest = self.entries - self.pinned
        many, few = rest - rest // 2, rest // 2
        below, above = (many, few) if low > high else (few, many)
        left = self._side(-weight[weight < 0], below).neg().flip(0)
        right = self._side(weight[weight > 0], above)
        middle = [weight.new_zeros(1)] if self.pinned else []
        return torch.cat([left, *middle, right]), below if self.pinned else None

    def _side(self, sizes: Tensor, count: int) -> Tensor:
        sizes = sizes if sizes.numel() else sizes.new_tensor([TINY])
        steps = torch.arange(count, dtype=sizes.dtype, device=sizes.device)
        if self.constraint == "power_of_two":
            return sizes.amax() * torch.exp2(steps - (count - 1)) * 0.75
        return torch.quantile(sizes[: 1 << 24], (steps + 0.5 + self.pinned * 0.5) / (count + self.pinned * 0.5))
