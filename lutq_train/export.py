"""A trained ``nn.Sequential`` as an integer `Network`; with `verify`, the only file that knows both worlds.

The model is a chain of Conv2d or Linear, each followed by an optional batch norm and an `Activation`, with MaxPool2d
and Flatten between; the last Linear has neither: its integer sums are the scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lutq_hw.errors import InputError
from lutq_hw.network import Codebook, Conv2d, Dense, Flatten, Input, MaxPool2d, Network, Node, Output, TensorType
from lutq_hw.network import Thresholds as ThresholdStep

from . import fold
from .activation import Activation
from .quantizer import LutQuantizer, quantizer_of

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def codebook(quantizer: LutQuantizer, map_shape: tuple[int, ...] | None) -> Codebook:
    """Dictionary and assignments as the hardware wants them: distinct used values ascending, channels last.

    ``map_shape`` is the (H, W, C) that a flatten in front of this layer has flattened: torch flattens (C, H, W).
    """
    values = quantizer.integers.double().numpy().round().astype(np.int64)
    weights = values[quantizer.assignments.numpy()]
    if weights.ndim == 4:
        weights = weights.transpose(0, 2, 3, 1)
    elif map_shape is not None:
        height, width, channels = map_shape
        weights = weights.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(weights), -1)
    dictionary, assignments = np.unique(weights, return_inverse=True)
    return Codebook(assignments=assignments.reshape(weights.shape), dictionary=dictionary)


def network(model: nn.Sequential, *, name: str, shape: tuple[int, int, int], input_bits: int, input_scale: float,
            encode: np.ndarray, info: Mapping[str, Any] | None = None) -> Network:
    """The integer network that computes what the quantised ``model`` computes in evaluation mode.

    Parameters
    ----------
    model
        Quantised chain of layers; children's names become node names.
    shape, input_bits, input_scale, encode
        Input (H, W, C); its codes stand for ``code * input_scale``; ``encode`` maps 256 pixel values to codes.
    info
        Provenance; ``scales`` is added: per layer the floats that the integers stand for.

    Raises
    ------
    InputError
        If the chain holds something that has no exact integer form, with the layer's name.
    """
    chain = _Chain(name, shape, input_bits, input_scale, encode)
    children = [(key, child) for key, child in model.named_children()]
    position = 0
    while position < len(children):
        key, layer = children[position]
        position += 1
        if isinstance(layer, nn.Linear | nn.Conv2d):
            norm = activation = None
            if position < len(children) and isinstance(children[position][1], BatchNorm):
                norm = children[position][1]
                position += 1
            if position < len(children) and isinstance(children[position][1], Activation):
                activation = children[position][1]
                position += 1
            chain.weighted(key, layer, norm, activation)  # type: ignore[arg-type]
        else:
            chain.plain(key, layer)
    return chain.finish({**(info or {}), "scales": chain.scales})


class _Chain:
    """The nodes so far, the node and float scale of the last one's codes."""

    def __init__(self, name: str, shape: tuple[int, int, int], bits: int, scale: float, encode: np.ndarray) -> None:
        self.name = name
        self.type = TensorType(shape, bits)
        self.nodes: list[Node] = [Input("image", self.type, encode=encode)]
        self.scale: Fraction | None = Fraction(scale)
        self.scales: dict[str, dict[str, float]] = {}
        self.flattened: tuple[int, ...] | None = None

    def _append(self, node: Node) -> None:
        self.nodes.append(node)
        self.type = node.output(self.type)  # type: ignore[call-arg]

    def plain(self, key: str, layer: nn.Module) -> None:
        previous = self.nodes[-1].name
        if isinstance(layer, nn.Flatten):
            self.flattened = self.type.shape
            self._append(Flatten(key, previous))
        elif isinstance(layer, nn.MaxPool2d):
            if layer.dilation not in (1, (1, 1)) or layer.ceil_mode:
                raise InputError(f"{key}: a max-pool must have no dilation and no ceil_mode to be exported")
            self._append(MaxPool2d(key, previous, layer.kernel_size, layer.stride, layer.padding))  # type: ignore[arg-type]
        else:
            raise InputError(f"{key}: a {type(layer).__name__} must follow a Linear or Conv2d (batch norm, then "
                             "Activation) or be a Flatten or MaxPool2d to be exported")

    def weighted(self, key: str, layer: nn.Linear | nn.Conv2d, norm: Any, activation: Activation | None) -> None:
        quantizer = quantizer_of(layer)
        if quantizer is None or (activation is not None and not activation.quantized):
            raise InputError(f"{key}: the layer must be quantised to be exported; train the quantised epochs first")
        if self.scale is None:
            raise InputError(f"{self.nodes[-1].name}: a layer without Activation must be the last one")
        if activation is None and (norm is not None or layer.bias is not None):
            raise InputError(f"{key}: the last layer must have neither bias nor batch norm, because its integer "
                             "sums are the scores")
        make: Any = self._conv if isinstance(layer, nn.Conv2d) else self._dense
        node = make(key, layer, quantizer, None)
        scales = {"input": float(self.scale), "weights": float(quantizer.scale)}
        unit = self.scale * Fraction(float(quantizer.scale))
        if activation is None:
            self.scale = None
            scales["output"] = float(unit)
        else:
            out = float(activation.scale.detach())
            low, high = node.sum_range(self.type)
            values, descending = fold.layer(
                norms(norm, node.outputs), unit=unit, biases=_floats(layer.bias, node.outputs, 0.0), scale=out,
                top=activation.top, low=low, high=high)
            step = ThresholdStep(values, bits=activation.top.bit_length(), descending=descending)
            node = make(key, layer, quantizer, step)
            self.scale = Fraction(out)
            scales["output"] = out
        self.scales[key] = scales
        self._append(node)

    def _conv(self, key: str, layer: nn.Conv2d, quantizer: LutQuantizer, step: ThresholdStep | None) -> Conv2d:
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros" or layer.dilation != (1, 1):
            raise InputError(f"{key}: a convolution must have numeric zero padding and no dilation to be exported")
        return Conv2d(key, self.nodes[-1].name, codebook(quantizer, None), step=step, stride=layer.stride,  # type: ignore[arg-type]
                      padding=layer.padding, groups=layer.groups)  # type: ignore[arg-type]

    def _dense(self, key: str, layer: nn.Linear, quantizer: LutQuantizer, step: ThresholdStep | None) -> Dense:
        flattened = self.flattened if isinstance(self.nodes[-1], Flatten) else None
        return Dense(key, self.nodes[-1].name, codebook(quantizer, flattened), step=step)

    def finish(self, info: Mapping[str, Any]) -> Network:
        if self.scale is not None:
            raise InputError(f"{self.nodes[-1].name}: the last layer must be a Linear without Activation")
        self.nodes.append(Output("output", self.nodes[-1].name))
        return Network(self.name, tuple(self.nodes), info)


def norms(norm: Any, channels: int) -> list[fold.Norm]:
    """Batch norm (or None) channel by channel, in evaluation mode."""
    if norm is None:
        return [fold.Norm()] * channels
    if norm.running_mean is None:
        raise InputError("a batch norm must keep running statistics to be exported")
    tensors = ((norm.weight, 1.0), (norm.bias, 0.0), (norm.running_mean, 0.0), (norm.running_var, 1.0))
    columns = (_floats(tensor, channels, default) for tensor, default in tensors)
    return [fold.Norm(*values, eps=norm.eps) for values in zip(*columns, strict=True)]


def _floats(tensor: Tensor | None, count: int, default: float) -> list[float]:
    return [default] * count if tensor is None else tensor.detach().to(torch.float64).tolist()
