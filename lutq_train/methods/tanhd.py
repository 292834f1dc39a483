"""tanhD, for table-based neural units (arXiv 1906.04798): tanh with few equally spaced levels.

Values are integers times ``2^-p``, boundaries integers times ``2^-m``, so that product and activation tables hold them
exactly. Forward gives the value of the level, backward is the derivative of tanh.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import atanh, floor, gcd, log2
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from lutq_hw.errors import InputError

from ..grid import look_up
from ..method import ActivationOptions, ActivationQuantizer
from ..ranges import check_ranges


class _Tanh(torch.autograd.Function):
    """Looked-up level forward; backward the derivative of tanh, for unsigned levels of tanh(relu(x))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, first: int, table: Tensor, signed: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.signed = signed
        return look_up(x, step, first, table)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,), grad = ctx.saved_tensors, grads[0]
        # tanh'(x) = 4 s (1 - s) with s the logistic function of 2 x, which costs a third of tanh. In place: see `look_up`.
        made = (x * 2).sigmoid_()
        torch.ops.aten.sigmoid_backward.grad_input(grad, made, grad_input=made)
        if ctx.signed:
            made.mul_(4)
        else:  # times 4 where x > 0, else times 0, in one pass: an ELU of slopes 4 and 0
            torch.ops.aten.elu_backward.grad_input(made, 0, 4, 0, True, x, grad_input=made)
        return made, None, None, None, None


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
        check_ranges(self, "activations", levels=(2, 256), places=(1, 16))
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
