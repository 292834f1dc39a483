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
        have = Signal(range(self.count))
        full = Signal()  # a register: long paths begin at a stream's valid
        complete = have == self.count - 1
        m.d.comb += [
            self.o.valid.eq(full),
            self.i.ready.eq(~full | self.o.ready),
        ]
        with m.If(self.i.ready & self.i.valid):
            m.d.sync += self.o.payload.eq(Cat(self.o.payload, self.i.payload)[self.width:])
            m.d.sync += [have.eq(Mux(complete, 0, have + 1)), full.eq(complete)]
        with m.Elif(self.o.ready):
            m.d.sync += full.eq(0)
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
        valid, last = Signal(), Signal()  # registers: long paths begin at a stream's valid and end at its ready
        rest = Signal(self.width * self.count)
        m.d.comb += [
            self.o.valid.eq(valid),
            self.o.payload.eq(rest[:self.width]),
            self.i.ready.eq(~valid | (last & self.o.ready)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [rest.eq(rest >> self.width), left.eq(left - 1), last.eq(left == 2), valid.eq(~last)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [rest.eq(self.i.payload), left.eq(self.count), last.eq(0), valid.eq(1)]
        return m
