"""A part placed alone between registers, with four pins: what its clock is measured on."""

from __future__ import annotations

from amaranth import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Alone(wiring.Component):
    """``part`` with every input bit from a register and every output bit into one.

    The input registers are one long shift register behind the pin ``d``. The outputs are folded to one pin by a tree of
    exclusive-ors with a register behind every lut, so that no path of the wrapper is slower than one inside the part.
    """

    def __init__(self, part: wiring.Component):
        self.part = part
        super().__init__({"d": In(1), "q": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.part = self.part
        inputs, outputs = [], []
        for _, member, value in self.part.signature.flatten(self.part):
            (inputs if member.flow == In else outputs).append(Value.cast(value))
        bits = sum(map(len, inputs))
        shift = Signal(bits, reset_less=True)
        m.d.sync += shift.eq(Cat(self.d, shift))
        m.d.comb += Cat(inputs).eq(shift)
        level = Signal(sum(map(len, outputs)), name="caught", reset_less=True)
        m.d.sync += level.eq(Cat(outputs))
        while len(level) > 1:
            folded = Signal(-(-len(level) // 4), name=f"folded{len(level)}", reset_less=True)
            m.d.sync += folded.eq(Cat(level[n:n + 4].xor() for n in range(0, len(level), 4)))
            level = folded
        m.d.comb += self.q.eq(level)
        return m
