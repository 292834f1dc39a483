"""The training loop: float, pruned and quantised epochs; every epoch ends with a checkpoint from which a run continues.

A run is a function of recipe, data, torch version and number of processes only: order and augmentation of epoch n come
from a generator seeded with (seed, n), so an interrupted run that is started again ends with the same weights, bit for
bit.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lutq_hw.errors import InputError

from . import distributed, pruning
from .augment import augment
from .datasets import Dataset
from .edges import InputCodes
from .heterogeneous import Teacher
from .method import progress as tell_progress
from .method import quantizer_of, source_of, update
from .norm import power_of_two_norms
from .quantize import quantize
from .recipe import Recipe

CALIBRATION = 1024
"""Training images that fit the first activation scales."""

LOSS_BATCHES, LOSS_BATCH = 16, 64
"""Training images for second derivatives: 1,024 suffice (Choi et al., section 4.3)."""

WARM_UP = 0.05
"""Part of a phase in which the learning rate climbs."""

MASK_STEPS = 20
"""Optimiser steps between two choices of the pruned weights."""

TEMPERATURE = 2.0
"""Of the softmax under which the outputs of float and quantised network are compared."""

Progress = Callable[[int, float, float], None]
"""Called within an epoch with (epoch, part done 0..1, loss)."""


@dataclass
class State:
    """A run between two epochs: everything a checkpoint holds."""

    recipe: Recipe
    model: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    epoch: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    start_accuracy: float | None = None
    teacher: Teacher | None = None

    @property
    def epochs(self) -> int:
        """Epochs of the whole schedule."""
        return self.recipe.training.epochs

    @property
    def float_accuracy(self) -> float | None:
        """Test accuracy at the end of the float epochs, or of the weights to start from."""
        entries = [entry["test_accuracy"] for entry in self.metrics
                   if entry["phase"] == "float" and "test_accuracy" in entry]
        return entries[0] if entries else self.start_accuracy


class Images:
    """A data set as tensors, and its uint8 images as network input ``code * input scale``.

    ``other`` holds the images that the quantised epochs train on where the recipe says ``data_from``.
    """

    def __init__(self, data: Dataset, recipe: Recipe, device: torch.device | None = None,
                 other: Dataset | None = None) -> None:
        self.device = device or torch.device("cpu")
        keep = len(data.train_images) - recipe.training.holdout
        self.codes = input_codes(data, recipe)
        self.table = torch.from_numpy(data.encode(recipe.input_bits)).to(torch.int16)
        self.background, self.name = data.background, data.name
        self.train = _pair(data.train_images[:keep], data.train_labels[:keep])
        self.held = _pair(data.train_images[keep:], data.train_labels[keep:])
        self.test = _pair(data.test_images, data.test_labels)
        self.other = None if other is None else _pair(other.train_images, other.train_labels)[0]
        if other is not None and (other.shape, other.peak) != (data.shape, data.peak):
            raise InputError(f"data_from must have images of shape {data.shape} with values up to {data.peak} like "
                             f"{data.name}, but those of {other.name} are {other.shape}, up to {other.peak}")

    def seen(self, phase: str) -> Tensor:
        """The images that the epochs of ``phase`` train on."""
        return self.train[0] if self.other is None or phase != "quantized" else self.other

    def input(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Network input ``(B, C, H, W)`` of uint8 images ``(B, H, W, C)``."""
        values = (self.table[images.int()].to(dtype) * self.codes.scale).to(self.device)
        # One channel: strides that could be read as channels-last make convolutions sum in another order.
        return values[..., 0][:, None] if values.shape[3] == 1 else values.permute(0, 3, 1, 2).contiguous()

    def batches(self, images: Tensor, size: int = 100) -> Iterator[Tensor]:
        """All of ``images`` as float64 input, for `verify.compare`."""
        return (self.input(part, torch.float64) for part in images.split(size))


def _pair(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.copy())  # copies: files are read-only


def input_codes(data: Dataset, recipe: Recipe) -> InputCodes:
    """How an image enters the network of ``recipe``."""
    bits = recipe.input_bits
    return InputCodes(bits, data.input_scale(bits), data.signed, data.encode(bits))


