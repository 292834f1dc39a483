"""Activations of 1 to 8 bits with a learned scale: ``code = clamp(floor(x / scale + 1/2), 0, 2^bits - 1)``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CANDIDATES = 60
"""Scales tried when a scale is first fitted to a batch."""

SMALLEST = 2.0**-20
"""No learned scale falls below this."""


class _Quantize(torch.autograd.Function):
    """``code * scale``; gradients of learned step size quantisation (LSQ, arXiv 1902.08153, equations 3 and 5)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, top: int) -> Tensor:
        # In place: on a CPU, a fresh buffer for every step would cost more than the arithmetic.
        y = x.div(scale).add_(0.5).floor_().clamp_(0, top).mul_(scale)
        ctx.save_for_backward(x, y, scale)
        ctx.top = top
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, y, scale = ctx.saved_tensors
        grad = grads[0]
        grad_x = torch.ops.aten.hardtanh_backward(grad, x, 0, ctx.top * float(scale))  # grad where 0 < x < top * scale
        # Of scale: code - x / scale inside (rounding), top above, and 0, which is the code, below.
        grad_scale = _inner(grad, y) - _inner(grad_x, x)
        return grad_x, grad_scale / (scale * (x.numel() * ctx.top) ** 0.5), None


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.reshape(-1), b.reshape(-1))


class Activation(nn.Module):
    """ReLU until `calibrate` is called; from the next batch on, codes of ``bits`` bits times ``scale``.

    Parameters
    ----------
    bits
        1 to 8; codes are 0 to ``2^bits - 1``.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        if not 1 <= bits <= 8:
            raise ValueError(f"Activation bits must be from 1 to 8, not {bits}")
        self.top = (1 << bits) - 1
        self.size = nn.Parameter(torch.ones(()))
        self.quantized = False
        self._calibrating = False

    @property
    def scale(self) -> Tensor:
        """Value of one code step, positive."""
        return self.size.abs().clamp(min=SMALLEST)

    def calibrate(self) -> None:
        """Quantise from now on; the next batch chooses the first scale."""
        self.quantized = self._calibrating = True

    def restore(self) -> None:
        """Quantise from now on, with the scale that a checkpoint brings."""
        self.quantized = True

    def forward(self, x: Tensor) -> Tensor:
        if not self.quantized:
            return x.relu()
        if self._calibrating:
            self._calibrating = False
            with torch.no_grad():
                self.size.copy_(best_scale(x.relu(), self.top))
        return _Quantize.apply(x, self.scale, self.top)  # type: ignore[return-value]


def best_scale(x: Tensor, top: int) -> Tensor:
    """Of ``CANDIDATES`` scales up to the one that reaches the largest ``x``, that with the least squared error."""
    scales = x.amax().clamp(min=SMALLEST) / top * torch.arange(1, CANDIDATES + 1, device=x.device) / CANDIDATES
    errors = [((x / scale + 0.5).floor().clamp(0, top) * scale - x).square().mean() for scale in scales]
    return scales[int(torch.stack(errors).argmin())]
