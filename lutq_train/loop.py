"""The training loop: float epochs, then LUT-Q epochs; every epoch ends with a checkpoint from which a run continues.

A run is a function of recipe, data and torch version only: order and augmentation of epoch n come from a generator
seeded with (seed, n), so an interrupted run that is started again ends with the same weights, bit for bit.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lutq_hw.errors import InputError

from . import models
from .augment import augment
from .data import Dataset
from .quantizer import update
from .recipe import Recipe

CALIBRATION = 1024
"""Training images that fit the first activation scales."""

WARM_UP = 0.05
"""Part of a phase in which the learning rate climbs."""

Progress = Callable[[int, float, float], None]
"""Called within an epoch with (epoch, part done 0..1, loss)."""


@dataclass
class State:
    """A run between two epochs: everything a checkpoint holds."""

    recipe: Recipe
    model: nn.Sequential
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """Epochs of the whole schedule."""
        return self.recipe.training.float_epochs + self.recipe.training.quantized_epochs

    @property
    def float_accuracy(self) -> float | None:
        """Test accuracy at the end of the float epochs; None when there were none."""
        entries = [entry["test_accuracy"] for entry in self.metrics
                   if entry["phase"] == "float" and "test_accuracy" in entry]
        return entries[0] if entries else None

    @property
    def quantized(self) -> bool:
        """Whether the model's weights are dictionary values."""
        return self.epoch > self.recipe.training.float_epochs


class Images:
    """A data set as tensors, and its uint8 images as network input ``code * input_scale``."""

    def __init__(self, data: Dataset, recipe: Recipe) -> None:
        keep = len(data.train_images) - recipe.training.holdout
        self.table = torch.from_numpy(data.encode(recipe.input_bits)).to(torch.uint8)
        self.scale = input_scale(recipe)
        self.train = _pair(data.train_images[:keep], data.train_labels[:keep])
        self.held = _pair(data.train_images[keep:], data.train_labels[keep:])
        self.test = _pair(data.test_images, data.test_labels)

    def input(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Network input ``(B, 1, H, W)`` of uint8 images ``(B, H, W)``."""
        return (self.table[images.int()].to(dtype) * self.scale)[:, None]


def _pair(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.copy())  # copies: files are read-only


def input_scale(recipe: Recipe) -> float:
    """Value of one input code; a power of two, so that codes are exact in every float type."""
    return 2.0 ** -recipe.input_bits


def begin(recipe: Recipe, data: Dataset) -> State:
    """A fresh run.

    Raises
    ------
    InputError
        If recipe and data do not fit together.
    """
    holdout, count = recipe.training.holdout, len(data.train_images)
    if holdout > count - 2:
        raise InputError(f"training.holdout must leave images to train on, not keep {holdout} of {count}")
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    model = models.build(recipe.model, (*data.train_images.shape[1:3], 1), data.classes, recipe.activation_bits)
    return State(recipe, model, make_optimizer(model, recipe))


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over all parameters; `run_epoch` sets the learning rate."""
    # Decay pulls on weights only: matrices and kernels, not scales and shifts.
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    decay = recipe.training.weight_decay
    groups = [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def rate(done: float, peak: float) -> float:
    """Learning rate after the part ``done`` of a phase."""
    return peak * min(done / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * done))


def run_epoch(state: State, images: Images, progress: Progress | None = None) -> None:
    """Train one epoch, append its metrics; the first quantised epoch starts by quantising the float network."""
    recipe, training, began = state.recipe, state.recipe.training, time.monotonic()
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + state.epoch)
    quantized = state.epoch >= training.float_epochs
    if state.epoch == training.float_epochs:
        models.quantize(state.model, recipe.weights, images.input(images.train[0][:CALIBRATION]))
        state.optimizer = make_optimizer(state.model, recipe)
    first, length = (training.float_epochs, training.quantized_epochs) if quantized else (0, training.float_epochs)
    peak = training.quantized_rate if quantized else training.float_rate
    pixels, labels = images.train
    order = torch.randperm(len(pixels), generator=generator)
    batch = min(training.batch, len(pixels))
    steps = len(order) // batch
    total = 0.0
    state.model.train()
    for step in range(steps):
        lr = rate((state.epoch - first + step / steps) / length, peak)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        chosen = order[step * batch:(step + 1) * batch]
        x = images.input(augment(pixels[chosen], training, generator))
        loss = cross_entropy(state.model(x), labels[chosen])
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        if quantized:
            update(state.model)
        total += loss.item()
        if progress and step % 16 == 0:
            progress(state.epoch, step / steps, total / (step + 1))
    state.epoch += 1
    entry: dict[str, Any] = {"epoch": state.epoch, "phase": "quantized" if quantized else "float",
                             "loss": round(total / steps, 6)}
    if len(images.held[0]):
        entry["held_out_accuracy"] = accuracy(state.model, images, images.held)
    if state.epoch in (training.float_epochs, state.epochs):
        # In float64: float32 sums would break ties between equal scores at random.
        entry["test_accuracy"] = accuracy(copy.deepcopy(state.model).double(), images, images.test, torch.float64)
    state.metrics.append(entry | {"seconds": round(time.monotonic() - began, 2)})


@torch.no_grad()
def outputs(model: nn.Module, images: Images, pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scores of the network in evaluation mode, batch by batch; ``model`` must be of type ``dtype``."""
    model.eval()
    return torch.cat([model(images.input(part, dtype)) for part in pixels.split(1000)])


def accuracy(model: nn.Module, images: Images, pair: tuple[Tensor, Tensor],
             dtype: torch.dtype = torch.float32) -> float:
    """Part of the images in ``pair`` whose largest score is at their label; ``model`` must be of type ``dtype``."""
    right = outputs(model, images, pair[0], dtype).argmax(1) == pair[1]
    return int(right.sum()) / len(right)
