"""The gap that a unit asks for, made by the bench: a unit behind a stream that may offer its words at any time."""

from __future__ import annotations

from amaranth import Array, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from lutq_hw.mac import MacUnit


class Spaced(wiring.Component):
    """``unit`` as a component whose ``i`` is not ready while there is a gap."""

    def __init__(self, unit: MacUnit):
        super().__init__(unit.members)
        self.unit = unit

    def elaborate(self, platform) -> Module:
        m = Module()
        unit = self.unit
        m.submodules.unit = dut = unit.create()
        connect(m, dut.o, flipped(self.o))
        step = Signal(range(unit.gap + 1))
        pause = step != unit.gap
        here = Array(Const(index, unit.index_bits) for index in (*unit.readout, 0))[step]
        m.d.comb += [dut.i.valid.eq(self.i.valid & ~pause), self.i.ready.eq(dut.i.ready & ~pause),
                     dut.i.p.x.eq(self.i.p.x), dut.i.p.last.eq(self.i.p.last)]
        m.d.comb += [mine.eq(Mux(pause, here, theirs)) for mine, theirs in zip(dut.i.p.index, self.i.p.index, strict=True)]
        with m.If(dut.i.ready & pause):
            m.d.sync += step.eq(step + 1)
        with m.If(self.i.valid & self.i.ready & self.i.p.last):
            m.d.sync += step.eq(0)
        return m


def component(unit: MacUnit) -> wiring.Component:
    """The unit, spaced if it asks for it."""
    return Spaced(unit) if unit.gap else unit.create()
