"""The exported integer network against the quantised torch model, sample by sample, each in its own arithmetic.

The torch model is evaluated in float64, so that only a tie can tell them apart: an activation whose distance to the
boundary between two codes is within float64's own rounding error. Ties are counted, never forgiven silently.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lutq_hw import golden_fast
from lutq_hw.network import Network

from .method import ActivationQuantizer

TIE = 1e-9
"""Distance to a boundary, in steps between boundaries, below which float64 may decide either way (its error here is
about 1e-14)."""

GRID = 2.0**30
"""Activations that are integers over this came without rounding, and equal boundaries decide them alike."""


@dataclass(frozen=True)
class Comparison:
    """Of ``samples``, ``equal`` had the same scores; floats cannot decide ``ties`` activations, in ``tied_samples``;
    ``unexplained`` samples differ without a tie; ``correct`` were classified right by the integer network (None where
    no labels were given)."""

    samples: int
    equal: int
    ties: int
    tied_samples: int
    unexplained: int
    correct: int | None

    @property
    def exact(self) -> bool:
        """Whether every sample without a tie had equal scores."""
        return self.unexplained == 0

    @property
    def accuracy(self) -> float | None:
        """Accuracy of the integer network."""
        return None if self.correct is None else self.correct / self.samples

    def __str__(self) -> str:
        return f"integer model == torch model on {self.equal}/{self.samples} samples, ties {self.ties}"


@torch.no_grad()
def compare(model: nn.Module, network: Network, batches: Iterable[Tensor], labels: np.ndarray | None = None,
            progress: Callable[[int], object] | None = None) -> Comparison:
    """Compare all scores that golden computes for ``network`` with those of ``model`` in float64.

    ``batches`` are inputs of the model, any float type; ``network.info`` knows their scale and that of the scores.
    """
    exact = copy.deepcopy(model).double().cpu().eval()
    found: list[Tensor] = []  # ties of every sample, batch by batch
    for module in exact.modules():
        if isinstance(module, ActivationQuantizer):
            module.register_forward_pre_hook(_tie_counter(module, found))
    scales = network.info["scales"]
    entered, unit = scales[network.input.name]["output"], scales[network.output.input]["output"]
    engine = golden_fast.FastNetwork(network)
    same: list[np.ndarray] = []
    integers: list[np.ndarray] = []
    for x in batches:
        wide = _on_grid(x.detach().double().cpu(), entered)
        found.append(torch.zeros(len(x), dtype=torch.int64))
        floats = (exact(wide) / unit).round().numpy()
        integers.append(_golden(engine, codes_of(network, wide, entered)))
        same.append((floats == integers[-1]).all(axis=1))
        if progress is not None:
            progress(sum(map(len, same)))
    ties, equal = torch.cat(found).numpy(), np.concatenate(same)
    right = None if labels is None else int((np.concatenate(integers).argmax(axis=1) == labels).sum())
    return Comparison(len(equal), int(equal.sum()), int(ties.sum()), int((ties > 0).sum()),
                      int((~equal & (ties == 0)).sum()), right)


def _on_grid(x: Tensor, scale: float) -> Tensor:
    """``x`` with float32's rounding errors taken away from what is meant to be integers times ``scale``."""
    codes = (x / scale).round()
    return torch.where((x / scale - codes).abs() < 1e-6 * codes.abs(), codes * scale, x)


def _golden(engine: golden_fast.FastNetwork, codes: np.ndarray) -> np.ndarray:
    step = golden_fast.batch_size(engine.network)
    output = engine.network.output.name
    return np.concatenate([engine.run(codes[begin:begin + step])[output] for begin in range(0, len(codes), step)])


def codes_of(network: Network, x: Tensor, scale: float) -> np.ndarray:
    """Input codes of float inputs ``(B, C, H, W)`` or ``(B, N)``, channels last."""
    kind = network.input.type
    codes = (x / scale + 0.5).floor().clamp(kind.min, kind.max).long().numpy()
    return np.moveaxis(codes, 1, -1) if codes.ndim == 4 else codes


def _tie_counter(quantizer: ActivationQuantizer, found: list[Tensor]) -> Callable[..., None]:
    bounds = torch.tensor([float(boundary) for boundary in quantizer.boundaries()], dtype=torch.float64)
    gaps = bounds.diff()
    step = float(gaps.min()) if len(gaps) else max(abs(float(bounds[0])), 1e-6)
    even = len(gaps) == 0 or float(gaps.max() - gaps.min()) < step * 1e-6

    def count(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0]
        if even:
            away = x.sub(bounds[0]).div_(step)  # in place, as most of a comparison's time goes by here
            away.sub_(away.round().clamp_(0, len(bounds) - 1)).abs_()
        else:
            above = torch.bucketize(x, bounds).clamp_(max=len(bounds) - 1)
            away = torch.minimum((x - bounds[above]).abs_(), (x - bounds[above.sub_(1).clamp_(min=0)]).abs_()).div_(step)
        if away.min() < TIE:
            found[-1] += ((away < TIE) & ((x * GRID).frac() != 0)).reshape(len(x), -1).sum(1)

    return count
