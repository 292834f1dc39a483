"""Running sums for each dictionary entry in two banks: one is read out while the other sums the next dot product.

The same identity as in `bucket`, without its gap of a cycle for each entry between dot products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from amaranth import Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory, wiring

from ..cost import Cost
from ..gateware.accumulate import tree_levels
from ..gateware.lanes import lookup
from ..gateware.weighted_sum import WeightedSum, table_luts
from .bucket import REGISTERS, Bucket, BucketArray, Register, add, tree


class BucketOverlap(Bucket):
    """`Bucket` with two memories in each lane, which change roles with every dot product: one sums, the other is emptied.

    There is a gap only where a dot product is too short to be multiplied while the next one is summed. Each memory has
    an adder of its own: a multiplexer in front of a common one would be as large. After reset both memories are emptied
    before the first word is taken (`startup`).
    """

    name = "bucket-overlap"
    needs = "a dictionary"

    @property
    def readout(self) -> tuple[int, ...]:
        # The entries to be read do not come with the indices.
        return (0,) * max(0, self.period - self.fold)

    passes: ClassVar[int] = 2
    """How often a bank is read out after reset, the one and the other in turn, until words are taken."""

    @property
    def startup(self) -> int:
        return self.passes * len(self.used)

    def lane_cost(self) -> Cost:
        width = self.shape(0).width
        # What empties a bank is a reset where it is made of registers, and else a gate behind the bits of a carry chain;
        # those of 7 series have room for it.
        chain = width if self.codebook.entries <= REGISTERS else min(width, self.x_bits)
        gates = 2 * chain if self.family.lutram is not None and self.family.lut_inputs == 4 else 0
        # An index or the entry to be read in front of each address register, and one register for what is read.
        return super().lane_cost() * 2 + Cost(luts=gates + 2 * self.index_bits + width, ffs=-width)

    def control_cost(self) -> Cost:
        count = len(self.used)
        number = max(1, (count - 1).bit_length())
        entry = table_luts([[k >> bit & 1 for k in self.used] for bit in range(self.index_bits)], count, self.family)
        return Cost(luts=1.5 * number + 11 + entry, ffs=(3 + tree_levels(self.simd)) * (number + 2) + 5)

    def create(self) -> wiring.Component:
        return BucketOverlapArray(self)


@dataclass(frozen=True)
class Phase:
    """What all lanes must know, in two cycles: when a word comes (first), and when it is in the register behind the input."""

    awake: Value
    """First: words are taken."""

    turned: Value
    """First: the bank that sums it."""

    entry: Value
    """First: the entry whose address is registered for the bank that is read out."""

    side: Value
    """Second: the bank that sums the word."""

    valid: Value
    """Second: there is a word."""

    ends: Value
    """Second: it is the last one of its dot product (only if ``valid``)."""

    emptying: Value
    """Second: an entry of the other bank is read."""

    en: Value
    """Everything moves."""


class BucketOverlapArray(BucketArray):
    """The array of `BucketOverlap`."""

    def elaborate(self, platform) -> Module:
        m = Module()
        unit, count = self.unit, len(self.unit.used)
        awake, turned, side, ends, more = (Signal(name=name) for name in ("awake", "turned", "side", "ends", "more"))
        sums, register = self.end(m, awake)
        x: list[Value] = [register(value, f"x{s}") for s, value in enumerate(self.i.p.x)]
        valid = register(self.i.valid & awake, "valid")
        # Until `awake`, one bank and then the other is read out, and nothing is summed up; whatever was written in the
        # first cycle is gone then.
        number = Signal(range(max(2, count)))
        reading, done = Signal(), Signal()
        m.d.comb += [turned.eq(side ^ ends), reading.eq(ends | more | ~awake), done.eq(number == count - 1)]
        final = turned
        if unit.passes == 3:
            final = Signal(name="final")
            with m.If(sums.en):
                m.d.sync += final.eq(final | (done & turned))
        with m.If(sums.en):
            m.d.sync += [
                side.eq(turned), ends.eq(Mux(awake, self.i.valid & self.i.p.last, done & ~final)),
                awake.eq(awake | (done & final)), more.eq(reading & ~done),
                number.eq(Mux(reading & ~done, number + 1, 0)),
            ]
        controls = [register(control, f"control{n}", reset_less=False)
                    for n, control in enumerate((reading, reading & done & awake))]
        phase = Phase(awake=awake, turned=turned, entry=lookup(number, unit.used, unsigned(unit.index_bits)), side=side,
                      valid=valid, ends=ends, emptying=controls[0], en=sums.en)
        held = self.lanes(m, register, phase, x)
        found = [tree(held[p * unit.simd:(p + 1) * unit.simd], unit, register, f"{p}") for p in range(unit.pe)]
        self.store(m, register, phase, sums, found, controls, register(number, "number"))
        return m

    def lanes(self, m: Module, register: Register, phase: Phase, x: list[Value]) -> list[Value]:
        """What the bank that is read out held one cycle ago, in every lane."""
        return [self.lane(m, register, phase, lane, x[lane % len(x)]) for lane in range(self.unit.pe * self.unit.simd)]

    def lane(self, m: Module, register: Register, phase: Phase, lane: int, x: Value) -> Value:
        """The same of one lane."""
        unit = self.unit
        shape = unit.shape(0)
        held = []
        for bank in range(2):
            coming, here = ((~value, value)[bank] for value in (phase.turned, phase.side))
            index = register(Mux(coming, self.i.p.index[lane], phase.entry), f"index{lane}_{bank}")
            m.submodules[f"buckets{lane}_{bank}"] = buckets = memory.Memory(
                shape=unsigned(shape.width), depth=max(2, unit.codebook.entries), init=[])
            read, write = buckets.read_port(domain="comb"), buckets.write_port()
            content = Signal(shape, name=f"held{lane}_{bank}")
            total = add(content, x, gates=unit.codebook.entries > REGISTERS)
            m.d.comb += [
                read.addr.eq(index), content.eq(read.data), write.addr.eq(index), write.data.eq(Mux(here, total, 0)),
                write.en.eq(phase.en & Mux(here, phase.valid, phase.emptying)),
            ]
            held.append(content)
        return register(Mux(phase.side, held[0], held[1]), f"read{lane}")

    def store(self, m: Module, register: Register, phase: Phase, sums: WeightedSum, found: list[Value],
              controls: list[Value], number: Value) -> None:
        """Hands on what the adder trees found: ``controls`` and ``number`` are those of the cycle in which it was read."""
        m.d.comb += [value.eq(total) for value, total in zip(sums.values, found, strict=True)]
        self.steer(m, sums, register, controls, number)
