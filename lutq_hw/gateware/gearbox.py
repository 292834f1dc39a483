"""Streams of other widths: collect several words into one, or hand one word out in pieces."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Collector(wiring.Component):
    """``count`` words of ``width`` bits become one, the first in the low bits.

    ``o`` is valid the cycle after the last of them; a word is taken every cycle while ``o.ready``.
    """

    def __init__(self, width: int, count: int):
        self.width, self.count = width, count
        super().__init__({"i": In(stream.Signature(unsigned(width))), "o": Out(stream.Signature(unsigned(width * count)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        have = Signal(range(self.count + 1))
        full = Signal()
        m.d.comb += [
            full.eq(have == self.count),
            self.o.valid.eq(full),
            self.i.ready.eq(~full | self.o.ready),
        ]
        with m.If(self.i.ready & self.i.valid):
            m.d.sync += self.o.payload.eq(Cat(self.o.payload, self.i.payload)[self.width:])
            m.d.sync += have.eq(Mux(full, 1, have + 1))
        with m.Elif(full & self.o.ready):
            m.d.sync += have.eq(0)
        return m


class Splitter(wiring.Component):
    """One word becomes ``count`` words of ``width`` bits, the low bits first.

    The first is valid the cycle after the word was taken; the next word is taken together with the last piece.
    """

    def __init__(self, width: int, count: int):
        self.width, self.count = width, count
        super().__init__({"i": In(stream.Signature(unsigned(width * count))), "o": Out(stream.Signature(unsigned(width)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        left = Signal(range(self.count + 1))
        rest = Signal(self.width * self.count)
        m.d.comb += [
            self.o.valid.eq(left != 0),
            self.o.payload.eq(rest[:self.width]),
            self.i.ready.eq((left == 0) | ((left == 1) & self.o.ready)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [rest.eq(rest >> self.width), left.eq(left - 1)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [rest.eq(self.i.payload), left.eq(self.count)]
        return m
