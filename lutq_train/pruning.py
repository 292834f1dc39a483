"""Pruning to a target: the smallest weights of every layer, or of the whole network, are held at zero by a mask.

A pruner is a parametrization in front of the quantiser, so every method that has a zero can be combined with it. The
mask follows the magnitudes of the full-precision weights (which keep their gradients, so a pruned weight can return)
along the cubic schedule of Zhu and Gupta (arXiv 1710.01878, equation 1) until the target is reached, and stays from then
on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .ranges import check_choices, check_ranges

SCOPES = ("layer", "network")


@dataclass(frozen=True)
class Pruning:
    """What is pruned, and when.

    Parameters
    ----------
    ratio
        Part of the weights that is zero in the end, 0 to 0.999; 0 for no pruning.
    scope
        ``layer``: the same ratio everywhere. ``network``: one ranking of all weights by LAMP scores (arXiv 2010.07611,
        equation 2), which leaves sensitive layers more.
    until
        Part of the pruning epochs after which the ratio is reached.
    """

    ratio: float = 0.0
    scope: str = "network"
    until: float = 0.6

    def __post_init__(self) -> None:
        check_choices(self, "pruning", scope=SCOPES)
        check_ranges(self, "pruning", ratio=(0, 0.999), until=(0, 1.0))

    def ratio_at(self, done: float) -> float:
        """Ratio after the part ``done`` of the pruning epochs."""
        left = 1 - min(done / self.until, 1.0) if self.until else 0.0
        return self.ratio * (1 - left**3)


class _Masked(torch.autograd.Function):
    """``weight * mask`` forward, identity backward: a pruned weight moves on, and may come back."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor) -> Tensor:
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class Pruner(nn.Module):
    """Parametrization of one weight tensor; buffer ``mask``, 1 where a weight is kept."""

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight))

    def forward(self, weight: Tensor) -> Tensor:
        return _Masked.apply(weight, self.mask)  # type: ignore[return-value]


def attach(model: nn.Module) -> None:
    """Give every Linear and Conv2d of a float network a mask of ones."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and not parametrize.is_parametrized(layer, "weight"):
            parametrize.register_parametrization(layer, "weight", Pruner(layer.weight.detach()))


def pruners(model: nn.Module) -> list[tuple[Pruner, Tensor]]:
    """Every pruner of ``model`` with the full-precision weight that it masks."""
    return [(chain[0], chain.original) for chain in model.modules()  # type: ignore[misc]
            if isinstance(chain, parametrize.ParametrizationList) and isinstance(chain[0], Pruner)]


@torch.no_grad()
def prune(model: nn.Module, ratio: float, scope: str = "network") -> None:
    """Set all masks so that the part ``ratio`` of the weights is zero."""
    found = pruners(model)
    if not found:
        return
    if scope == "layer":
        for pruner, weight in found:
            pruner.mask.copy_(_largest(weight.abs(), weight.numel() - round(ratio * weight.numel())))
        return
    scores = torch.cat([_lamp(weight).view(-1) for _, weight in found])
    kept = _largest(scores, scores.numel() - round(ratio * scores.numel()))
    for (pruner, weight), part in zip(found, kept.split([weight.numel() for _, weight in found]), strict=True):
        pruner.mask.copy_(part.view_as(weight))


def _largest(scores: Tensor, count: int) -> Tensor:
    """1.0 at the ``count`` largest of ``scores``, else 0.0; ties go to the first."""
    mask = torch.zeros_like(scores)
    mask.view(-1)[scores.reshape(-1).argsort(descending=True, stable=True)[:count]] = 1
    return mask


def _lamp(weight: Tensor) -> Tensor:
    """Square of each weight over the sum of its own and all larger squares of the layer."""
    squares, order = weight.detach().double().reshape(-1).square().sort()
    rest = squares.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = squares / rest.clamp(min=torch.finfo(torch.float64).tiny)
    return scores.view_as(weight)


def reached(model: nn.Module, ratio: float, scope: str = "network") -> bool:
    """Whether the part ``ratio`` is zero, apart from `prune`'s rounding to whole weights."""
    masks = [pruner.mask for pruner, _ in pruners(model)]
    zeros = sum(mask.numel() - int(mask.count_nonzero()) for mask in masks)
    return zeros >= ratio * sum(mask.numel() for mask in masks) - (len(masks) if scope == "layer" else 1) / 2


def kept(model: nn.Module) -> float:
    """Part of the prunable weights that is not zero."""
    found = [pruner.mask for pruner, _ in pruners(model)]
    return float(sum(mask.sum() for mask in found) / sum(mask.numel() for mask in found)) if found else 1.0
