"""Small networks as plain ``nn.Sequential``: convolutions and dense layers with batch norm and activation.

The names of the layers (conv1, fc1, ...) become the node names of the exported network.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lutq_hw.errors import InputError

from .activation import Activation
from .dictionary import Dictionary
from .quantizer import attach
from .recipe import ModelRecipe


def build(recipe: ModelRecipe, shape: tuple[int, int, int], classes: int, bits: int) -> nn.Sequential:
    """The float network of a recipe for images of ``shape`` (H, W, C); its input is ``(B, C, H, W)``.

    The last layer has no bias and no batch norm: its integer sums are the scores.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    height, width, channels = shape
    stages = zip(recipe.channels, recipe.kernels, recipe.strides, recipe.paddings, strict=True)
    for i, (count, kernel, stride, padding) in enumerate(stages, 1):
        layers[f"conv{i}"] = nn.Conv2d(channels, count, kernel, stride, padding, bias=False)
        layers[f"norm{i}"] = nn.BatchNorm2d(count)
        layers[f"act{i}"] = Activation(bits)
        height, width = ((n + 2 * padding - kernel) // stride + 1 for n in (height, width))
        if min(height, width) < 1:
            raise InputError(f"model.kernels[{i - 1}] must fit its input, not leave a map of {height} x {width}")
        channels = count
    layers["flatten"] = nn.Flatten()
    terms = channels * height * width
    for i, count in enumerate(recipe.hidden, 1):
        layers[f"fc{i}"] = nn.Linear(terms, count, bias=False)
        layers[f"fcnorm{i}"] = nn.BatchNorm1d(count)
        layers[f"fcact{i}"] = Activation(bits)
        terms = count
    layers["scores"] = nn.Linear(terms, classes, bias=False)
    return nn.Sequential(layers)


def activations(model: nn.Module) -> Iterator[Activation]:
    """Every activation of ``model``, in order."""
    return (layer for layer in model.modules() if isinstance(layer, Activation))


def quantize(model: nn.Module, dictionary: Dictionary, sample: Tensor) -> None:
    """Turn a trained float network into a quantised one: dictionaries by k-means, scales fitted to ``sample``."""
    attach(model, dictionary)
    for activation in activations(model):
        activation.calibrate()
    model.train()
    with torch.no_grad():
        model(sample)


def restore_quantized(model: nn.Module, dictionary: Dictionary) -> None:
    """Give a fresh network the structure of a quantised one, so that a checkpoint can be loaded into it."""
    attach(model, dictionary)
    for activation in activations(model):
        activation.restore()
