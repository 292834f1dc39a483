"""SYQ: binary and ternary weights with a trained scale for each subgroup (arXiv 1807.00301), and DoReFa activations.

    threshold = eta * max|W|                                  no gradient; 0 for binary weights
    q         = sign(W) where |W| > threshold, else 0
    W_q       = alpha_g * q                                   g: the subgroup of the weight
    dL/dalpha_g = sum over g of q * dL/dW_q
    dL/dW       = alpha_g * dL/dW_q outside the dead zone, dL/dW_q inside

The gradients are those of the authors' code: sign and mask count as the identity, and where the mask is 0 its place in
the product is taken by 1, so that pruned weights can come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lutq_hw.errors import InputError

from ..method import ActivationOptions, ActivationQuantizer, CodedWeights, WeightOptions, WeightQuantizer
from ..ranges import check_choices, check_ranges

SMALLEST = 2.0**-20
"""No scale that is used falls below this."""

SUBGROUPS = ("layer", "row", "pixel", "channel")


class _Symmetric(torch.autograd.Function):
    """``scale * signs``, where ``scale`` is the rounded ``alpha``; the gradients of the module's docstring."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, alpha: Tensor, scale: Tensor, signs: Tensor) -> Tensor:
        ctx.save_for_backward(scale, signs)
        ctx.shape = alpha.shape
        return signs * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad, (scale, signs) = grads[0], ctx.saved_tensors
        return torch.where(signs == 0, grad, grad * scale), (grad * signs).sum_to_size(ctx.shape), None, None


class SyqQuantizer(WeightQuantizer):
    """Parameter ``alpha``: one number for each subgroup, ``(G,)``.

    Where a layer has several subgroups, the alphas that are used are integers of ``bits`` bits times one scale of the
    layer, the largest of them ``2^(bits-1) - 1``: hardware holds exactly these. A layer's only alpha and the alphas of
    output channels stay as they are.
    """

    def __init__(self, options: SyqOptions, weight: Tensor) -> None:
        super().__init__()
        self.ternary = options.entries == 3
        self.eta = options.eta if self.ternary else 0.0
        self.top = (1 << (options.bits - 1)) - 1
        self.shape = _subgroup_shape(weight.shape, options.subgroup)  # of the alphas, to multiply the weight by
        sums = weight.abs().sum_to_size(self.shape).flatten()
        self.alpha = nn.Parameter(sums * (sums.numel() / weight.numel()))
        self.exact = options.subgroup == "channel" or self.alpha.numel() == 1

    @property
    def has_zero(self) -> bool:
        return self.ternary

    def unit(self) -> Tensor:
        size = self.alpha.detach().float().abs()
        if self.exact:
            return (size if len(size) > 1 else size.amax()).clamp(min=SMALLEST)
        return (size.amax() / self.top).clamp(min=SMALLEST)

    def _multiples(self) -> Tensor:
        """The alphas as integers, which may be negative, in units of `unit`."""
        alpha = self.alpha.detach().float()
        return torch.where(alpha < 0, -1.0, 1.0) if self.exact else (alpha / self.unit()).round()

    def _signs(self, weight: Tensor) -> Tensor:
        """-1, 0 or 1 for each weight, float32; a binary weight of zero is 1."""
        weight = weight.detach().float()
        if not self.ternary:
            return torch.where(weight < 0, -1.0, 1.0)
        size = weight.abs()
        return weight.sign() * (size > self.eta * size.amax())

    def forward(self, weight: Tensor) -> Tensor:
        scale = (self._multiples().to(weight.dtype) * self.unit().to(weight.dtype)).view(self.shape)
        signs = self._signs(weight).to(weight.dtype)
        return _Symmetric.apply(weight, self.alpha.view(self.shape), scale, signs)  # type: ignore[return-value]

    @torch.no_grad()
    def coded(self, weight: Tensor) -> CodedWeights:
        multiples = self._multiples()
        signs = self._signs(weight) * torch.where(multiples < 0, -1.0, 1.0).view(self.shape)  # a dictionary ascends
        steps = torch.tensor([-1, 0, 1] if self.ternary else [-1, 1], device=weight.device)
        assignments = (signs + 1 if self.ternary else (signs + 1) / 2).to(torch.int32)
        scales = [Fraction(value) for value in self.unit().flatten().tolist()]
        scale = tuple(scales) if len(scales) > 1 else scales[0]
        if self.exact:
            return CodedWeights(assignments, steps.long()[None], scale)
        groups = torch.arange(self.alpha.numel(), device=weight.device)
        integers = multiples.abs().long()[:, None] * steps
        return CodedWeights(assignments, integers, scale, groups.view(self.shape[1:]).expand(weight.shape[1:]))


