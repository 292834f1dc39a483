"""Step functions prepared for many accumulators of a known range: a look-up table where it stays moderate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .network import Shift, Thresholds
from .network.steps import BEYOND, Step
from .network.tensor import Ints

MAX_STEP_TABLE = 1 << 22
"""Largest number of entries of a step function's look-up table, one byte each."""

MAX_BUCKETS = 1 << 17
"""Largest number of buckets of thresholds that have no such table: they stay in a processor's cache."""

StepFunction = Callable[[Ints], Ints]


def step_function(step: Step | None, low: Ints, high: Ints, bias: Ints) -> StepFunction:
    """``sums -> step.apply(sums + bias)`` for int64 sums ``(..., C)``, which it may overwrite.

    Parameters
    ----------
    step
        None: the accumulators themselves.
    low, high
        ``(C,)`` smallest and largest accumulator of every channel, bias included.
    bias
        ``(C,)``.

    Returns
    -------
    A function whose result has any integer type that holds the codes.
    """
    if step is None:
        return _Raw(bias)
    first, last = _active(step, low, high)
    span = int((last - first).max()) + 1
    if not isinstance(step, Thresholds) or _one_row(step):
        span = int(last.max() - first.min()) + 1
        if span <= MAX_STEP_TABLE:
            first, last = first.min(keepdims=True), last.max(keepdims=True)
    if span * len(first) > MAX_STEP_TABLE:
        return _Search(step, first, last, bias) if isinstance(step, Thresholds) else _Formula(step, bias)
    clipped = bool((first > low).any() or (last < high).any())
    return _Table(step, first, span, bias, clipped=clipped, channels=len(low))


def code_type(step: Step) -> type[np.integer]:
    """The byte type that holds the codes of ``step``."""
    return np.int8 if step.signed else np.uint8


def _one_row(step: Thresholds) -> bool:
    return bool((step.values == step.values[0]).all() and (step.descending == step.descending[0]).all())


def _active(step: Step, low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """First and last accumulator ``(C,)`` worth a table entry: beyond them the code is that of the nearer one."""
    if isinstance(step, Thresholds):
        rows = np.broadcast_to(step.values, (len(low), step.values.shape[1]))
        seen = (rows >= low[:, None]) & (rows <= high[:, None])
        first = np.where(seen, rows - 1, high[:, None]).min(axis=1)
        last = np.where(seen, rows + 1, low[:, None]).max(axis=1)
        first = np.minimum(first, last)  # no threshold within the range: any one accumulator stands for all
    elif isinstance(step, Shift):
        least = -(1 << (step.bits - 1)) if step.signed else 0
        first = np.full(len(low), (least - 1) << step.shift)
        last = np.full(len(low), (least + (1 << step.bits)) << step.shift)
    else:
        first, last = np.zeros_like(low), np.full(len(low), (len(step.values) - 1) << step.shift)
    return np.clip(first, low, high), np.clip(last, low, high)


class _Raw:
    def __init__(self, bias: Ints):
        self._bias = bias if bias.any() else None

    def __call__(self, sums: Ints) -> Ints:
        if self._bias is not None:
            sums += self._bias
        return sums


class _Table:
    """One look-up for each code; ``first`` has one entry for each channel, or a single one if they share a table."""

    def __init__(self, step: Step, first: Ints, span: int, bias: Ints, *, clipped: bool, channels: int):
        rows = np.broadcast_to(first + np.arange(span)[:, None], (span, len(first)))
        codes = step.apply(rows if len(first) > 1 else np.broadcast_to(rows, (span, channels)))[:, :len(first)]
        self._codes = codes.T.astype(code_type(step)).reshape(-1)
        base = np.arange(len(first)) * span
        self._offset = base - first + bias
        self._bounds = (base, base + span - 1) if clipped else None

    def __call__(self, sums: Ints) -> Ints:
        sums += self._offset
        if self._bounds is not None:
            low, high = self._bounds
            np.minimum(np.maximum(sums, low, out=sums), high, out=sums)
        return self._codes[sums]


class _Search:
    """Thresholds far apart: the count at the start of the accumulator's bucket, and a bisection within the bucket."""

    def __init__(self, step: Thresholds, first: Ints, last: Ints, bias: Ints):
        channels, span = len(first), int((last - first).max())
        self._shift = 0
        while ((span >> self._shift) + 1) * channels > max(MAX_BUCKETS, channels):
            self._shift += 1
        self._buckets = (span >> self._shift) + 1
        # acc <= t is not acc >= t + 1, so a channel that counts downwards counts those and subtracts.
        rows = step.values + step.descending[:, None]
        starts = first[:, None] + (np.arange(self._buckets) << self._shift)
        self._counts = np.empty(starts.shape, np.uint8)
        most = 0
        for o, row in enumerate(rows):
            counts = np.searchsorted(row, starts[o], side="right")
            ends = np.searchsorted(row, starts[o] + (1 << self._shift) - 1, side="right")
            self._counts[o], most = counts, max(most, int((ends - counts).max()))
        self._passes = most.bit_length()
        self._rows = np.pad(rows, ((0, 0), (0, 1 << self._passes)), constant_values=BEYOND).reshape(-1)
        self._row = np.arange(channels) * (rows.shape[1] + (1 << self._passes))
        self._bucket = np.arange(channels) * self._buckets
        self._first, self._bias = first, bias
        self._sign = 1 - 2 * step.descending.astype(np.int64)
        low = -(1 << (step.bits - 1)) if step.signed else 0
        self._least = low + rows.shape[1] * step.descending.astype(np.int64)
        self._type = code_type(step)

    def __call__(self, sums: Ints) -> Ints:
        sums += self._bias
        bucket = (sums - self._first) >> self._shift
        np.minimum(np.maximum(bucket, 0, out=bucket), self._buckets - 1, out=bucket)
        count = self._counts.reshape(-1)[bucket + self._bucket] + self._row
        for bit in reversed(range(self._passes)):
            count += (sums >= self._rows[count + ((1 << bit) - 1)]).astype(np.int64) << bit
        return ((count - self._row) * self._sign + self._least).astype(self._type)


class _Formula:
    """The step as it is written down."""

    def __init__(self, step: Step, bias: Ints):
        self._step, self._bias = step, bias

    def __call__(self, sums: Ints) -> Ints:
        return self._step.apply(sums + self._bias)
