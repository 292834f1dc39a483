"""Weights as a small dictionary and one index for each weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .tensor import Ints, TensorType, integers, magnitude, require

MAX_ENTRIES = 256
MAX_GROUPS = 256
MAX_VALUE = 1 << 20
MAX_OUTPUTS = 1 << 16
_BLOCK = 1 << 18  # indices handled at a time, so that 64-bit intermediates of byte arrays stay small


@dataclass(frozen=True, eq=False)
class Codebook:
    """Dictionary and assignments of one layer: the product of term j is ``T_g(j)[a_j, w_oj]`` (DESIGN, section 2).

    Parameters
    ----------
    assignments
        Index of every weight, ``(O, ...)``: ``(O, N)`` for `Dense`, ``(O, kh, kw, C/groups)`` for `Conv2d`.
    dictionary
        ``(K,)`` or ``(G, K)`` integer values; the product is then level x value. LUT-Q, arXiv 1811.05355.
    table
        ``(L, K)`` or ``(G, L, K)`` integer products, for layers whose product is not a multiplication (table-based
        neural units, arXiv 1906.04798). Row ``a - type.min`` belongs to activation ``a``. Exactly one of
        ``dictionary`` and ``table`` is given.
    subgroups
        Subgroup of every term, shape ``assignments.shape[1:]``, values below G (SYQ, arXiv 1807.00301: layer, row,
        pixel); zeros when absent.

    Raises
    ------
    ModelError
        If a shape, an index, a subgroup or a value is out of range.
    """

    assignments: Any
    dictionary: Any = None
    table: Any = None
    subgroups: Any = None

    def __post_init__(self) -> None:
        assignments = integers(self.assignments, "assignments", dtype=np.uint8)
        require(assignments.ndim in (2, 4) and assignments.size > 0,
                f"assignments must have 2 or 4 axes and no empty one, not shape {assignments.shape}")
        require(len(assignments) <= MAX_OUTPUTS,
                f"assignments must have at most {MAX_OUTPUTS} outputs, not {len(assignments)}")
        require((self.dictionary is None) != (self.table is None),
                "weights must have exactly one of dictionary and table")
        if self.dictionary is not None:
            entries = integers(self.dictionary, "dictionary")
            entries = entries[None] if entries.ndim == 1 else entries
            require(entries.ndim == 2, f"dictionary must have shape (K,) or (G, K), not {entries.shape}")
            object.__setattr__(self, "dictionary", entries)
        else:
            entries = integers(self.table, "table")
            entries = entries[None] if entries.ndim == 2 else entries
            require(entries.ndim == 3, f"table must have shape (L, K) or (G, L, K), not {entries.shape}")
            object.__setattr__(self, "table", entries)
        what = "dictionary" if self.table is None else "table"
        groups, count = entries.shape[0], entries.shape[-1]
        require(1 <= count <= MAX_ENTRIES, f"{what} must have 1 to {MAX_ENTRIES} entries, not {count}")
        require(1 <= groups <= MAX_GROUPS, f"{what} must have 1 to {MAX_GROUPS} subgroups, not {groups}")
        require(entries.size > 0, f"{what} must not be empty")
        limit = magnitude(entries)
        require(limit <= MAX_VALUE, f"{what} must hold values up to {MAX_VALUE} in magnitude, not {limit}")
        largest = int(assignments.max())
        require(largest < count, f"assignments must be below K = {count}, not {largest}")
        subgroups = np.zeros(assignments.shape[1:], np.uint8) if self.subgroups is None else self.subgroups
        subgroups = integers(subgroups, "subgroups", dtype=np.uint8)
        require(subgroups.shape == assignments.shape[1:],
                f"subgroups must have the shape of one output's terms {assignments.shape[1:]}, not {subgroups.shape}")
        largest = int(subgroups.max())
        require(largest < groups, f"subgroups must be below G = {groups}, not {largest}")
        object.__setattr__(self, "assignments", assignments)
        object.__setattr__(self, "subgroups", subgroups)

    @property
    def entries(self) -> int:
        """K, the dictionary size."""
        return int((self.dictionary if self.table is None else self.table).shape[-1])

    @property
    def groups(self) -> int:
        """G, the number of subgroups."""
        return int((self.dictionary if self.table is None else self.table).shape[0])

    @property
    def index_bits(self) -> int:
        """Bits of one stored index, at least 1."""
        return max(1, (self.entries - 1).bit_length())

    @cached_property
    def values(self) -> Ints:
        """The weight values ``dictionary[subgroup, assignment]``, shape of ``assignments``; dictionary only."""
        require(self.table is None, "values exist for a dictionary only, not for a product table")
        return self.dictionary[np.broadcast_to(self.subgroups, self.assignments.shape), self.assignments]

    def products(self, x: TensorType) -> Ints:
        """The product table ``(G, L, K)`` for activations of type ``x``."""
        if self.table is None:
            return x.levels[None, :, None] * self.dictionary[:, None, :]
        require(self.table.shape[1] == len(x.levels),
                f"table must have one row for each of the {len(x.levels)} activation levels, not {self.table.shape[1]}")
        return self.table

    @cached_property
    def flat(self) -> Codebook:
        """The same weights with one subgroup: every distinct entry once, ascending, unused ones dropped.

        This is what index ROMs hold; a layer with subgroups pays for it with wider indices.
        """
        group = np.broadcast_to(self.subgroups, self.assignments.shape).astype(np.int64)
        key = group * self.entries + self.assignments
        used = np.unique(key)
        if self.table is None:
            columns = self.dictionary.reshape(1, -1)[:, used]
        else:
            columns = np.moveaxis(self.table, 1, 0).reshape(self.table.shape[1], -1)[:, used]
        distinct, inverse = np.unique(columns, axis=1, return_inverse=True)
        require(distinct.shape[1] <= MAX_ENTRIES,
                f"subgroups must share at most {MAX_ENTRIES} distinct entries, not {distinct.shape[1]}")
        index = np.asarray(inverse).reshape(-1)[np.searchsorted(used, key)]
        if self.table is None:
            return Codebook(assignments=index, dictionary=distinct[0])
        return Codebook(assignments=index, table=distinct)

    def reordered(self, order: Sequence[int]) -> Codebook:
        """The same weights with entry ``order[n]`` at place n. An entry at several places is used at the first."""
        place = np.array([order.index(entry) for entry in range(self.entries)], np.uint8)
        entries = {"dictionary": self.dictionary[:, order]} if self.table is None else {"table": self.table[:, :, order]}
        return Codebook(assignments=place[self.assignments], subgroups=self.subgroups, **entries)

    def sum_range(self, x: TensorType) -> tuple[Ints, Ints]:
        """Smallest and largest Σ_j T_g(j)[a_j, w_oj] of every output, ``(O,)`` each, over all a of type ``x``."""
        key = x.bits, x.signed
        if key not in self._sum_ranges:
            self._sum_ranges[key] = self._sum_range(x)
        return self._sum_ranges[key]

    @cached_property
    def _sum_ranges(self) -> dict[tuple[int, bool], tuple[Ints, Ints]]:
        """`sum_range` by bits and sign of the activations: whoever plans asks again and again."""
        return {}

    def _sum_range(self, x: TensorType) -> tuple[Ints, Ints]:
        if self.table is None:
            extremes = np.array([x.min, x.max])[None, :, None] * self.dictionary[:, None, :]
        else:
            extremes = self.products(x)
        low, high = extremes.min(axis=1), extremes.max(axis=1)
        index = self.assignments.reshape(len(self.assignments), -1)
        group = self.subgroups.reshape(-1)
        lows, highs = np.zeros((2, len(index)), np.int64)
        columns = min(index.shape[1], _BLOCK)
        rows = _BLOCK // columns
        for top in range(0, index.shape[0], rows):
            for left in range(0, index.shape[1], columns):
                chosen = group[left:left + columns], index[top:top + rows, left:left + columns]
                lows[top:top + rows] += low[chosen].sum(axis=1)
                highs[top:top + rows] += high[chosen].sum(axis=1)
        return lows, highs

    @cached_property
    def usage(self) -> Ints:
        """How many weights use each index, ``(K,)``."""
        flat = self.assignments.reshape(-1)
        counts = np.zeros(self.entries, np.int64)
        for begin in range(0, flat.size, _BLOCK):
            counts += np.bincount(flat[begin:begin + _BLOCK], minlength=self.entries)
        return counts

    @cached_property
    def entropy(self) -> float:
        """Entropy of the indices in bits for each weight."""
        p = self.usage / self.assignments.size
        p = p[p > 0]
        return float(-(p * np.log2(p)).sum()) + 0.0