def begin(recipe: Recipe, data: Dataset) -> State:
    """A fresh run; `start` gives it the weights of the recipe's ``start``.

    Raises
    ------
    InputError
        If recipe and data do not fit together.
    """
    holdout, count = recipe.training.holdout, len(data.train_images)
    if holdout > count - 2:
        raise InputError(f"training.holdout must leave images to train on, not keep {holdout} of {count}")
    if min(recipe.training.batch, count - holdout) < 2 * distributed.world():
        raise InputError(f"training.batch must give each of {distributed.world()} processes two images or more, but it is "
                         f"{recipe.training.batch}, and there are {count - holdout} to train on")
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    device = distributed.device()
    model = recipe.model.build(data.shape, data.classes).to(device)
    return State(recipe, model, make_optimizer(model, recipe), device)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW or SGD over all parameters; `run_epoch` sets the learning rate, times each group's ``factor``."""
    # Decay pulls on weights only: matrices and kernels, not scales and shifts.
    slow = {id(p): factor for module in model.modules() for name, factor in getattr(module, "rates", {}).items()
            if (p := getattr(module, name, None)) is not None}
    parameters = [p for p in model.parameters() if p.requires_grad]
    decay = recipe.training.weight_decay
    groups = [{"params": [p for p in parameters if p.ndim > 1 and id(p) not in slow], "weight_decay": decay},
              {"params": [p for p in parameters if p.ndim <= 1 and id(p) not in slow], "weight_decay": 0.0}]
    for factor in sorted(set(slow.values())):
        groups.append({"params": [p for p in parameters if slow.get(id(p)) == factor], "weight_decay": 0.0,
                       "factor": factor})
    groups = [{"factor": 1.0, **group} for group in groups if group["params"]]
    if recipe.training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def rate(done: float, peak: float) -> float:
    """Learning rate after the part ``done`` of a phase."""
    return peak * min(done / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * done))


def enter_phase(state: State, images: Images, name: str, *, restoring: bool = False) -> None:
    """Change the network as the phase ``name`` wants it: masks, then quantisers; a new optimiser for each phase.

    ``restoring`` gives a fresh network the structure only, for a checkpoint to be loaded into it.
    """
    recipe, model = state.recipe, state.model
    if name == "pruned" or (name == "quantized" and recipe.pruning.ratio
                            and (restoring or not recipe.training.pruned_epochs)):
        pruning.attach(model)
        if restoring:  # methods that are attached once, to pruned weights, shall find some
            pruning.prune(model, recipe.pruning.ratio, recipe.pruning.scope)
    if name == "quantized":
        if recipe.training.distill or recipe.data_from:
            state.teacher = Teacher(model)
        if recipe.norm == "power_of_two":
            power_of_two_norms(model)
        model.train()
        sample = images.input(images.seen(name)[:2 if restoring else CALIBRATION])
        quantize(model, recipe.weights, activations=recipe.activation_options, example=sample,
                 overrides=recipe.layers, input_scale=images.codes.scale, residual_bits=recipe.residual_bits,
                 losses=lambda: _losses(state, images), optimizer=state.optimizer, loading=restoring)
    state.optimizer = make_optimizer(model, recipe)


def rehearse(state: State, images: Images) -> None:
    """Quantise a copy of the network, so that what cannot be done is known before any training.

    Raises
    ------
    InputError
        If the recipe's methods and layers do not fit the network.
    """
    with torch.random.fork_rng():
        enter_phase(replace(state, model=copy.deepcopy(state.model)), images, "quantized", restoring=True)


def _losses(state: State, images: Images) -> Iterator[Tensor]:
    """Losses of some training images, in evaluation mode as the finished network works."""
    was = state.model.training
    state.model.eval()
    pixels, labels = images.seen("quantized"), images.train[1]
    for begin in range(0, min(len(pixels), LOSS_BATCHES * LOSS_BATCH), LOSS_BATCH):
        scores = state.model(images.input(pixels[begin:begin + LOSS_BATCH]))
        # Other images have no labels of this network's classes: its own answers take their place.
        wanted = labels[begin:begin + LOSS_BATCH].to(state.device) if images.other is None else scores.argmax(1)
        yield F.cross_entropy(scores, wanted)
    state.model.train(was)


def run_epoch(state: State, images: Images, progress: Progress | None = None) -> None:
    """Train one epoch, append its metrics; the first of a phase changes the network (`enter_phase`)."""
    recipe, training, began = state.recipe, state.recipe.training, time.monotonic()
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + state.epoch)
    name, first, length = training.phase(state.epoch)
    if state.epoch == first and name != "float":
        enter_phase(state, images, name)
    pixels = images.seen(name)
    labels = images.train[1] if pixels is images.train[0] else None
    order = torch.randperm(len(pixels), generator=generator)
    batch = min(training.batch, len(pixels))
    steps, total = len(order) // batch, 0.0
    state.model.train()
    for step in range(steps):
        done = (state.epoch - first + step / steps) / length
        _set_rates(state.optimizer, rate(done, getattr(training, f"{name}_rate")))
        _advance(state, name, done, step, last=state.epoch + 1 == first + length and step + 1 == steps)
        chosen = order[step * batch:(step + 1) * batch]
        mine = slice(distributed.rank(), None, distributed.world())
        x = images.input(augment(pixels[chosen], recipe.augmentation, generator, images.background)[mine])
        targets = None if labels is None else labels[chosen][mine].to(state.device)
        loss = _loss(state, x, targets, quantized=name == "quantized")
        state.optimizer.zero_grad()
        loss.backward()
        distributed.average_gradients(state.model)
        state.optimizer.step()
        if name == "quantized":
            update(state.model)
        total += loss.item()
        if progress and step % 16 == 0:
            progress(state.epoch, step / steps, total / (step + 1))
    if name == "quantized" and state.epoch + 1 == state.epochs:
        tell_progress(state.model, 1.0)
    distributed.agree(*state.model.buffers())
    loss = distributed.mean(total / steps)
    if not math.isfinite(loss):
        raise InputError(f"the loss of epoch {state.epoch + 1} must be a finite number, not {loss}: the training has "
                         f"diverged; take a lower training.{name}_rate than {getattr(training, f'{name}_rate')} in a new run")
    state.epoch += 1
    _measure(state, images, name, loss, began)


