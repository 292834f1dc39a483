"""One stream for several readers."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class StreamFork(wiring.Component):
    """Every word of ``i`` goes to ``o0``, ``o1`` ... without a register between, to each when it is ready.

    A branch that has its word is offered nothing more until all have it; ``i`` is ready when the last ones take it. No
    branch waits for another, so ``valid`` depends on no ``ready``.
    """

    def __init__(self, width: int, count: int):
        self.count = count
        members = {f"o{k}": Out(stream.Signature(unsigned(width))) for k in range(count)}
        super().__init__({"i": In(stream.Signature(unsigned(width))), **members})

    def elaborate(self, platform) -> Module:
        m = Module()
        branches = [getattr(self, f"o{k}") for k in range(self.count)]
        done = Signal(self.count)
        taken = Signal(self.count)
        m.d.comb += [taken.eq(done | Cat(o.ready for o in branches)), self.i.ready.eq(taken.all())]
        for k, o in enumerate(branches):
            m.d.comb += [o.valid.eq(self.i.valid & ~done[k]), o.payload.eq(self.i.payload)]
        with m.If(self.i.valid):
            m.d.sync += done.eq(Mux(self.i.ready, 0, taken))
        return m
