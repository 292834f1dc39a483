"""Activations of few levels for table-based neural units (arXiv 1906.04798): tanhD, reluD and learned levels.

Values are integers times ``2^-p``, boundaries integers times ``2^-m``, so that product and activation tables hold them
exactly. Forward gives the value of the level, backward is the derivative of the function without levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import atanh, floor, gcd, isfinite, log2
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from lutq_hw.errors import InputError

from ..distributed import agree
from ..method import ActivationOptions, ActivationQuantizer

LLOYD_STEPS = 30
"""Steps that fit learned levels to the calibration batch."""

CALIBRATION_SAMPLE = 1 << 17
TRAINING_SAMPLE = 1 << 12
"""Activations of a batch that choose the values of learned levels, and that move them."""

RATE = 0.01
"""How fast learned values follow the means of a batch."""

TINY = 2.0**-60
"""Stands for the largest magnitude where everything is zero, so that no unit is ever zero."""


def power_unit(peak: Tensor, bits: int) -> Tensor:
    """The power of two in which the magnitude ``peak`` is an integer of ``bits`` bits with its highest bit set."""
    peak = peak.clamp(min=TINY)
    return peak / torch.frexp(peak).mantissa * 2.0**-bits  # exact: mantissa 1/2 to 1 times 2^e is the peak


def spread_sample(x: Tensor, most: int) -> Tensor:
    """At most ``most`` evenly spaced elements, flat; their distance divides no extent, so that no position is left out."""
    flat = x.reshape(-1)
    distance = -(-flat.numel() // most)
    while gcd(distance, flat.numel()) > 1:
        distance += 1
    return flat[::distance].contiguous() if distance > 1 else flat


def _look_up(x: Tensor, step: Tensor, first: int, table: Tensor) -> Tensor:
    """``table[clamp(floor(x / step) - first)]``, as hardware does; exact where ``step`` is a power of two.

    Far cheaper than a bisection between boundaries. A NaN stays one.
    """
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    flat = x.permute(0, 2, 3, 1) if last else x.contiguous()
    # In place, because a fresh buffer costs more than the arithmetic; and counted from 1: place 0 holds what a NaN
    # becomes, whatever integer that is on this device.
    place = flat.float().div_(step) if x.element_size() == 2 else flat.div(step)
    place = place.floor_().add_(1 - first).clamp_(1, len(table))
    if place.dtype == torch.float32 and not torch.compiler.is_compiling():
        index = place.view(torch.int32).copy_(place)  # the integers take the place of the numbers, one by one
    else:
        index = place.to(torch.int32)
    padded = torch.cat([table.new_full((1,), torch.nan), table]).to(x.dtype)
    y = padded.index_select(0, index.clamp_(min=0).view(-1)).view(flat.shape)
    return y.permute(0, 3, 1, 2) if last else y


class _Tanh(torch.autograd.Function):
    """Looked-up level forward; backward the derivative of tanh, for unsigned levels of tanh(relu(x))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, first: int, table: Tensor, signed: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.signed = signed
        return _look_up(x, step, first, table)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,), grad = ctx.saved_tensors, grads[0]
        # tanh'(x) = 4 s (1 - s) with s the logistic function of 2 x, which costs a third of tanh. In place: see _look_up.
        made = (x * 2).sigmoid_()
        torch.ops.aten.sigmoid_backward.grad_input(grad, made, grad_input=made)
        if ctx.signed:
            made.mul_(4)
        else:  # times 4 where x > 0, else times 0, in one pass: an ELU of slopes 4 and 0
            torch.ops.aten.elu_backward.grad_input(made, 0, 4, 0, True, x, grad_input=made)
        return made, None, None, None, None


class _Clip(torch.autograd.Function):
    """``code * step`` forward; backward the derivative of ``clip(x, low * step, top * step)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: float, low: int, top: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.range = low * step, top * step
        # floor(x / step + 1/2) in two exact steps: a sum with 1/2 would lift the number just below 1/2 to 1.
        return x.div(step / 2).floor_().add_(1).mul_(0.5).floor_().clamp_(low, top).mul_(step)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grads[0], x, *ctx.range), None, None, None


class _Learned(torch.autograd.Function):
    """Looked-up level forward; backward straight through between the outermost values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, first: int, table: Tensor) -> Tensor:
        ctx.save_for_backward(x, table)
        return _look_up(x, step, first, table)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, table = ctx.saved_tensors
        if x.device.type != "cpu" or torch.compiler.is_compiling():  # no waiting for the numbers to come back
            return torch.where((x > table[0]) & (x < table[-1]), grads[0], 0), None, None, None
        low, top = float(table[0]), float(table[-1])
        return torch.ops.aten.hardtanh_backward(grads[0], x, low, top), None, None, None


