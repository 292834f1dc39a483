"""Values on grids of powers of two: their units, look-ups in tables over a grid, and samples that choose them."""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor

TINY = 2.0**-60
"""Stands for the largest magnitude where everything is zero, so that no unit and no scale is ever zero."""


def power_unit(peak: Tensor, bits: int) -> Tensor:
    """The power of two in which the magnitude ``peak`` is an integer of ``bits`` bits with its highest bit set."""
    peak = peak.clamp(min=TINY)
    return peak / torch.frexp(peak).mantissa * 2.0**-bits  # exact: mantissa 1/2 to 1 times 2^e is the peak


def spread_sample(x: Tensor, most: int) -> Tensor:
    """At most ``most`` evenly spaced elements, flat; their distance divides no extent, so that no position is left out."""
    flat = x.reshape(-1)
    distance = -(-flat.numel() // most)
    while gcd(distance, flat.numel()) > 1:
        distance += 1
    return flat[::distance].contiguous() if distance > 1 else flat


def look_up(x: Tensor, step: Tensor, first: int, table: Tensor) -> Tensor:
    """``table[clamp(floor(x / step) - first)]``, as hardware does; exact where ``step`` is a power of two.

    Far cheaper than a bisection between boundaries. A NaN stays one.
    """
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    flat = x.permute(0, 2, 3, 1) if last else x.contiguous()
    # In place, because a fresh buffer costs more than the arithmetic; and counted from 1: place 0 holds what a NaN
    # becomes, whatever integer that is on this device.
    place = flat.float().div_(step) if x.element_size() == 2 else flat.div(step)
    place = place.floor_().add_(1 - first).clamp_(1, len(table))
    if place.dtype == torch.float32 and not torch.compiler.is_compiling():
        index = place.view(torch.int32).copy_(place)  # the integers take the place of the numbers, one by one
    else:
        index = place.to(torch.int32)
    padded = torch.cat([table.new_full((1,), torch.nan), table]).to(x.dtype)
    y = padded.index_select(0, index.clamp_(min=0).view(-1)).view(flat.shape)
    return y.permute(0, 3, 1, 2) if last else y
