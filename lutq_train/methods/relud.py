"""reluD, for table-based neural units (arXiv 1906.04798): a clipped ReLU with few equally spaced levels.

The step between levels is an integer times ``2^-p``, so that product and activation tables hold values and boundaries
exactly. Forward gives the value of the level, backward is the derivative of the clipped ReLU.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import Any, ClassVar

import torch
from torch import Tensor

from lutq_hw.errors import InputError

from ..method import ActivationOptions, ActivationQuantizer
from ..ranges import check_ranges


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
        check_ranges(self, "activations", levels=(2, 256), places=(1, 16))
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
