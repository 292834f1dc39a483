"""Levels that follow the activations, for table-based neural units (arXiv 1906.04798).

Values are integers times a power of two, boundaries lie half-way between them, so that product and activation tables
hold both exactly. Forward gives the value of the level, backward passes straight through between the outermost ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from lutq_hw.errors import InputError

from ..distributed import agree
from ..grid import look_up, power_unit, spread_sample
from ..method import ActivationOptions, ActivationQuantizer
from ..ranges import check_ranges
from ..sums import inside

LLOYD_STEPS = 30
"""Steps that fit learned levels to the calibration batch."""

CALIBRATION_SAMPLE = 1 << 17
TRAINING_SAMPLE = 1 << 12
"""Activations of a batch that choose the values of learned levels, and that move them."""

RATE = 0.01
"""How fast learned values follow the means of a batch."""


class _Learned(torch.autograd.Function):
    """Looked-up level forward; backward straight through between the outermost values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, first: int, table: Tensor) -> Tensor:
        ctx.save_for_backward(x, table)
        return look_up(x, step, first, table)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, table = ctx.saved_tensors
        return inside(grads[0], x, table[0], table[-1]), None, None, None


@dataclass(frozen=True)
class LearnedOptions(ActivationOptions):
    """Levels that follow the activations: each stands for the running mean of what is nearest to it; one stays at 0.

    Parameters
    ----------
    levels
        2 to 256; one more below zero than above where activations may be negative and it is even.
    bits
        Width of the integers that values are multiples of, 1 to 12, without sign; enough for the levels on a side.

    Raises
    ------
    InputError
        If they do not fit together.
    """

    method: ClassVar[str] = "learned_levels"

    levels: int = 16
    bits: int = 8

    def __post_init__(self) -> None:
        check_ranges(self, "activations", levels=(2, 256), bits=(1, 12))
        enough = (self.levels - 1).bit_length()
        if self.bits < enough:
            raise InputError(f"activations.bits must be at least {enough} for {self.levels} levels, not {self.bits}")

    def quantizer(self, signed: bool) -> LearnedQuantizer:
        return LearnedQuantizer(self.levels, signed, self.bits)


class LearnedQuantizer(ActivationQuantizer):
    """Buffer ``means`` (L,), ascending, 0 at code 0; values are its multiples of a power of two, boundaries midpoints.

    In training mode every batch moves the means a little, after it has been quantised.
    """

    means: Tensor

    def __init__(self, levels: int, signed: bool, bits: int) -> None:
        super().__init__()
        self.levels, self.signed, self.bits = levels, signed, bits
        self.register_buffer("means", torch.arange(self.lowest, self.lowest + levels, dtype=torch.float32))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        sample = spread_sample(x.to(self.means.dtype), CALIBRATION_SAMPLE)
        zero = -self.lowest
        self.means[zero + 1:] = self._side(sample, self.levels - 1 - zero)
        self.means[:zero] = -self._side(-sample, zero).flip(0)
        for _ in range(LLOYD_STEPS):
            self._follow(sample, 1.0)

    def _side(self, sample: Tensor, count: int) -> Tensor:
        """``count`` ascending values among the positive ones of ``sample``: quantiles, or a ramp where there are none."""
        places = (torch.arange(count, dtype=sample.dtype, device=sample.device) + 0.5) / max(count, 1)
        positive = sample[sample > 0]
        if not positive.numel():
            return places * sample.abs().amax().clamp(min=2.0**-count)
        return torch.quantile(positive, places)

    def _follow(self, sample: Tensor, rate: float) -> None:
        index = torch.bucketize(sample, (self.means[1:] + self.means[:-1]) / 2, right=True)
        # Not bincount, whose result's size depends on values: no graph could be compiled.
        counts = sample.new_zeros(self.levels).index_add_(0, index, torch.ones_like(sample))
        sums = sample.new_zeros(self.levels).index_add_(0, index, sample)
        means = torch.where(counts > 0, sums / counts.clamp(min=1), self.means)
        self.means.lerp_(means.to(self.means.dtype), rate)
        self.means[-self.lowest] = 0

    def _integers(self) -> tuple[Tensor, Tensor]:
        """Values in units, and the unit."""
        top, unit = (1 << self.bits) - 1, self.unit()
        return (self.means / unit).round().clamp(-top, top), unit

    def unit(self) -> Tensor:
        return power_unit(self.means.abs().amax(), self.bits)

    def forward(self, x: Tensor) -> Tensor:
        integers, unit = self._integers()
        last = 2 * ((1 << self.bits) - 1)  # twice the values: where midpoints lie
        first = -last - 1 if self.signed else -1
        places = torch.arange(first, last + 1, device=x.device, dtype=integers.dtype)
        table = integers[torch.bucketize(places, integers[1:] + integers[:-1], right=True)] * unit
        y: Tensor = _Learned.apply(x, unit / 2, first, table)  # type: ignore[assignment]
        if self.training:
            with torch.no_grad():
                self._follow(spread_sample(x.detach().to(self.means.dtype), TRAINING_SAMPLE), RATE)
                agree(self.means)
        return y

    def boundaries(self) -> list[Fraction]:
        values = self.values()
        return [(a + b) / 2 for a, b in pairwise(values)]

    def values(self) -> list[Fraction]:
        integers, unit = self._integers()
        return [Fraction(value) * Fraction(float(unit)) for value in integers.tolist()]