def _set_rates(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def _advance(state: State, name: str, done: float, step: int, *, last: bool) -> None:
    """Schedules within a phase: the pruned part, and what methods change in the course of training."""
    recipe = state.recipe
    pruned = "pruned" if recipe.training.pruned_epochs else "quantized"
    due = recipe.pruning.ratio and name == pruned and (last or step % MASK_STEPS == 0)
    # Once the ratio is reached, masks stay: what they hide drifts with nothing to hold it, and would displace the rest.
    if due and not pruning.reached(state.model, recipe.pruning.ratio, recipe.pruning.scope):
        pruning.prune(state.model, recipe.pruning.ratio if last else recipe.pruning.ratio_at(done), recipe.pruning.scope)
    if name == "quantized" and step % MASK_STEPS == 0:
        tell_progress(state.model, done)


def _loss(state: State, x: Tensor, labels: Tensor | None, *, quantized: bool) -> Tensor:
    """Cross entropy; with a teacher, mixed with the divergence from its outputs (Hinton et al., arXiv 1503.02531).

    Without labels, the mean squared difference from the teacher's outputs alone (QIL, section 4.3).
    """
    training = state.recipe.training
    half = state.recipe.precision == "bfloat16"
    with torch.autocast(state.device.type, torch.bfloat16) if half else contextlib.nullcontext():
        scores = state.model(x)
        wanted = None
        if quantized and state.teacher is not None:
            wanted = state.teacher.outputs(x).float()
    scores = scores.float()
    if labels is None:
        assert wanted is not None
        return F.mse_loss(scores, wanted)
    loss = F.cross_entropy(scores, labels, label_smoothing=training.smoothing)
    if wanted is None:
        return loss
    soft = F.kl_div(F.log_softmax(scores / TEMPERATURE, 1), F.log_softmax(wanted / TEMPERATURE, 1), log_target=True,
                    reduction="batchmean") * TEMPERATURE**2
    return (1 - training.distill) * loss + training.distill * soft


def _measure(state: State, images: Images, name: str, loss: float, began: float) -> None:
    """Append the metrics of the epoch that has just ended."""
    training = state.recipe.training
    entry: dict[str, Any] = {"epoch": state.epoch, "phase": name, "loss": round(loss, 6)}
    if len(images.held[0]):
        entry["held_out_accuracy"] = accuracy(state.model, images, images.held)
    if state.epoch in (training.float_epochs, state.epochs) and distributed.rank() == 0:
        # In float64: float32 sums would break ties between equal scores at random.
        entry["test_accuracy"] = accuracy(copy.deepcopy(state.model).double(), images, images.test, torch.float64)
    if state.recipe.pruning.ratio:
        entry["kept"] = round(pruning.kept(state.model), 6)
    if name == "quantized":
        entry["layers"] = layer_statistics(state.model)
    state.metrics.append(entry | {"seconds": round(time.monotonic() - began, 2)})


LISTED = 32
"""Largest dictionary whose values and usage are kept for every epoch."""


@torch.no_grad()
def layer_statistics(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Dictionary, usage and entropy of the indices of every quantised layer."""
    found: dict[str, dict[str, Any]] = {}
    for name, layer in model.named_modules():
        quantizer = quantizer_of(layer)
        if quantizer is None:
            continue
        coded = quantizer.coded(source_of(layer))
        values, usage = coded.values.unique(return_counts=True)
        share = usage.double() / usage.sum()
        entry: dict[str, Any] = {"entropy": round(float(-(share * share.log2()).sum()) + 0.0, 4)}
        if len(values) <= LISTED:
            unit = float(quantizer.unit().double().mean())
            entry |= {"dictionary": [round(value * unit, 6) for value in values.tolist()], "usage": usage.tolist()}
        found[name] = entry
    return found


@torch.no_grad()
def outputs(model: nn.Module, images: Images, pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scores of the network in evaluation mode, batch by batch; ``model`` must be of type ``dtype``."""
    model.eval()
    return torch.cat([model(images.input(part, dtype)).cpu() for part in pixels.split(1000)])


def accuracy(model: nn.Module, images: Images, pair: tuple[Tensor, Tensor],
             dtype: torch.dtype = torch.float32) -> float:
    """Part of the images in ``pair`` whose largest score is at their label; ``model`` must be of type ``dtype``."""
    right = outputs(model, images, pair[0], dtype).argmax(1) == pair[1]
    return int(right.sum()) / len(right)
