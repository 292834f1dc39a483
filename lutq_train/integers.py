"""Layers of a torch network in integers: dictionaries and tables, batch norms, and the steps that make codes of sums."""

from __future__ import annotations

import copy
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lutq_hw.errors import InputError
from lutq_hw.network import ActivationTable, Codebook, Conv2d, Dense, Node, Shift, Thresholds
from lutq_hw.network.steps import Step

from . import fold
from .edges import Codes, Levels, Sums
from .method import ActivationQuantizer, CodedWeights
from .norm import PowerOfTwoNorm1d, PowerOfTwoNorm2d
from .table import activation_table

FAR = 1 << 40
"""Beyond every integer sum."""


def codebook(coded: CodedWeights, codes: Codes, padded: bool, name: str) -> tuple[Codebook, Fraction]:
    """Dictionary or product table and assignments, channels last; and what an activation's 1 stands for.

    A layer whose input levels are not uniform, or whose method asks for it, gets a product table.
    """
    def last(tensor: Tensor) -> np.ndarray:
        values = tensor.cpu().numpy()
        if tensor.ndim >= 3:
            return np.moveaxis(values, -3, -1)
        if codes.map_shape is None:
            return values
        return values[..., channels_last(codes.map_shape)]

    integers = coded.integers.cpu().numpy().astype(np.int64)
    if coded.subgroups is None:
        values, assignments = np.unique(weights := last(coded.values), return_inverse=True)
        integers, subgroups, assignments = values[None], None, assignments.reshape(weights.shape)
    else:
        assignments, subgroups = last(coded.assignments), last(coded.subgroups)
    if codes.levels.uniform and not coded.table:
        return Codebook(assignments, integers, subgroups=subgroups), codes.levels.unit
    rows = codes.levels.rows(codes.type)
    if padded and rows[-codes.type.min] != 0:
        raise InputError(f"{name}: padding inserts code 0, which must stand for the value 0; use a method whose levels "
                         "have a zero, or no padding")
    return Codebook(assignments, table=rows[None, :, None] * integers[:, None, :], subgroups=subgroups), codes.levels.unit


def with_table(sums: Sums, quantizer: ActivationQuantizer, levels: Levels) -> Node | None:
    """The layer with an activation table, where it is a table-based unit and its channels can share one."""
    if sums.table is None or sums.low is not None or sums.high is not None or any(a.a <= 0 for a in sums.affines):
        return None
    boundaries = quantizer.boundaries()
    rows = [fold.channel(affine, boundaries, -FAR, FAR)[0] for affine in sums.affines]
    found = activation_table(rows, levels.lowest, len(levels.integers))
    if found is None:
        return None
    values, shift, offsets = found
    type_ = levels.type((1,))
    return sums.table(sums.name, ActivationTable(values, shift, type_.bits, type_.signed), offsets)


def conv(layer: nn.Conv2d, codes: Codes, book: Codebook) -> Callable[[str, Step | None], Conv2d]:
    """What makes the node of a convolution."""
    return lambda name, step: Conv2d(name, codes.name, book, step=step, stride=layer.stride,  # type: ignore[arg-type]
                                     padding=layer.padding, groups=layer.groups)  # type: ignore[arg-type]


def dense(codes: Codes, book: Codebook, bias: Tensor | None) -> Callable[[str, Step | None], Dense]:
    """What makes the node of a dense layer; ``bias`` holds integers."""
    integers = None if bias is None else bias.long().cpu().numpy()
    return lambda name, step: Dense(name, codes.name, book, bias=integers, step=step)


def channels_last(map_shape: tuple[int, int, int]) -> np.ndarray:
    """Places in torch's flattened (C, H, W) of the elements of a map (H, W, C)."""
    height, width, channels = map_shape
    return np.arange(height * width * channels).reshape(channels, height, width).transpose(1, 2, 0).reshape(-1)


def scalar(scales: tuple[Fraction, ...]) -> float | list[float]:
    """Scales of the output channels as floats: one number where they are equal."""
    return float(scales[0]) if len(set(scales)) == 1 else [float(scale) for scale in scales]


def as_shift(step: Thresholds, low: np.ndarray, high: np.ndarray) -> Shift | None:
    """The shift that decides the same for all sums from ``low`` to ``high``, if there is one."""
    codes = np.arange(1, 1 << step.bits) - (1 << (step.bits - 1) if step.signed else 0)
    if step.descending.any() or step.values.shape[1] != len(codes):
        return None
    for shift in range(20):
        wanted = (codes << shift) - ((1 << shift) >> 1)
        if (np.clip(wanted, low[:, None], high[:, None] + 1) == step.values).all():
            return Shift(shift, step.bits, step.signed)
    return None


def norms(norm: Any, channels: int) -> list[fold.Norm]:
    """A batch norm channel by channel, in evaluation mode."""
    tensors = ((norm.weight, 1.0), (norm.bias, 0.0), (norm.running_mean, 0.0), (norm.running_var, 1.0))
    columns = (_floats(tensor, channels, default) for tensor, default in tensors)
    slopes, eps = [None] * channels, norm.eps
    if isinstance(norm, PowerOfTwoNorm1d | PowerOfTwoNorm2d):
        slopes = copy.deepcopy(norm).double().slope().tolist()
    return [fold.Norm(*values, eps=eps, slope=slope) for *values, slope in zip(*columns, slopes, strict=True)]


def _floats(tensor: Tensor | None, count: int, default: float) -> list[float]:
    return [default] * count if tensor is None else tensor.detach().to(torch.float64).tolist()
