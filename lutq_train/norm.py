"""Multiplier-less batch norm (LUT-Q, arXiv 1811.05355, section 2.3): the slope of every channel is a power of two.

Thresholds swallow any batch norm exactly, so hardware does not need it; it is for networks whose sums are used without a
step, and for comparison with the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PowerOfTwo:
    """Batch norm ``y = a_hat (x - mean) + beta`` with ``a_hat = sign(a) 2^round(log2|a|)``, ``a = gamma / sqrt(var + eps)``.

    gamma and beta stay full-precision numbers; gradients are those of batch norm with ``gamma a_hat / a`` for gamma,
    the rounding passing them straight through.
    """

    def slope(self: nn.modules.batchnorm._BatchNorm, var: Tensor | None = None) -> Tensor:  # type: ignore[misc]
        """``a_hat`` of every channel, for the variance ``var`` of a batch or the running one; 0 where gamma is 0."""
        var = self.running_var if var is None else var
        assert var is not None
        exact = self.weight.detach().to(var.dtype) * (var + self.eps).rsqrt()
        size = exact.abs()
        power = torch.exp2(size.clamp(min=torch.finfo(size.dtype).tiny).log2().round())
        return torch.where(size > 0, exact.sign() * power, 0.0)

    def forward(self: nn.modules.batchnorm._BatchNorm, input: Tensor) -> Tensor:  # type: ignore[misc]
        """Batch statistics in training, running ones in evaluation."""
        axes = [0, *range(2, input.ndim)]
        var = input.detach().float().var(axes, correction=0) if self.training else self.running_var
        assert var is not None
        exact = self.weight.detach().to(var.dtype) * (var + self.eps).rsqrt()
        ratio = torch.where(exact != 0, self.slope(var) / exact, 1.0)  # type: ignore[operator]
        momentum = 0.1 if self.momentum is None else self.momentum
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight * ratio, self.bias, self.training,
                            momentum, self.eps)


class PowerOfTwoNorm1d(PowerOfTwo, nn.BatchNorm1d):
    """See `power_of_two_norms`."""


class PowerOfTwoNorm2d(PowerOfTwo, nn.BatchNorm2d):
    """See `power_of_two_norms`."""


KINDS: dict[type, type] = {nn.BatchNorm1d: PowerOfTwoNorm1d, nn.BatchNorm2d: PowerOfTwoNorm2d}


def power_of_two_norms(model: nn.Module) -> nn.Module:
    """Make every batch norm of ``model`` multiplier-less, in place; parameters and statistics stay. Returns ``model``."""
    for module in model.modules():
        kind = KINDS.get(type(module))
        if kind is not None and getattr(module, "affine", False):
            module.__class__ = kind
    return model
