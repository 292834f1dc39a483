"""Running maximum over the words of a window."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..network import TensorType
from ..pipeline import Pool
from .skid import SkidBuffer
from .window import WindowReader


class PoolEngine(wiring.Component):
    """Stream of pixels in, stream of maxima out, both ``channels`` wide; reads one word a cycle."""

    def __init__(self, pool: Pool):
        self.pool = pool
        width = pool.input.width
        super().__init__({"i": In(stream.Signature(unsigned(width))), "o": Out(stream.Signature(unsigned(width)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        x: TensorType = self.pool.x
        m.submodules.window = window = WindowReader(self.pool.window, bits=x.bits, pad=x.min)
        wiring.connect(m, wiring.flipped(self.i), window.i)
        m.submodules.result = result = SkidBuffer(len(self.o.payload))
        wiring.connect(m, result.o, wiring.flipped(self.o))
        first, done = Signal(init=1), Signal()
        best = Signal(len(self.o.payload))
        shape = signed(x.bits) if x.signed else unsigned(x.bits)
        lanes = []
        for lane in range(self.pool.plan.channels):
            new = Signal(shape, name=f"new{lane}")
            old = Signal(shape, name=f"old{lane}")
            m.d.comb += [new.eq(window.x.word_select(lane, x.bits)), old.eq(best.word_select(lane, x.bits))]
            lanes.append(Mux(first | (new > old), new, old).as_unsigned()[:x.bits])
        m.d.comb += [result.i.valid.eq(done), result.i.payload.eq(best), window.en.eq(result.i.ready | ~done)]
        with m.If(window.en):
            m.d.sync += done.eq(window.valid & window.last)
            with m.If(window.valid):
                m.d.sync += [best.eq(Cat(*lanes)), first.eq(window.last)]
        return m
