"""What a node of a captured graph does in numbers, and which of it integer hardware can do.

`quantize` asks before it changes anything, `export` for the numbers themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from lutq_hw.errors import InputError

from .capture import Capture, Kind, source, where

Pair = tuple[int, int]
Window = tuple[Pair, Pair, Pair]
"""Kernel, stride and padding of a pool, each rows and columns."""


def check(capture: Capture, node: fx.Node) -> None:
    """Refuse a layer that no hardware is made for.

    Raises
    ------
    InputError
        With the node's name and what would do.
    """
    match capture.kind(node):
        case Kind.INPUT:
            _check_input(node)
        case Kind.WEIGHTS:
            _check_weighted(capture, node)
        case Kind.NORM:
            if getattr(capture.module(node), "running_mean", None) is None:
                raise InputError(f"{where(node)}: a batch norm must keep running statistics to be exported")
        case Kind.MAX_POOL:
            max_window(capture, node)
        case Kind.AVG_POOL:
            average_window(capture, node)
        case Kind.SLICE:
            slice_steps(capture, node)
        case Kind.PAD:
            padded_channels(capture, node)
        case _:
            pass


def _check_input(node: fx.Node) -> None:
    shape = node.meta["shape"]
    if len(shape) not in (2, 4):
        raise InputError(f"{node.target}: the input must be a batch of maps (B, C, H, W) or of vectors (B, N), not of "
                         f"shape {shape}")


def _check_weighted(capture: Capture, node: fx.Node) -> None:
    layer, shape = capture.module(node), source(node).meta["shape"]
    _check_weight(str(node.target), layer)
    if isinstance(layer, nn.Conv2d):
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros" or layer.dilation != (1, 1):
            raise InputError(f"{where(node)}: a convolution must have numeric zero padding and no dilation to be exported")
        if any(padding >= kernel for padding, kernel in zip(pair(layer.padding), layer.kernel_size, strict=True)):
            raise InputError(f"{where(node)}: a convolution must have a padding smaller than its kernel, not "
                             f"{layer.padding} with {layer.kernel_size}")
        if len(shape) != 4:
            raise InputError(f"{where(node)}: a Conv2d must read a batch of maps (B, C, H, W), not of shape {shape}")
    elif len(shape) != 2:
        raise InputError(f"{where(node)}: a Linear must read a batch of vectors (B, N), not of shape {shape}; put a "
                         "flatten in front of it")


def _check_weight(name: str, layer: nn.Module) -> None:
    """The weight must be one parameter, with stages of its own at most that are made of it alone, like pruning."""
    if parametrize.is_parametrized(layer, "weight"):
        weight = getattr(layer.parametrizations["weight"], "original", None)  # type: ignore[index]
    else:
        weight = layer._parameters.get("weight")
    if weight is None:
        raise InputError(f"{name}: its weight must be a parameter, which weight_norm or torch.nn.utils.prune has replaced; "
                         "undo that (parametrize.remove_parametrizations, prune.remove) before quantising")
    if weight.dtype not in (torch.float32, torch.float64):
        raise InputError(f"{name}: its weight must be float32 to be quantised, not {weight.dtype}; train in half precision "
                         "with torch.autocast")


def clamp_bounds(capture: Capture, node: fx.Node) -> tuple[float | None, float | None]:
    """Least and greatest value that a ReLU or another clamp lets through; None for no bound."""
    if capture.kind(node) is Kind.RELU:
        return 0.0, None
    if node.op == "call_module":
        module: Any = capture.module(node)
        return float(module.min_val), float(module.max_val)
    if node.target is F.relu6:
        return 0.0, 6.0
    names, defaults = (("min_val", "max_val"), (-1.0, 1.0)) if node.target is F.hardtanh else (("min", "max"), (None, None))
    low, high = (capture.argument(node, n, key, default)
                 for n, (key, default) in enumerate(zip(names, defaults, strict=True), 1))
    for bound in (low, high):
        if not isinstance(bound, int | float | None):
            raise InputError(f"{where(node)}: the bounds of a clamp must be numbers to be exported")
    return None if low is None else float(low), None if high is None else float(high)


def max_window(capture: Capture, node: fx.Node) -> Window:
    """Window of a max-pool."""
    _check_maps(node, "a max-pool")
    module: Any = capture.module(node) if node.op == "call_module" else None
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    kernel, stride, padding, dilation, ceil = (
        getattr(module, key) if module else capture.argument(node, n, key, default)
        for n, (key, default) in enumerate(zip(names, (None, None, 0, 1, False), strict=True), 1))
    if pair(dilation) != (1, 1) or ceil:
        raise InputError(f"{where(node)}: a max-pool must have no dilation and no ceil_mode to be exported")
    return pair(kernel), pair(stride or kernel), pair(padding)


def average_window(capture: Capture, node: fx.Node) -> Window:
    """Window of an average-pool, of an adaptive one, or of a mean over the whole map."""
    _check_maps(node, "an average-pool")
    height, width = source(node).meta["shape"][2:]
    if node.target in ("mean", torch.mean):
        return (height, width), (1, 1), (0, 0)
    module: Any = capture.module(node) if node.op == "call_module" else None
    if isinstance(module, nn.AdaptiveAvgPool2d) or node.target is F.adaptive_avg_pool2d:
        out = node.meta["shape"][2:]
        if height % out[0] or width % out[1]:
            raise InputError(f"{where(node)}: an adaptive average-pool must divide its map of {height} x {width} "
                             f"evenly, not into {out[0]} x {out[1]}")
        kernel = height // out[0], width // out[1]
        return kernel, kernel, (0, 0)
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    kernel, stride, padding, ceil, include, divisor = (
        getattr(module, key) if module else capture.argument(node, n, key, default)
        for n, (key, default) in enumerate(zip(names, (None, None, 0, False, True, None), strict=True), 1))
    if ceil or divisor or (any(pair(padding)) and not include):
        raise InputError(f"{where(node)}: an average-pool must have no ceil_mode, no divisor_override and no padding "
                         "that it leaves out of the mean")
    return pair(kernel), pair(stride or kernel), pair(padding)


def _check_maps(node: fx.Node, what: str) -> None:
    shape = source(node).meta["shape"]
    if len(shape) != 4:
        raise InputError(f"{where(node)}: {what} must read a batch of maps (B, C, H, W), not of shape {shape}")


def slice_steps(capture: Capture, node: fx.Node) -> Pair:
    """Every how many rows and columns a slice takes."""
    key = capture.argument(node, 1, "index", None)
    steps = [s.step or 1 for s in key if isinstance(s, slice) and s.start in (None, 0) and s.stop is None] \
        if isinstance(key, tuple) else []
    if len(steps) != 4 or len(key) != 4 or steps[:2] != [1, 1]:
        raise InputError(f"{where(node)}: a slice must only skip rows and columns, like x[:, :, ::2, ::2]")
    return steps[2], steps[3]


def padded_channels(capture: Capture, node: fx.Node) -> Pair:
    """How many channels of zeros a pad puts in front and behind."""
    pads = tuple(capture.argument(node, 1, "pad", ()))
    mode = capture.argument(node, 2, "mode", "constant")
    value = capture.argument(node, 3, "value", 0) or 0
    if len(pads) != 6 or any(pads[:4]) or value or min(pads) < 0 or mode != "constant":
        raise InputError(f"{where(node)}: a pad must only add channels of zeros in front of an add; zeros around a map are "
                         "the padding of the layer behind it, the same on opposite sides")
    return pads[4], pads[5]


def pair(value: Any) -> Pair:
    """Rows and columns, of PyTorch's one number for both or a sequence."""
    if isinstance(value, int):
        return value, value
    return (int(value[0]), int(value[1])) if len(value) > 1 else (int(value[0]), int(value[0]))
