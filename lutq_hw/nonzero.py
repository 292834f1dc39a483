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

import numpy as np

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
        skipped = 0
        for at in range(int(np.flatnonzero(row)[-1]) + 1 if row.any() else 0):
            skipped = 0 if row[at] else skipped + 1
            if skipped > limit:
                row[at], skipped = True, 0
    if not needed.any():
        needed[0, 0] = True
    return needed


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
    last
        ``(words,)``: the entry ends the sums of a group of ``pe`` outputs.
    """

    rows: Ints
    run: Ints
    index: Ints
    last: np.ndarray

    @property
    def run_bits(self) -> int:
        """Bits of a run."""
        return int(self.run.max()).bit_length()

    @property
    def row_bits(self) -> int:
        """Bits of a step of rows."""
        return int(self.rows.max()).bit_length()


@dataclass(frozen=True, eq=False)
class NonzeroReads:
    """What a layer reads when zeros are skipped; takes the place of its `WindowGeometry` in the cycle model.

    Parameters
    ----------
    window
        The rows that are buffered; one channel to a word, one kernel row, one group, one repetition.
    codebook
        Weights with one subgroup.
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
    def _weights(self) -> Ints:
        """Index of every weight, ``(O, kernel rows, positions)``: a position is kernel column x channels + channel."""
        index = self.codebook.assignments
        kernel_rows = index.shape[1] if index.ndim == 4 else 1
        return index.reshape(len(index), kernel_rows, -1)

    @cached_property
    def steps(self) -> Steps:
        """Contents of the index memory: the run width that needs the fewest bits at about the fewest cycles."""
        found = [self._steps((1 << bits) - 1) for bits in range(MAX_RUN_BITS + 1)]
        fewest = min(len(steps.last) for steps in found)
        fast = [steps for steps in found if len(steps.last) <= SLOWER * fewest]
        return min(fast, key=lambda s: (len(s.last) * (self.pe * (s.run_bits + s.row_bits + self.codebook.index_bits) + 1)))

    def _steps(self, limit: int) -> Steps:
        zero = zero_index(self.codebook)
        needed = [needed_positions(weights != zero, limit) for weights in self._weights]
        parts: list[np.ndarray] = []
        last: list[bool] = []
        for first in range(0, len(needed), self.pe):
            group = needed[first:first + self.pe]
            count = max(int(lane.sum()) for lane in group)
            # Filled up, a lane still skips no more than the limit.
            lanes = [self._lane(filled_up(lane, count), self._weights[first + p]) for p, lane in enumerate(group)]
            parts.append(np.stack(lanes, axis=1))
            last += [False] * (count - 1) + [True]
        rows, run, index = np.moveaxis(np.concatenate(parts), 2, 0)
        return Steps(rows, run, index, np.array(last))

    @staticmethod
    def _lane(read: np.ndarray, weights: Ints) -> np.ndarray:
        """``(count, 3)`` steps of rows, runs and indices of one output."""
        rows, positions = np.nonzero(read)
        down = np.diff(rows, prepend=0)
        following = np.concatenate([[0], positions[:-1] + 1])
        return np.stack([down, positions - np.where(down > 0, 0, following), weights[rows, positions]], axis=1)

    @property
    def words(self) -> int:
        """Cycles of one output pixel."""
        return len(self.ends)

    @cached_property
    def ends(self) -> Sequence[bool]:
        """Of the words of one output pixel, in order: whether it ends a dot product."""
        return self.steps.last.tolist()

    @cached_property
    def lengths(self) -> list[int]:
        """Cycles of every group of ``pe`` outputs."""
        return np.diff(np.flatnonzero(self.steps.last), prepend=-1).tolist()

    @property
    def reads(self) -> int:
        """Words read for one frame, one a cycle."""
        return self.window.out_shape[0] * self.window.out_shape[1] * self.words

    @property
    def token_bits(self) -> int:
        """Bits of one lane in the index memory."""
        return self.steps.row_bits + self.steps.run_bits + self.codebook.index_bits

    @property
    def memory(self) -> tuple[int, int]:
        """Width and depth of the index memory."""
        return self.pe * self.token_bits + 1, self.words

    def packed(self) -> list[int]:
        """Words of the index memory: ``last``, then for each lane index, run, step of rows, from the low bits up."""
        s, found = self.steps, []
        for rows, run, index, last in zip(s.rows.tolist(), s.run.tolist(), s.index.tolist(), s.last.tolist(), strict=True):
            word, at = int(last), 1
            for lane in zip(index, run, rows, strict=True):
                for value, bits in zip(lane, (self.codebook.index_bits, s.run_bits, s.row_bits), strict=True):
                    word |= value << at
                    at += bits
            found.append(word)
        return found
