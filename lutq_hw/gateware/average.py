"""Running sums over the words of a window."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..joins import AveragePool
from ..network import TensorType
from .join import codes_of
from .window import WindowReader


class WindowSums(wiring.Component):
    """Sums of ``lanes`` elements over words up to and including the one with ``last``.

    Moves when ``en`` is high, which is ``o.ready | ~o.valid``, combinationally. The sums follow the last word by one cycle.

    Parameters
    ----------
    x
        Type of the elements.
    bits
        Width of the signed sums.
    """

    def __init__(self, x: TensorType, lanes: int, bits: int):
        self.x_type, self.lanes, self.bits = x, lanes, bits
        super().__init__({"x": In(lanes * x.bits), "valid": In(1), "last": In(1), "en": Out(1),
                          "o": Out(stream.Signature(data.ArrayLayout(signed(bits), lanes)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        first = Signal(init=1)
        m.d.comb += self.en.eq(self.o.ready | ~self.o.valid)
        with m.If(self.en):
            m.d.sync += self.o.valid.eq(self.valid & self.last)
        with m.If(self.en & self.valid):
            m.d.sync += first.eq(self.last)
        for lane in range(self.lanes):
            acc = Signal(signed(self.bits), name=f"acc{lane}", reset_less=True)
            code = codes_of(self.x, self.x_type, lane)
            with m.If(self.en & self.valid):
                m.d.sync += acc.eq(Mux(first, code, acc + code))
            m.d.comb += self.o.payload[lane].eq(acc)
        return m


class AverageEngine(wiring.Component):
    """Stream of pixels in, stream of finished sums out; timing as in `timing.LayerTimer`."""

    def __init__(self, pool: AveragePool):
        self.pool = pool
        super().__init__({"i": In(stream.Signature(unsigned(pool.input.width))),
                          "o": Out(stream.Signature(unsigned(pool.output.width)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        pool = self.pool
        x = pool.input.type
        m.submodules.window = window = WindowReader(pool.window, bits=x.bits)
        m.submodules.sums = sums = WindowSums(x, pool.plan.channels, pool.sums.bits)
        m.submodules.output = output = pool.stage.create()
        wiring.connect(m, wiring.flipped(self.i), window.i)
        m.d.comb += [window.en.eq(sums.en), sums.x.eq(window.x), sums.valid.eq(window.valid), sums.last.eq(window.last)]
        wiring.connect(m, sums.o, output.i)
        wiring.connect(m, output.o, wiring.flipped(self.o))
        return m
