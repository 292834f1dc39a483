"""Reading only the terms whose weight is not zero: a schedule that is known when the hardware is built.

Each of ``pe`` lanes has its own list of positions in the window, those of its output channel's weights that are not
zero, and its own read port on the buffered rows. A position is stored as a step of kernel rows and a run of skipped
activations, as in Deep Compression (Han et al., arXiv 1510.00149, section 2), beside the weight's index. The lanes of a
group take as many cycles as the longest of their lists; a shorter one is filled up with positions whose weight is zero,
and so is a run that is too long for its bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np

from .balance import by_length
from .geometry import WindowGeometry
from .network import Codebook
from .network.tensor import Ints

MAX_RUN_BITS = 8
"""Widest run that is considered."""

SLOWER = 1.02
"""Cycles that a narrower run may cost, of the fewest: index memory is what pruned layers are short of."""


def zero_index(codebook: Codebook) -> int | None:
    """Index whose products are all zero, of weights with one subgroup; None if there is none."""
    entries = codebook.dictionary if codebook.table is None else codebook.table[0]
    (zeros,) = np.nonzero((entries == 0).all(axis=0))
    return int(zeros[0]) if len(zeros) else None


def reject(codebook: Codebook, groups: int) -> str | None:
    """Why only the non-zero weights of a layer cannot be read, as a sentence; None if they can."""
    zero = zero_index(codebook)
    if zero is None or not (codebook.assignments == zero).any():
        return "reading non-zero terms only needs weights that are zero, and none is"
    if groups > 1:
        return f"reading non-zero terms only needs a layer with one channel group, not {groups}"
    return None


def needed_positions(nonzero: np.ndarray, limit: int) -> np.ndarray:
    """Positions to read of one output: those that are not zero, and one wherever ``limit`` in a row are skipped.

    ``nonzero`` is ``(kernel rows, positions)``; the result has its shape. An output without weights reads one position.
    """
    needed = nonzero.copy()
    for row in needed:
        before = -1
        for at in np.flatnonzero(row).tolist():
            row[before + limit + 1:at:limit + 1] = True
            before = at
    if not needed.any():
        needed[0, 0] = True
    return needed


_lengths: WeakKeyDictionary[Codebook, dict[int, Ints]] = WeakKeyDictionary()


def needed_counts(codebook: Codebook, limit: int) -> Ints:
    """How many `needed_positions` every output has, ``(O,)``; remembered, since a planner asks for many array sizes."""
    known = _lengths.setdefault(codebook, {})
    if limit not in known:
        nonzero = _by_row(codebook) != zero_index(codebook)
        at = np.where(nonzero, np.arange(nonzero.shape[2]), -1)
        before = np.maximum.accumulate(np.pad(at, ((0, 0), (0, 0), (1, 0)), constant_values=-1), axis=2)[..., :-1]
        counts = np.where(nonzero, 1 + (at - before - 1) // (limit + 1), 0).sum(axis=(1, 2))
        known[limit] = np.maximum(1, counts)
    return known[limit]


def _by_row(codebook: Codebook) -> Ints:
    """Index of every weight, ``(O, kernel rows, positions)``: a position is kernel column x channels + channel."""
    index = codebook.assignments
    return index.reshape(len(index), index.shape[1] if index.ndim == 4 else 1, -1)


def row_bits(codebook: Codebook) -> int:
    """Bits of a step of kernel rows: enough for the most empty rows between two that are not."""
    used = (_by_row(codebook) != zero_index(codebook)).any(axis=2)
    at = np.where(used, np.arange(used.shape[1]), 0)
    before = np.maximum.accumulate(np.pad(at, ((0, 0), (1, 0))), axis=1)[:, :-1]
    return int(np.where(used, at - before, 0).max()).bit_length()


def run_bits(codebook: Codebook, pe: int) -> int:
    """Bits of a run: as few index memory as about the fewest cycles allow."""
    lane = codebook.index_bits + row_bits(codebook)
    counts = np.stack([needed_counts(codebook, (1 << bits) - 1) for bits in range(MAX_RUN_BITS + 1)])
    words = counts.reshape(len(counts), -1, pe).max(axis=2).sum(axis=1).tolist()
    fast = [bits for bits in range(MAX_RUN_BITS + 1) if words[bits] <= SLOWER * min(words)]
    return min(fast, key=lambda bits: words[bits] * (pe * (lane + bits) + 1))


def group_lengths(counts: Ints, pe: int) -> Ints:
    """Cycles of every group of ``pe`` neighbouring outputs."""
    return counts.reshape(-1, pe).max(axis=1)


def balanced(codebook: Codebook, pe: int) -> Ints:
    """Order of the output channels in which lanes wait for each other least."""
    return by_length(needed_counts(codebook, (1 << run_bits(codebook, pe)) - 1))


def filled_up(needed: np.ndarray, count: int) -> np.ndarray:
    """``needed`` with the first unread positions added until ``count`` are read."""
    flat = needed.reshape(-1).copy()
    flat[np.flatnonzero(~flat)[:count - int(flat.sum())]] = True
    return flat.reshape(needed.shape)


@dataclass(frozen=True, eq=False)
class Steps:
    """What the index memory holds, one entry a cycle, for one output pixel.

    Parameters
    ----------
    rows, run, index
        ``(words, pe)``: kernel rows to go down, activations to skip (from the row's first after a step down, else from
        the one behind the last read), index of the weight.
    """

    rows: Ints
    run: Ints
    index: Ints


@dataclass(frozen=True, eq=False)
class NonzeroReads:
    """What a layer reads when zeros are skipped; takes the place of its `WindowGeometry` in the cycle model.

    Parameters
    ----------
    window
        The rows that are buffered; one channel to a word, one kernel row, one group, one repetition.
    codebook
        Weights with one subgroup, as the MAC unit takes them.
    pe
        Output channels computed at once, each with its own read port.
    """

    window: WindowGeometry
    codebook: Codebook
    pe: int

    read_latency = 5
    """Enabled cycles between the decision to read a word and its arrival: index memory, position, address, memory, mask."""

    release_delay = 3
    """Enabled cycles after that decision in which the buffer memory is read."""

    @cached_property
    def run_bits(self) -> int:
        """Bits of a run."""
        return run_bits(self.codebook, self.pe)

    @cached_property
    def row_bits(self) -> int:
        """Bits of a step of rows."""
        return row_bits(self.codebook)

    @cached_property
    def lengths(self) -> list[int]:
        """Cycles of every group of ``pe`` outputs."""
        return group_lengths(needed_counts(self.codebook, (1 << self.run_bits) - 1), self.pe).tolist()

    @property
    def words(self) -> int:
        """Cycles of one output pixel."""
        return sum(self.lengths)

    @cached_property
    def ends(self) -> Sequence[bool]:
        """Of the words of one output pixel, in order: whether it ends a dot product."""
        return [last for length in self.lengths for last in (*[False] * (length - 1), True)]

    @cached_property
    def steps(self) -> Steps:
        """Contents of the index memory."""
        zero, weights = zero_index(self.codebook), _by_row(self.codebook)
        parts = []
        for group, length in enumerate(self.lengths):
            lanes = []
            for output in weights[group * self.pe:(group + 1) * self.pe]:
                needed = needed_positions(output != zero, (1 << self.run_bits) - 1)
                lanes.append(self._lane(filled_up(needed, length), output))
            parts.append(np.stack(lanes, axis=1))
        return Steps(*np.moveaxis(np.concatenate(parts), 2, 0))

    @staticmethod
    def _lane(read: np.ndarray, weights: Ints) -> np.ndarray:
        """``(count, 3)`` steps of rows, runs and indices of one output."""
        rows, positions = np.nonzero(read)
        down = np.diff(rows, prepend=0)
        following = np.concatenate([[0], positions[:-1] + 1])
        return np.stack([down, positions - np.where(down > 0, 0, following), weights[rows, positions]], axis=1)

    @property
    def reads(self) -> int:
        """Words read for one frame, one a cycle."""
        return self.window.out_shape[0] * self.window.out_shape[1] * self.words

    def cycles(self, interval: int) -> int:
        """Cycles of one frame in front of an output stage that takes a word every ``interval`` cycles at most."""
        height, width = self.window.out_shape
        return height * width * sum(max(length, interval) for length in self.lengths)

    @property
    def token_bits(self) -> int:
        """Bits of one lane in the index memory."""
        return self.row_bits + self.run_bits + self.codebook.index_bits

    @property
    def memory(self) -> tuple[int, int]:
        """Width and depth of the index memory."""
        return self.pe * self.token_bits + 1, self.words

    def packed(self) -> list[int]:
        """Words of the index memory: ``last``, then for each lane index, run, step of rows, from the low bits up."""
        s, found = self.steps, []
        columns = (s.rows.tolist(), s.run.tolist(), s.index.tolist(), self.ends)
        for rows, run, index, last in zip(*columns, strict=True):
            word, at = int(last), 1
            for lane in zip(index, run, rows, strict=True):
                for value, bits in zip(lane, (self.codebook.index_bits, self.run_bits, self.row_bits), strict=True):
                    word |= value << at
                    at += bits
            found.append(word)
        return found