def _subgroup_shape(shape: torch.Size, subgroup: str) -> torch.Size:
    """Shape of the alphas of a weight tensor; dense layers have one alpha, as in the paper: scores share their unit."""
    sizes = [1] * len(shape)
    if len(shape) == 2:
        return torch.Size(sizes)
    if subgroup == "channel":
        sizes[0] = shape[0]
    elif subgroup == "row":
        sizes[2] = shape[2]
    elif subgroup == "pixel":
        sizes[2:] = shape[2:]
    return torch.Size(sizes)


@dataclass(frozen=True)
class SyqOptions(WeightOptions):
    """Symmetric binary or ternary weights.

    The authors take `DorefaOptions` for activations; learned scales do better after a float training, and are the
    default.

    Parameters
    ----------
    entries
        2 (``-alpha, alpha``) or 3 (``-alpha, 0, alpha``).
    subgroup
        What shares an alpha: the ``layer``, a kernel ``row``, a kernel position (``pixel``) or an output ``channel``;
        dense layers have one alpha.
    eta
        Weights of at most ``eta`` times the largest are 0; ternary weights only.
    bits
        Width of the integers that alphas are rounded to where a layer has several for each output.

    Raises
    ------
    InputError
        If an option is out of its range.
    """

    method: ClassVar[str] = "syq"

    entries: int = 3
    subgroup: str = "channel"
    eta: float = 0.05
    bits: int = 8

    def __post_init__(self) -> None:
        check_choices(self, "weights", subgroup=SUBGROUPS)
        check_ranges(self, "weights", bits=(2, 16))
        if self.entries not in (2, 3):
            raise InputError(f"weights.entries must be 2 or 3 with the method syq, not {self.entries}")
        if not 0 <= self.eta < 1:
            raise InputError(f"weights.eta must be at least 0 and below 1, not {self.eta}")

    def quantizer(self, weight: Tensor) -> SyqQuantizer:
        return SyqQuantizer(self, weight)


class _Round(torch.autograd.Function):
    """``code * unit`` of ``x`` clipped to ``low`` to 1; the gradient passes where ``x`` is not clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, edges: Tensor | None, low: int, top: int, unit: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.low = low
        if edges is not None:
            return torch.bucketize(x, edges, right=True).add_(low * top).to(x.dtype).mul_(unit)
        return x.mul(top).add_(0.5).floor_().clamp_(low * top, top).mul_(unit)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grads[0], x, float(ctx.low), 1.0), None, None, None, None


class DorefaQuantizer(ActivationQuantizer):
    """``round(clip(x, 0, 1) * top) / top``; signed, ``clip(x, -1, 1)`` and codes ``-top`` to ``top``.

    Without parameters. 1 / top is taken as a float32 number, so that all arithmetic agrees on it.
    """

    def __init__(self, levels: int, signed: bool) -> None:
        super().__init__()
        self.signed = signed
        self.top = (levels - 1) // 2 if signed else levels - 1
        self.levels = 2 * self.top + 1 if signed else levels
        self._size = _float32(1 / self.top)
        self.register_buffer("step", torch.tensor(self._size), persistent=False)

    def unit(self) -> Tensor:
        return self.get_buffer("step")

    def forward(self, x: Tensor) -> Tensor:
        low = -1 if self.signed else 0
        return _Round.apply(x, self.edges(x), low, self.top, self._size)  # type: ignore[return-value]

    def boundaries(self) -> list[Fraction]:
        return [Fraction(2 * code + 1, 2 * self.top) for code in range(self.lowest, self.top)]

    def values(self) -> list[Fraction]:
        return [code * Fraction(self._size) for code in range(self.lowest, self.top + 1)]


def _float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))


@dataclass(frozen=True)
class DorefaOptions(ActivationOptions):
    """Uniform levels from 0 to 1, or from -1 to 1, that nothing trains (SYQ's activations).

    Parameters
    ----------
    levels
        2 to 256; signed activations are symmetric and have one less where it is even.

    Raises
    ------
    InputError
        If there are too many or too few levels.
    """

    method: ClassVar[str] = "dorefa"

    levels: int = 256

    def __post_init__(self) -> None:
        check_ranges(self, "activations", levels=(2, 256))

    def quantizer(self, signed: bool) -> DorefaQuantizer:
        if signed and self.levels == 2:
            raise InputError("activations.levels must be at least 3 where activations are signed, not 2: "
                             "dorefa is symmetric")
        return DorefaQuantizer(self.levels, signed)
