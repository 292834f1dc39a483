"""LUT-Q as a parametrization: a plain ``nn.Linear`` or ``nn.Conv2d`` whose weight is ``dictionary[assignments]``.

    attach(model, Dictionary("power_of_two", 8, zero=True))
    ...
    loss.backward(); optimizer.step(); update(model)      # the update is one k-means step, an explicit call

Algorithm 1 of LUT-Q (arXiv 1811.05355) with M = 1: forward and gradients use the tied weights, the optimiser moves the
full-precision ones, then one k-means step moves assignments and dictionary after them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .dictionary import Dictionary

START_STEPS = 30
"""k-means steps on the trained float weights before the first quantised batch."""


class _Tied(torch.autograd.Function):
    """``values[assignments]`` forward, identity backward: dQ/dW := 1, the straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, values: Tensor, assignments: Tensor) -> Tensor:
        return values.index_select(0, assignments.view(-1)).view(weight.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0], None, None


class LutQuantizer(nn.Module):
    """Parametrization of one weight tensor: buffers ``integers`` (K,), ``scale`` (1,), ``pinned`` (K,) and
    ``assignments`` (the weight's shape).

    The weight is exactly ``(integers * scale)[assignments]``; the exported file holds the same integers.
    """

    integers: Tensor
    scale: Tensor
    pinned: Tensor
    assignments: Tensor

    def __init__(self, dictionary: Dictionary, weight: Tensor) -> None:
        super().__init__()
        self.dictionary = dictionary
        centres, zero = dictionary.start(weight)
        integers, scale = dictionary.project(centres, torch.ones_like(centres))
        self.register_buffer("integers", integers.clone())
        self.register_buffer("scale", scale.clone())
        pinned = torch.zeros_like(centres, dtype=torch.bool)
        pinned[[] if zero is None else [zero]] = True
        self.register_buffer("pinned", pinned)
        self.register_buffer("assignments", torch.zeros_like(weight, dtype=torch.int32))
        for _ in range(START_STEPS):
            kmeans_step([(self, weight)])

    @property
    def values(self) -> Tensor:
        """The dictionary, ascending, (K,)."""
        return self.integers * self.scale

    def forward(self, weight: Tensor) -> Tensor:
        return _Tied.apply(weight, self.values, self.assignments)  # type: ignore[return-value]


@torch.no_grad()
def kmeans_step(group: Sequence[tuple[LutQuantizer, Tensor]]) -> None:
    """One k-means step of weights with equal dictionaries: nearest values, then centres, then the constraint.

    Clusters of sorted values are intervals, so the nearest value is found by bisection between midpoints, O(N log K);
    a weight on a midpoint goes down. A cluster without weights keeps its value, hence centres ascend too. Everything
    of size K is done for all layers at once: small networks would otherwise spend their time starting kernels.
    """
    values = torch.stack([quantizer.integers for quantizer, _ in group])
    values *= torch.stack([quantizer.scale for quantizer, _ in group])
    middles = (values[:, 1:] + values[:, :-1]) * 0.5
    flat = torch.cat([weight.view(-1) for _, weight in group])
    keys = []
    for n, ((quantizer, weight), middle) in enumerate(zip(group, middles.unbind(), strict=True)):
        torch.bucketize(weight, middle, out_int32=True, out=quantizer.assignments)
        keys.append((quantizer.assignments + n * values.shape[1]).view(-1))
    key = torch.cat(keys)
    counts = torch.bincount(key, minlength=values.numel()).view_as(values)
    sums = torch.bincount(key, weights=flat, minlength=values.numel()).view_as(values)
    centres = torch.where(counts > 0, sums / counts.clamp(min=1), values)
    centres.masked_fill_(torch.stack([quantizer.pinned for quantizer, _ in group]), 0)
    integers, scales = group[0][0].dictionary.project(centres, counts)
    for (quantizer, _), row, scale in zip(group, integers.unbind(), scales.unbind(), strict=True):
        quantizer.integers, quantizer.scale = row, scale


def attach(model: nn.Module, dictionary: Dictionary) -> None:
    """Quantise the weights of every ``nn.Linear`` and ``nn.Conv2d`` in ``model``, from their present values."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and not parametrize.is_parametrized(layer, "weight"):
            parametrize.register_parametrization(layer, "weight", LutQuantizer(dictionary, layer.weight))


def quantizers(model: nn.Module) -> Iterator[tuple[LutQuantizer, Tensor]]:
    """Every quantiser of ``model`` with the full-precision weight that it follows."""
    for layer in model.modules():
        if isinstance(layer, parametrize.ParametrizationList) and isinstance(layer[0], LutQuantizer):
            yield layer[0], layer.original  # type: ignore[misc]


def quantizer_of(layer: nn.Module) -> LutQuantizer | None:
    """The quantiser of a layer's weight; None for a float layer."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    first = layer.parametrizations["weight"][0]  # type: ignore[index]
    return first if isinstance(first, LutQuantizer) else None


def update(model: nn.Module) -> None:
    """The LUT-Q step of every quantised layer; call it after ``optimizer.step()``."""
    groups: dict[Dictionary, list[tuple[LutQuantizer, Tensor]]] = {}
    for quantizer, weight in quantizers(model):
        groups.setdefault(quantizer.dictionary, []).append((quantizer, weight))
    for group in groups.values():
        kmeans_step(group)
