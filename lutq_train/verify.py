"""The exported integer network against the quantised torch model, sample by sample, each in its own arithmetic.

The torch model is evaluated in float64, so that only a tie can tell them apart: an activation whose distance to the
boundary between two codes is within float64's own rounding error. Ties are counted, never forgiven silently.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lutq_hw import golden
from lutq_hw.network import Network

from .loop import Images, outputs
from .models import activations

TIE = 1e-9
"""Distance to a boundary, in codes, below which float64 may decide either way (its error here is about 1e-14)."""


@dataclass(frozen=True)
class Comparison:
    """Of ``samples``, ``equal`` had the same scores; floats cannot decide ``ties`` activations, in ``tied_samples``;
    ``unexplained`` samples differ without a tie; ``correct`` were classified right by the integer network."""

    samples: int
    equal: int
    ties: int
    tied_samples: int
    unexplained: int
    correct: int

    @property
    def exact(self) -> bool:
        """Whether every sample without a tie had equal scores."""
        return self.unexplained == 0

    @property
    def accuracy(self) -> float:
        """Accuracy of the integer network."""
        return self.correct / self.samples

    def __str__(self) -> str:
        return f"integer model == torch model on {self.equal}/{self.samples} samples, ties {self.ties}"


@torch.no_grad()
def compare(model: nn.Sequential, network: Network, images: Images, pixels: Tensor, labels: Tensor) -> Comparison:
    """Compare all scores that golden computes for ``network`` with those of ``model`` in float64.

    ``pixels`` are uint8 ``(N, H, W)``; the float scores are divided by the scale recorded in ``network.info``.
    """
    exact = copy.deepcopy(model).double()
    found: list[Tensor] = []  # ties of every sample, batch by batch

    def count(activation: Any, args: tuple[Tensor, ...]) -> None:
        steps = args[0] / activation.scale + 0.5
        boundary = steps.round().clamp(1, activation.top)
        found[-1] += ((steps - boundary).abs() < TIE).reshape(len(steps), -1).sum(1)

    exact.register_forward_pre_hook(lambda _, args: found.append(torch.zeros(len(args[0]), dtype=torch.int64)))
    for activation in activations(exact):
        activation.register_forward_pre_hook(count)
    unit = network.info["scales"][network.weighted[-1].name]["output"]
    floats = outputs(exact, images, pixels, torch.float64) / unit
    ties = torch.cat(found).numpy()
    integers = golden.evaluate(network, pixels[..., None].numpy())
    same = (floats.round().numpy() == integers).all(axis=1)
    right = integers.argmax(axis=1) == labels.numpy()
    return Comparison(len(pixels), int(same.sum()), int(ties.sum()), int((ties > 0).sum()),
                      int((~same & (ties == 0)).sum()), int(right.sum()))
