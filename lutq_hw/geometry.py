"""Which words a window operation reads, in which order, and how many rows it must buffer. Pure integers, no hardware.

Gateware, cycle model and cost model all derive from this one description, so they cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from .network import AvgPool2d, Conv2d, Dense, MaxPool2d, TensorType, WeightNode
from .network.tensor import Ints, require


@dataclass(frozen=True)
class WindowGeometry:
    """A buffer of input rows, read window by window in words of ``channels`` activations.

    Reading order, outermost first: output row, output column, channel group, repetition (one for each group of ``pe``
    output channels), kernel row (unless all are read at once), kernel column, word of the channel group.

    Parameters
    ----------
    shape
        ``(H, W, C)`` of the input.
    kernel, stride, padding
        As in `Conv2d`; a dense layer is a 1 x 1 convolution over a 1 x 1 map of N channels.
    channels
        Activations in a memory word; divides ``C / groups``.
    rows
        Kernel rows read in one cycle: 1 or all of them.
    groups
        Channel groups, read one after the other. A pool has ``C / channels`` groups of one word.
    repeat
        How often each window is read.
    gap
        Cycles after each dot product, and before the first one, in which no word is read.
    """

    shape: tuple[int, int, int]
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    channels: int = 1
    rows: int = 1
    groups: int = 1
    repeat: int = 1
    gap: int = 0

    def __post_init__(self) -> None:
        require(self.rows in (1, self.kernel[0]), f"rows must be 1 or the kernel's {self.kernel[0]}, not {self.rows}")
        per_group = self.shape[2] // self.groups
        require(self.channels >= 1 and per_group % self.channels == 0,
                f"channels must divide the {per_group} channels of a group, not {self.channels}")

    @property
    def out_shape(self) -> tuple[int, int]:
        """Output rows and columns."""
        out = [(n + 2 * p - k) // s + 1
               for n, k, s, p in zip(self.shape, self.kernel, self.stride, self.padding, strict=False)]
        return out[0], out[1]

    @property
    def pixel_words(self) -> int:
        """Words of one input pixel."""
        return self.shape[2] // self.channels

    @property
    def row_words(self) -> int:
        """Words of one input row."""
        return self.shape[1] * self.pixel_words

    @property
    def group_words(self) -> int:
        """Words of one pixel in one channel group."""
        return self.pixel_words // self.groups

    @property
    def fold(self) -> int:
        """Cycles of one dot product (or of one pool window)."""
        return self.kernel[0] // self.rows * self.kernel[1] * self.group_words

    @cached_property
    def ends(self) -> tuple[bool, ...]:
        """Of the words of one output pixel, in order: whether it ends a dot product (or a pool window)."""
        return (*[False] * (self.fold - 1), True) * (self.groups * self.repeat)

    @property
    def period(self) -> int:
        """Cycles from one dot product to the next."""
        return self.fold + self.gap

    @property
    def reads(self) -> int:
        """Words read for one frame, at most one a cycle."""
        return self.out_shape[0] * self.out_shape[1] * self.groups * self.repeat * self.fold

    def _first_row(self, oy: int) -> int:
        return max(0, oy * self.stride[0] - self.padding[0])

    @cached_property
    def need(self) -> tuple[int, ...]:
        """Rows that must be in the buffer before output row ``oy`` may start; the last one waits for the whole frame.

        Rows that no window reads (stride above kernel) are waited for too, since they are released with the others.
        """
        height, last = self.shape[0], self.out_shape[0] - 1
        return tuple(
            (height if oy == last else max(min(height, oy * self.stride[0] - self.padding[0] + self.kernel[0]),
                                           self._first_row(oy + 1)))
            - self._first_row(oy) for oy in range(last + 1))

    @cached_property
    def release(self) -> tuple[int, ...]:
        """Rows that leave the buffer after output row ``oy``; all of them after the last."""
        firsts = [self._first_row(oy) for oy in range(self.out_shape[0])]
        return tuple(b - a for a, b in zip(firsts, [*firsts[1:], self.shape[0]], strict=True))

    @cached_property
    def need_next(self) -> tuple[int, ...]:
        """Rows that must be there at the end of output row ``oy`` so that the next one follows without a pause."""
        return tuple(r + n for r, n in zip(self.release, [*self.need[1:], self.need[0]], strict=True))

    @cached_property
    def buffer_rows(self) -> int:
        """Rows of the circular buffer: while one output row is computed, all that the next one needs can arrive."""
        return max(*self.need, *self.need_next)

    @property
    def depth(self) -> int:
        """Words of the buffer memory; with ``rows`` > 1 a word holds the same column of every buffered row."""
        return self.row_words if self.rows > 1 else self.row_words * self.buffer_rows

    def masks(self, axis: int) -> tuple[int, ...]:
        """`mask` of every output position."""
        return _masks(self.out_shape[axis], self.kernel[axis], self.stride[axis], self.padding[axis], self.shape[axis])

    def mask(self, axis: int, out: int) -> int:
        """Bit ``k`` is set when kernel position ``k`` of output position ``out`` lies inside the input."""
        return self.masks(axis)[out]


@cache
def _masks(outputs: int, kernel: int, stride: int, padding: int, size: int) -> tuple[int, ...]:
    """`WindowGeometry.mask` of every output position of an axis."""
    firsts = [out * stride - padding for out in range(outputs)]
    return tuple(sum(1 << k for k in range(kernel) if 0 <= first + k < size) for first in firsts)


def term_order(node: WeightNode, *, channels: int, rows: int) -> Ints:
    """Which of an output's terms each lane of each word of a dot product sums, ``(fold, simd)``.

    Terms are counted over the axes of one output's weights; lane ``row * channels + channel`` of a word has that kernel
    row and channel of it.
    """
    kh, kw = node.kernel if isinstance(node, Conv2d) else (1, 1)
    terms = np.arange(node.terms).reshape(kh // rows, rows, kw, -1, channels)
    return terms.transpose(0, 2, 3, 1, 4).reshape(-1, rows * channels)


def window_of(node: Dense | Conv2d | MaxPool2d | AvgPool2d, x: TensorType, *, channels: int, rows: int, pe: int,
              spread: int = 1, gap: int = 0) -> WindowGeometry:
    """Geometry of a layer that reads words of ``channels`` and computes ``pe`` outputs at once.

    With ``spread`` above 1 the groups of a convolution are joined, so many to one: words are ``spread * channels`` wide.
    """
    match node:
        case Dense():
            return WindowGeometry(x.map_shape, channels=channels, rows=rows, repeat=node.outputs // pe, gap=gap)
        case Conv2d():
            groups = node.groups // spread
            return WindowGeometry(x.map_shape, node.kernel, node.stride, node.padding, spread * channels, rows, groups,
                                  node.outputs // groups // pe, gap)
        case MaxPool2d() | AvgPool2d():
            assert node.stride is not None
            return WindowGeometry(x.map_shape, node.kernel, node.stride, node.padding, channels, 1,
                                  x.channels // channels)