@dataclass(frozen=True)
class TanhdOptions(ActivationOptions):
    """``tanhD``: equally spaced levels of tanh from -1 to 1, or from 0 to 1 for what is never negative.

    Values are rounded to the grid ``2^-places``, boundaries to the largest power of two that is at most half the least
    distance between two of them: ``Δx`` of the activation table.

    Parameters
    ----------
    levels
        2 to 256; odd where activations may be negative.
    places
        Binary places of the values, 1 to 16, enough for different levels to be different.

    Raises
    ------
    InputError
        If they do not fit together.
    """

    method: ClassVar[str] = "tanhd"

    levels: int = 15
    places: int = 8

    def __post_init__(self) -> None:
        _check(self, ("levels", 2, 256), ("places", 1, 16))
        if 1 << self.places < (self.levels - 1) // 2:
            enough = ((self.levels - 1) // 2 - 1).bit_length()
            raise InputError(f"activations.places must be at least {enough} for {self.levels} levels, not {self.places}")

    @classmethod
    def for_bits(cls, bits: int) -> Self:
        return cls(levels=max(2, (1 << bits) - 1))

    def quantizer(self, signed: bool) -> TanhdQuantizer:
        if signed and self.levels % 2 == 0:
            raise InputError(f"activations.levels must be odd for tanhd of activations that may be negative, not "
                             f"{self.levels}: code 0, which pads convolutions, must stand for exactly 0; take "
                             f"{self.levels - 1}")
        return TanhdQuantizer(self.levels, signed, self.places)


class TanhdQuantizer(ActivationQuantizer):
    """Takes the place of tanh: the input is what tanh would get. Without state; gradients are those of tanh."""

    absorbs = "tanh"
    step: Tensor
    table: Tensor
    size: Tensor

    def __init__(self, levels: int, signed: bool, places: int) -> None:
        super().__init__()
        self.levels, self.signed = levels, signed
        spans = (levels - 1) // 2 if signed else levels - 1  # gaps between 0 and 1
        sizes = [round(Fraction(k << places, spans)) for k in range(spans + 1)]
        common = gcd(*sizes)
        self._size = Fraction(common, 1 << places)
        self._values = [-size // common for size in sizes[:0:-1] if signed] + [size // common for size in sizes]
        bounds = [atanh((k + 0.5) / spans) for k in range(spans)]
        gap = min(b - a for a, b in pairwise([-bounds[0], *bounds]))
        self._step = Fraction(2) ** floor(log2(gap / 2))
        bins = [round(Fraction(bound) / self._step) for bound in bounds]
        self._bins = [-place for place in reversed(bins) if signed] + bins
        first = self.first = self._bins[0] - 1
        codes = [sum(n >= place for place in self._bins) for n in range(first, self._bins[-1] + 1)]
        table = [float(self._values[code] * self._size) for code in codes]
        self.register_buffer("table", torch.tensor(table), persistent=False)
        self.register_buffer("step", torch.tensor(float(self._step)), persistent=False)
        self.register_buffer("size", torch.tensor(float(self._size)), persistent=False)

    def unit(self) -> Tensor:
        return self.size

    def forward(self, x: Tensor) -> Tensor:
        return _Tanh.apply(x, self.step, self.first, self.table, self.signed)  # type: ignore[return-value]

    def boundaries(self) -> list[Fraction]:
        return [place * self._step for place in self._bins]

    def values(self) -> list[Fraction]:
        return [value * self._size for value in self._values]


@dataclass(frozen=True)
class ReludOptions(ActivationOptions):
    """``reluD``: equally spaced levels of ``clip(x, 0, top)``; of ``clip(x, -top, top)`` for what may be negative.

    Parameters
    ----------
    levels
        2 to 256; where activations may be negative and it is even, the highest level is one step below ``top``.
    top
        Highest value; the step between levels, ``top`` divided by the levels above zero, is rounded to the grid
        ``2^-places``, and the highest value with it.
    places
        Binary places of the step, 1 to 16.

    Raises
    ------
    InputError
        If they do not fit together.
    """

    method: ClassVar[str] = "relud"

    levels: int = 16
    top: float = 6.0
    places: int = 8

    def __post_init__(self) -> None:
        _check(self, ("levels", 2, 256), ("places", 1, 16))
        if not (isfinite(self.top) and self.step(signed=False) > 0):
            raise InputError(f"activations.top must be a number of at least (levels - 1) / 2^places = "
                             f"{(self.levels - 1) / (1 << self.places):g}, not {self.top}")

    def step(self, signed: bool) -> Fraction:
        """Distance between levels."""
        spans = self.levels // 2 if signed else self.levels - 1
        return Fraction(round(Fraction(self.top) / spans * (1 << self.places)), 1 << self.places)

    def quantizer(self, signed: bool) -> ReludQuantizer:
        return ReludQuantizer(self.levels, signed, self.step(signed))


class ReludQuantizer(ActivationQuantizer):
    """Codes times a fixed step. Without state; gradients are those of the clipped ReLU."""

    size: Tensor

    def __init__(self, levels: int, signed: bool, step: Fraction) -> None:
        super().__init__()
        self.levels, self.signed, self._step, self._width = levels, signed, step, float(step)
        self.register_buffer("size", torch.tensor(float(step)), persistent=False)

    def unit(self) -> Tensor:
        return self.size

    def forward(self, x: Tensor) -> Tensor:
        low, top = self.lowest, self.lowest + self.levels - 1
        return _Clip.apply(x, self._width, low, top)  # type: ignore[return-value]

    def boundaries(self) -> list[Fraction]:
        return [(code + Fraction(1, 2)) * self._step for code in range(self.lowest, self.lowest + self.levels - 1)]

    def values(self) -> list[Fraction]:
        return [code * self._step for code in range(self.lowest, self.lowest + self.levels)]


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
        _check(self, ("levels", 2, 256), ("bits", 1, 12))
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


def _check(options: ActivationOptions, *ranges: tuple[str, int, int]) -> None:
    for key, low, high in ranges:
        value = getattr(options, key)
        if not low <= value <= high:
            raise InputError(f"activations.{key} must be from {low} to {high}, not {value}")
