"""Uniform activations with a learned scale (LSQ, arXiv 1902.08153), or a fixed one that is a power of two.

    code = clamp(floor(x / scale + 1/2), lowest, lowest + levels - 1)
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..method import ActivationOptions, ActivationQuantizer
from ..ranges import check_ranges
from ..sums import inner, inside

CANDIDATES = 60
"""Scales tried when a scale is first fitted to a batch."""

MOST = 1 << 21
"""Largest number of activations that a scale is fitted to; of more, evenly spaced ones."""

SMALLEST = 2.0**-20
"""No learned scale falls below this."""


class _Quantize(torch.autograd.Function):
    """``code * scale``; gradients of learned step size quantisation (LSQ, equations 3 and 5)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, top: int) -> Tensor:
        # In place: on a CPU, a fresh buffer for every step would cost more than the arithmetic. Half precision, in
        # which 200 + 1/2 is no number, is widened.
        y = x.div(scale) if x.element_size() > 2 else x.float().div_(scale)
        y = y.add_(0.5).floor_().clamp_(low, top).mul_(scale).to(x.dtype)
        ctx.low, ctx.top = low, top
        if ctx.needs_input_grad[1]:
            ctx.save_for_backward(x, y, scale)
        else:
            ctx.save_for_backward(x, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, (x, *rest) = grads[0], ctx.saved_tensors
        scale = rest[-1]
        grad_x = inside(grad, x, ctx.low * scale, ctx.top * scale)
        if len(rest) == 1:
            return grad_x, None, None, None
        # Of scale: code - x / scale inside (rounding); low or top, which is the code, outside.
        grad_scale = inner(grad, rest[0]) - inner(grad_x, x)
        return grad_x, grad_scale / (scale * (x.numel() * ctx.top) ** 0.5), None, None


class LsqQuantizer(ActivationQuantizer):
    """Codes times ``scale``; the scale is learned, or a power of two that calibration fixes."""

    def __init__(self, levels: int, signed: bool, fixed: bool) -> None:
        super().__init__()
        self.levels, self.signed, self.fixed = levels, signed, fixed
        if fixed:
            self.register_buffer("size", torch.ones(()))
        else:
            self.size = nn.Parameter(torch.ones(()))

    @property
    def top(self) -> int:
        """Largest code."""
        return self.lowest + self.levels - 1

    def unit(self) -> Tensor:
        """The scale: value of one code step, positive."""
        return self.size.abs().clamp(min=SMALLEST)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        scale = best_scale(x if self.signed else x.relu(), self.lowest, self.top)
        self.size.copy_(torch.exp2(scale.log2().ceil()) if self.fixed else scale)

    def forward(self, x: Tensor) -> Tensor:
        return _Quantize.apply(x, self.unit(), self.lowest, self.top)  # type: ignore[return-value]

    def boundaries(self) -> list[Fraction]:
        scale = Fraction(float(self.unit().detach()))
        return [(code + Fraction(1, 2)) * scale for code in range(self.lowest, self.top)]

    def values(self) -> list[Fraction]:
        scale = Fraction(float(self.unit().detach()))
        return [code * scale for code in range(self.lowest, self.top + 1)]


def best_scale(x: Tensor, low: int, top: int) -> Tensor:
    """Of ``CANDIDATES`` scales up to the one that reaches the largest ``|x|``, that with the least squared error."""
    x = x.reshape(-1)[::x.numel() // MOST + 1]
    peak = x.amax() if low == 0 else torch.maximum(x.amax(), x.amin() * top / low)
    scales = peak.clamp(min=SMALLEST) / max(top, 1) * torch.arange(1, CANDIDATES + 1, device=x.device) / CANDIDATES
    errors = [((x / scale + 0.5).floor().clamp(low, top) * scale - x).square().mean() for scale in scales]
    return scales[int(torch.stack(errors).argmin())]


@dataclass(frozen=True)
class LsqOptions(ActivationOptions):
    """Uniform levels.

    Parameters
    ----------
    levels
        2 to 256; signed activations have one more negative level than positive ones where it is even.
    fixed
        The scale is a power of two that the calibration batch chooses, and stays.

    Raises
    ------
    InputError
        If there are too many or too few levels.
    """

    method: ClassVar[str] = "lsq"

    levels: int = 16
    fixed: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, "activations", levels=(2, 256))

    def quantizer(self, signed: bool) -> LsqQuantizer:
        return LsqQuantizer(self.levels, signed, self.fixed)
