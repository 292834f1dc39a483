"""Tables of table-based neural units (arXiv 1906.04798): the activation table, and how small all of them are.

A unit adds entries of a product table, one for each pair of activation level and dictionary entry, to a bias, shifts
the sum right, and looks the next activation up in a table of ``N_x`` codes:

    code = codes[clamp((bias[o] + sum_j products[a_j, w_oj]) >> shift, 0, N_x - 1)]

Nothing is multiplied. US 11,488,016 and US 12,118,466 claim this datapath; the equal bank of thresholds is outside of
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np

from lutq_hw.network import (
    ActivationTable,
    Conv2d,
    Dense,
    Flatten,
    Input,
    MaxPool2d,
    Network,
    Thresholds,
    WeightNode,
)
from lutq_hw.network.tensor import signed_bits

LARGEST_TABLE = 4096
"""Most entries of an activation table that is still thought better than thresholds."""

LARGEST_SHIFT = 31
LARGEST_BIAS = 1 << 31


def activation_table(boundaries: Sequence[Sequence[int]], lowest: int, levels: int, *,
                     largest: int = LARGEST_TABLE) -> tuple[np.ndarray, int, np.ndarray] | None:
    """One activation table for all channels, with the largest shift that decides every integer sum alike.

    Parameters
    ----------
    boundaries
        For each channel ``levels - 1`` integers, not descending: the code is at least ``lowest + t`` where the channel's
        sum is at least ``boundaries[o][t - 1]``.
    lowest, levels
        The codes.
    largest
        Most entries of the table.

    Returns
    -------
    ``(codes, shift, offsets)``: ``code = codes[clamp((acc + offsets[o]) >> shift, 0, len(codes) - 1)]``. None where
    the distances between boundaries differ from channel to channel, or the table or an offset would be too large:
    thresholds then are the equal step function.
    """
    rows = np.array(boundaries, np.int64).reshape(len(boundaries), -1)
    if rows.shape[1] != levels - 1 or levels < 2:
        raise ValueError(f"boundaries must number {levels - 1} in every channel, not {rows.shape[1]}")
    steps = rows - rows[:, :1]
    if not (steps == steps[0]).all():
        return None
    common = gcd(*steps[0].tolist())
    shift = min((common & -common).bit_length() - 1, LARGEST_SHIFT) if common else 0
    # Entry 0 is all below the first boundary, which begins entry 1.
    starts = 1 + (steps[0] >> shift)
    offsets = (1 << shift) - rows[:, 0]
    if starts[-1] >= largest or np.abs(offsets).max() >= LARGEST_BIAS:
        return None
    codes = lowest + np.searchsorted(starts, np.arange(starts[-1] + 1), side="right")
    return codes.astype(np.int64), shift, offsets


@dataclass(frozen=True)
class LayerTable:
    """How compact one layer is.

    Parameters
    ----------
    name
        The layer.
    activations, weights
        ``N_a``, activation codes that can reach it, and ``N_w``, dictionary entries that it uses.
    entry_bits
        Width of a signed entry of the product table.
    steps
        ``N_x``, entries of its activation table; None where it has none.
    stored
        Entries that need a place of their own: zero rows and columns need none, and of two rows or columns that differ
        in sign only, or not at all, one is enough.
    """

    name: str
    activations: int
    weights: int
    entry_bits: int
    steps: int | None
    stored: int

    @property
    def entries(self) -> int:
        """``N_a * N_w``."""
        return self.activations * self.weights


@dataclass(frozen=True)
class Compactness:
    """Product tables of a network's layers; ``str`` gives a text table."""

    layers: tuple[LayerTable, ...]

    @property
    def largest(self) -> int:
        """Entries of the largest table: what one shared memory has to hold."""
        return max((layer.entries for layer in self.layers), default=0)

    @property
    def total(self) -> int:
        """Entries of all tables together."""
        return sum(layer.entries for layer in self.layers)

    def __str__(self) -> str:
        width = max(len("network"), *(len(layer.name) for layer in self.layers))
        lines = [f"{'layer':{width}}  N_a  N_w  entries  bits    N_x  stored"]
        for layer in self.layers:
            steps = "-" if layer.steps is None else layer.steps
            lines.append(f"{layer.name:{width}}  {layer.activations:3}  {layer.weights:3}  {layer.entries:7}  "
                         f"{layer.entry_bits:4}  {steps:>5}  {layer.stored:6}")
        stored = sum(layer.stored for layer in self.layers)
        lines.append(f"{'network':{width}}  largest table {self.largest} entries, all together {self.total}, "
                     f"stored {stored}")
        return "\n".join(lines)


def compactness(network: Network) -> Compactness:
    """Size of every layer's product table, as if every layer were table-based."""
    return Compactness(tuple(_layer_table(network, node) for node in network.weighted))


def _layer_table(network: Network, node: WeightNode) -> LayerTable:
    x = network.input_type(node)
    codes = _codes(network, node.input)
    if isinstance(node, Conv2d) and any(node.padding):
        codes = np.union1d(codes, [0])
    table = node.weights.flat.products(x)[0][codes - x.min]
    steps = len(node.step.values) if isinstance(node.step, ActivationTable) else None
    bits = signed_bits(int(table.min()), int(table.max()))
    return LayerTable(node.name, len(codes), table.shape[1], bits, steps, _distinct(table) * _distinct(table.T))


def _codes(network: Network, name: str) -> np.ndarray:
    """Codes that node ``name`` can give, ascending; its type has at most 8 bits."""
    node, x = network[name], network.types[name]
    if isinstance(node, MaxPool2d | Flatten):
        return _codes(network, node.input)
    if isinstance(node, Input):
        return x.levels if node.encode is None else np.unique(node.encode)
    step = getattr(node, "step", None)
    if isinstance(step, Thresholds):
        return x.min + np.arange(step.values.shape[1] + 1)
    return np.unique(step.values) if isinstance(step, ActivationTable) else x.levels


def _distinct(table: np.ndarray) -> int:
    """Number of rows of ``table`` that are not zero, each counted once with its negative."""
    rows = table[table.any(axis=1)]
    first = np.take_along_axis(rows, (rows != 0).argmax(axis=1)[:, None], axis=1)
    return len(np.unique(rows * np.sign(first), axis=0))


def multiply_free(network: Network) -> list[str]:
    """Names of the layers that need a multiplication by something that is no power of two; empty: multiply-free.

    A product table needs none, nor does anything else than weights: steps compare, shift or look up, adds shift.
    """
    return [node.name for node in network.weighted if not _only_powers(node)]


def _only_powers(node: Dense | Conv2d) -> bool:
    if node.weights.table is not None:
        return True
    sizes = np.abs(np.unique(node.weights.values))
    return not (sizes & (sizes - 1))[sizes > 0].any()
