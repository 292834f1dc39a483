"""Passes over many activations that the gradients of quantisers are made of. Sums are float32 for half precision."""

from __future__ import annotations

import torch
from torch import Tensor


def total(a: Tensor) -> Tensor:
    """The sum of all elements, a scalar of type float32, or float64 for float64."""
    if a.dtype == torch.float64:
        return a.sum()
    if a.element_size() < 4 and a.device.type == "cpu" and a.dim() > 1:
        # A CPU would widen everything before it sums; within a row it adds in float32 anyway.
        return a.flatten(1).sum(1).sum(dtype=torch.float32)
    return a.sum(dtype=torch.float32)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The sum of ``a * b``, of equal shapes and types, as `total` gives it; half precision rounds the products."""
    if a.element_size() < 4:
        return total(a * b)  # its own dot is slow
    return torch.dot(a.reshape(-1), b.reshape(-1))


def inside(grad: Tensor, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``grad`` where ``low < x < high``, else 0; the bounds are scalars."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():  # no waiting for the numbers to come back
        return torch.where((x > low) & (x < high), grad, 0)
    return torch.ops.aten.hardtanh_backward(grad, x, float(low), float(high))
