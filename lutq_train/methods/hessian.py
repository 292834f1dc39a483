"""Towards the Limit of Network Quantization (Choi, El-Khamy, Lee, ICLR 2017): cluster once, fine-tune the centres.

The trained (and pruned) weights of all layers are clustered together, each weight counted by how much the loss minds
its change: Hessian-weighted k-means (equation 8), uniform cells (section 5.3) or the entropy-constrained quantiser
(5.4). From then on assignments are fixed and only the centres are trained: the gradient of a centre is the mean of the
gradients of its weights. Sizes of the result: `lutq_train.compression`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lutq_hw.errors import InputError

from ..clusters import ecsq, ecsq_at, kmeans, uniform, uniform_at
from ..distributed import agree
from ..grid import TINY
from ..hessian import adam_second_moment, fisher, hutchinson
from ..method import CodedWeights, Losses, WeightOptions, WeightQuantizer
from ..ranges import check_choices, check_ranges

CLUSTERINGS = ("kmeans", "uniform", "ecsq")
IMPORTANCES = ("fisher", "hutchinson", "adam", "none")
SCOPES = ("network", "layer")

FLOOR = 1e-3
"""Least importance, in mean ones: a weight that no gradient reached shall not go just anywhere."""


@dataclass(frozen=True)
class HessianOptions(WeightOptions):
    """How weights are clustered.

    Parameters
    ----------
    entries
        K, 2 to 256: most entries that a codebook may have, the zero of pruned weights among them.
    clustering
        ``kmeans``, ``uniform`` or ``ecsq``.
    importance
        Where the importance of weights comes from: ``fisher`` or ``hutchinson``, of the losses; ``adam``, the second
        moments of the optimiser that trained them, which cost nothing (section 3.5); or ``none``.
    scope
        ``network``: one codebook for all layers that are attached together; ``layer``: one for each.
    rate
        For ``uniform`` and ``ecsq``: most bits of entropy for each weight that is not pruned; 0 for no limit.
    lam
        For ``ecsq`` without ``rate``: price of a bit, in mean ``h w^2`` of the weights.
    bits
        Width of the integers that centres are rounded to, 2 to 16.

    Raises
    ------
    InputError
        If a value is out of its range.
    """

    method: ClassVar[str] = "hessian"
    once: ClassVar[bool] = True

    entries: int = 16
    clustering: str = "kmeans"
    importance: str = "fisher"
    scope: str = "network"
    rate: float = 0.0
    lam: float = 0.01
    bits: int = 8

    def __post_init__(self) -> None:
        check_choices(self, "weights", clustering=CLUSTERINGS, importance=IMPORTANCES, scope=SCOPES)
        check_ranges(self, "weights", entries=(2, 256), bits=(2, 16), rate=(0, 8), lam=(0, 1000))
        if self.rate and self.clustering == "kmeans":
            raise InputError("weights.rate must be left out with k-means, which knows no rate; choose uniform or ecsq")

    @property
    def wants_adam(self) -> bool:
        return self.importance == "adam"

    def blank(self) -> HessianOptions:
        return replace(self, importance="none")

    def attach(self, layers: Mapping[str, nn.Module], losses: Losses | None,
               optimizer: torch.optim.Optimizer | None = None) -> None:
        """See `WeightOptions.attach`; without losses (``adam``: never) all weights are equally important.

        Weights that are exactly zero are pruned: they keep an entry of their own and take no part in the clustering.

        Raises
        ------
        InputError
            If weights are not finite, or ``importance`` is ``adam`` and there is no optimiser with second moments.
        """
        weights = {}
        for name, layer in layers.items():
            weight = layer.weight
            assert isinstance(weight, Tensor)
            weights[name] = weight.detach().clone()
            if not bool(torch.isfinite(weights[name]).all()):
                raise InputError(f"{name}: weights must be finite numbers to be clustered; the training has diverged")
        importance = self._importance(layers, losses, optimizer)
        groups = [list(layers)] if self.scope == "network" else [[name] for name in layers]
        for names in groups:
            members = [weights[name] for name in names]
            book, indices = self._cluster(members, [importance[name] for name in names] if importance else None)
            for name, index in zip(names, indices, strict=True):
                layer = layers[name]
                parametrize.register_parametrization(layer, "weight", HessianQuantizer(book, index), unsafe=True)
                layer.parametrizations["weight"].original.requires_grad_(False)  # type: ignore[index, union-attr]

    def _importance(self, layers: Mapping[str, nn.Module], losses: Losses | None,
                    optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor] | None:
        """Importance of every weight of every layer, over their mean."""
        if self.importance == "none" or (losses is None and self.importance != "adam"):
            return None
        sources: list[Tensor] = []
        for layer in layers.values():
            pruned = parametrize.is_parametrized(layer, "weight")
            sources.append(layer.parametrizations["weight"].original if pruned else layer.weight)  # type: ignore[index, union-attr, arg-type]
        if self.importance == "adam":
            found = _second_moments(optimizer, layers, sources)
        else:
            for source in sources:
                source.requires_grad_(True)
            assert losses is not None
            found = (fisher if self.importance == "fisher" else hutchinson)(losses, sources)
        mean = torch.cat([h.reshape(-1) for h in found]).mean()
        if not (bool(torch.isfinite(mean)) and float(mean) > 0):
            return None
        return {name: h / mean + FLOOR for name, h in zip(layers, found, strict=True)}

    def _cluster(self, weights: list[Tensor], importance: list[Tensor] | None) -> tuple[Centres, list[Tensor]]:
        """One codebook for ``weights``, and the index of every weight."""
        flat = torch.cat([weight.reshape(-1) for weight in weights])
        kept = flat != 0
        pruned = int(not bool(kept.all()))
        centres = flat.new_zeros(self.entries)
        index = torch.zeros(flat.shape, dtype=torch.int32, device=flat.device)
        shares = flat.new_zeros(self.entries)
        if bool(kept.any()):
            h = None if importance is None else torch.cat([part.reshape(-1) for part in importance])[kept]
            found, means = self._quantize(flat[kept], h, self.entries - pruned)
            index[kept] = found + pruned
            live = slice(pruned, pruned + len(means))
            shares[live] = torch.bincount(found, minlength=len(means)).to(shares)
            centres[live] = means
        agree(centres, index, shares)
        parts = index.split([weight.numel() for weight in weights])
        return Centres(centres, shares, self.bits), [part.view(weight.shape).clone() for part, weight
                                                     in zip(parts, weights, strict=True)]

    def _quantize(self, weights: Tensor, h: Tensor | None, entries: int) -> tuple[Tensor, Tensor]:
        pruned = entries < self.entries
        if self.clustering == "uniform":
            if self.rate:
                return uniform_at(weights, self.rate, h, entries=entries, phase=0.0 if pruned else 0.5)[1:]
            return uniform(weights, entries, h)
        if self.clustering == "ecsq":
            if self.rate:
                return ecsq_at(weights, entries, self.rate, h)[1:]
            power = weights.square() if h is None else h * weights.square()
            return ecsq(weights, entries, self.lam * float(power.double().mean()), h)
        return kmeans(weights, entries, h, "best", reseed=True)


def _second_moments(optimizer: torch.optim.Optimizer | None, layers: Mapping[str, nn.Module],
                    sources: list[Tensor]) -> list[Tensor]:
    """`adam_second_moment` of the weights ``sources`` of ``layers``; errors name the layer."""
    if optimizer is None:
        raise InputError('weights.importance "adam" needs the Adam that trained the weights; give it as '
                         "quantize(..., optimizer=optimizer)")
    found = []
    for name, source in zip(layers, sources, strict=True):
        try:
            found.append(adam_second_moment(optimizer, source))
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    return found


class Centres(nn.Module):
    """The codebook of one or more layers: parameter ``centres`` (K,), and of how many weights each is the value (K,).

    Where that is 0, the centre is zero for good: that of pruned weights, and those that the clustering had no use for.
    The values are integers times a scale that follows the largest centre; the gradient passes the rounding straight
    through. That of a centre is the mean, not the sum, over its weights: a step of plain gradient descent then moves it
    as far as it would move them on average, and a learning rate that suits weights suits centres.
    """

    centres: nn.Parameter
    shares: Tensor

    def __init__(self, centres: Tensor, shares: Tensor, bits: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(centres.clone())
        self.register_buffer("shares", shares.clone())
        self.top = (1 << (bits - 1)) - 1

    @property
    def live(self) -> Tensor:
        """Which centres are the value of any weight, (K,) bool."""
        return self.shares > 0

    def rounded(self) -> tuple[Tensor, Tensor]:
        """Integers (K,) and scale (), both float32: the same numbers whatever type the network is evaluated in."""
        centres = self.centres.detach().float() * self.live
        scale = centres.abs().amax().clamp(min=TINY) / self.top
        return (centres / scale).round().clamp(-self.top, self.top), scale

    def forward(self) -> Tensor:
        """The values, exactly ``integers * scale`` in the type of the centres, with the gradient of the centres."""
        integers, scale = self.rounded()
        values = integers.to(self.centres.dtype) * scale.to(self.centres.dtype)
        moving = self.centres * self.live / self.shares.clamp(min=1)
        return values + (moving - moving.detach())  # adds an exact zero


class HessianQuantizer(WeightQuantizer):
    """Buffer ``assignments`` (the weight's shape) and the codebook ``book``, shared by the layers of its scope.

    A checkpoint holds the codebook once for every layer; loading keeps it shared. The full-precision weight that the
    parametrization began from is no longer looked at, nor trained.
    """

    assignments: Tensor

    def __init__(self, book: Centres, assignments: Tensor) -> None:
        super().__init__()
        self.book = book
        self.register_buffer("assignments", assignments)

    @property
    def has_zero(self) -> bool:
        return True  # pruned weights got an entry of their own

    def unit(self) -> Tensor:
        return self.book.rounded()[1]

    def forward(self, weight: Tensor) -> Tensor:
        return self.book().index_select(0, self.assignments.view(-1)).view(self.assignments.shape)

    def coded(self, weight: Tensor) -> CodedWeights:
        integers, scale = self.book.rounded()
        return CodedWeights(self.assignments, integers.double().round().long()[None], Fraction(float(scale)))
