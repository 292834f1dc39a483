"""A stream buffer that cuts both directions: neither valid nor ready passes through combinationally."""

from __future__ import annotations

from amaranth import Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class SkidBuffer(wiring.Component):
    """Queue of two words of ``width`` bits: latency 1, interval 1, ``i.ready`` and ``o`` come from registers.

    The second place takes the word that arrives in the cycle in which the reader stops.
    """

    def __init__(self, width: int):
        super().__init__({"i": In(stream.Signature(unsigned(width))), "o": Out(stream.Signature(unsigned(width)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        waits = Signal()
        waiting = Signal.like(self.i.payload)
        m.d.comb += self.i.ready.eq(~waits)
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [self.o.valid.eq(waits | self.i.valid), waits.eq(0)]
            with m.If(waits):
                m.d.sync += self.o.payload.eq(waiting)
            with m.Else():
                m.d.sync += self.o.payload.eq(self.i.payload)
        with m.Elif(~waits):
            m.d.sync += [waits.eq(self.i.valid), waiting.eq(self.i.payload)]
        return m
