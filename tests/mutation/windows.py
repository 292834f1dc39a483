# amaranth: UnusedElaboratable=no
"""The window reader by itself, for geometries of all kinds: whole windows as words of a stream."""

from __future__ import annotations

import functools
from itertools import chain
from typing import Any

import numpy as np
from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from lutq_hw.gateware.window import LATENCY, WindowReader
from lutq_hw.geometry import WindowGeometry
from lutq_hw.timing import dense_reads

from .drive import Run

GEOMETRIES = (
    WindowGeometry((3, 4, 2), kernel=(2, 3), padding=(1, 1), repeat=2),
    WindowGeometry((4, 3, 1), kernel=(3, 2), stride=(2, 1), padding=(1, 0), rows=3),
    WindowGeometry((3, 3, 4), kernel=(2, 2), stride=(1, 2), padding=(0, 1), rows=2, groups=2, repeat=2),
    WindowGeometry((1, 1, 6), channels=2, repeat=3, gap=2),
    WindowGeometry((2, 2, 2), groups=2, gap=1),
    WindowGeometry((4, 3, 2), kernel=(3, 3), padding=(1, 1), channels=2, rows=3, repeat=2, gap=3),
    WindowGeometry((5, 2, 1), kernel=(2, 1), stride=(3, 1)),
    WindowGeometry((3, 5, 4), kernel=(3, 3), stride=(2, 3), padding=(1, 2), channels=2, groups=2),
    WindowGeometry((4, 2, 1), kernel=(4, 1), padding=(2, 0), rows=4),
    WindowGeometry((2, 4, 2), kernel=(1, 3), stride=(1, 2), padding=(0, 1), channels=2),
    WindowGeometry((4, 4, 2), kernel=(2, 2), stride=(2, 2), groups=2),
    WindowGeometry((3, 2, 4), kernel=(3, 1), padding=(2, 0), channels=2, rows=3, repeat=1, gap=1),
    WindowGeometry((2, 3, 3), kernel=(2, 2), padding=(1, 1), repeat=2, gap=2),
)


class Windows(wiring.Component):
    """A `WindowReader` whose windows come out whole: words and addresses of weights, then the addresses of the gap before."""

    def __init__(self, geometry: WindowGeometry, bits: int, pad: int):
        self.geometry, self.bits, self.pad = geometry, bits, pad
        g = geometry
        self.weight_bits = (max(2, g.groups * g.repeat * g.fold + g.gap) - 1).bit_length()
        self.width = g.fold * (g.rows * g.channels * bits + self.weight_bits) + g.gap * self.weight_bits
        super().__init__({"i": In(stream.Signature(unsigned(g.channels * bits))),
                          "o": Out(stream.Signature(unsigned(self.width)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        g = self.geometry
        m.submodules.reader = reader = WindowReader(g, bits=self.bits, pad=self.pad)
        wiring.connect(m, wiring.flipped(self.i), reader.i)
        en = self.o.ready | ~self.o.valid
        m.d.comb += [reader.en.eq(en), self.o.valid.eq(reader.valid & reader.last)]
        between, weight = Signal.like(reader.weight), Signal.like(reader.weight)
        with m.If(en):
            m.d.sync += [between.eq(reader.weight), weight.eq(between)]
        found: list[Any] = [Cat(reader.x, weight)]
        for n in range(1, g.fold):
            found.append(Signal(len(found[0]), name=f"before{n}", reset_less=True))
            with m.If(en & reader.valid):
                m.d.sync += found[n].eq(found[n - 1])
        # There is a gap behind the last word of a window, and in the first cycles after reset.
        left = Signal(range(g.gap + LATENCY + 1), init=g.gap + LATENCY)
        steps = [Signal(len(weight), name=f"step{n}", reset_less=True) for n in range(g.gap)]
        with m.If(en):
            m.d.sync += left.eq(left - (left > 0))
            with m.If(reader.valid & reader.last):
                m.d.sync += left.eq(g.gap)
            with m.If((left > 0) & (left <= g.gap)):
                m.d.sync += [step.eq(before) for step, before in zip(steps, [weight, *steps], strict=False)]
        m.d.comb += self.o.payload.eq(Cat(*found, *steps))
        return m


class ReaderTimer:
    """When whole windows come."""

    at_rest = False

    def __init__(self, geometry: WindowGeometry):
        self.window = dense_reads(geometry, 0)

    @property
    def valid(self) -> bool:
        return bool(self.window.pipe & self.window.top)

    def ready(self, o_ready: bool) -> bool:
        return self.window.filled != self.window.rows

    def step(self, i_valid: bool, o_ready: bool) -> None:
        self.window.step(i_valid and self.ready(o_ready), o_ready or not self.valid)


def joined(parts: list[tuple[int, int]]) -> int:
    """Numbers of so many bits side by side, the first in the low bits."""
    total = place = 0
    for value, bits in parts:
        total |= value << place
        place += bits
    return total


def windows_of(frame: np.ndarray, g: WindowGeometry, bits: int, pad: int, weight_bits: int) -> list[int]:
    """What `Windows` makes of a frame of codes ``(H, W, C)``, by the reading order of `WindowGeometry`."""
    (top, left), (rows, columns) = g.padding, g.kernel
    padded = np.pad(frame, ((top, top), (left, left), (0, 0)), constant_values=pad)
    size = g.shape[2] // g.groups
    found = []
    for oy, ox in np.ndindex(*g.out_shape):
        window = padded[oy * g.stride[0]:, ox * g.stride[1]:][:rows, :columns]
        weight = 0
        for group in range(g.groups):
            for _ in range(g.repeat):
                words = []
                for ky in range(0, rows, g.rows):
                    for kx, first in np.ndindex(columns, g.group_words):
                        channel = group * size + first * g.channels
                        x = window[ky:ky + g.rows, kx, channel:channel + g.channels].reshape(-1).tolist()
                        words.append([*((value, bits) for value in x), (weight, weight_bits)])
                        weight += 1
                steps = [(g.groups * g.repeat * g.fold + n, weight_bits) for n in reversed(range(g.gap))]
                found.append(joined([*chain.from_iterable(reversed(words)), *steps]))
    return found


def window_checks() -> list[Run]:
    """All geometries, with padding that is not 0 in every other."""
    checks = []
    for seed, g in enumerate(GEOMETRIES):
        bits, pad = 1 + seed % 2, seed % 2 * 3
        frames = np.random.default_rng(seed).integers(1 << bits, size=(3, *g.shape))
        make = functools.partial(Windows, g, bits, pad)
        words = [joined([(value, bits) for value in word]) for word in frames.reshape(-1, g.channels).tolist()]
        results = [word for frame in frames for word in windows_of(frame, g, bits, pad, make().weight_bits)]
        checks.append(Run(make, functools.partial(ReaderTimer, g), [words], [results], seed, warm=seed * 17 % 61))
    return checks
