"""Running sums for each dictionary entry in block RAM, read out while the next dot product is summed.

For FPGAs with more block RAM than logic: two blocks a lane and as few luts as `bucket-ram`, without its gap.
"""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import wiring

from ..cost import Cost, ram_brams
from ..families import ICE40
from ..gateware.accumulate import tree_levels
from ..gateware.ram import BankedRam
from ..gateware.weighted_sum import WeightedSum
from .bucket import fit
from .bucket_overlap import BucketOverlap, BucketOverlapArray, Phase, Register
from .bucket_ram import adding_cost


class BucketRamOverlap(BucketOverlap):
    """`BucketOverlap` with both banks in one memory, which is never emptied: a sum is what it has grown by.

    A block reads and writes one word a cycle. Summing needs all of that; reading out and emptying would need as much again.
    So buckets run on, modulo the width of the sum of all lanes of an output, and behind the adder tree what was read there
    two dot products ago is subtracted: only a copy of the memory is needed, written alike and read elsewhere. Neither
    addresses nor data pass a multiplexer, as they would if two memories changed roles, but for zeros that are written
    into one bank and the other after reset; behind the third pass of the `startup` both have been read since then.
    """

    name = "bucket-ram-overlap"
    needs = "a dictionary"
    most_entries = 256
    block_ram = True
    passes = 3

    def shape(self, level: int) -> Shape:
        # Differences are right only modulo what the buckets wrap at.
        return super().shape(tree_levels(self.simd))

    @property
    def depth(self) -> int:
        """Words of both banks."""
        return 2 << self.index_bits

    def lane_cost(self) -> Cost:
        width = self.shape(0).width
        # In front of the address register, an index or the entry that is cleared.
        address = Cost(luts=self.index_bits)
        return adding_cost(width, self.index_bits, levels=1) + address + Cost(brams=2 * ram_brams(width, self.depth, 1))

    def control_cost(self) -> Cost:
        bits = self.pe * self.shape(0).width
        number = max(1, (len(self.used) - 1).bit_length())
        # The carry chain of iCE40 takes what is subtracted in luts of its own.
        inverted = bits if self.family is ICE40 else 0
        before = Cost(luts=bits + inverted, adder_bits=bits, adders=self.pe, brams=ram_brams(bits, 2 << number, 1))
        return super().control_cost() + before + Cost(luts=3, ffs=self.index_bits + tree_levels(self.simd))

    def create(self) -> wiring.Component:
        return BucketRamOverlapArray(self)


class BucketRamOverlapArray(BucketOverlapArray):
    """The array of `BucketRamOverlap`."""

    def lanes(self, m: Module, register: Register, phase: Phase, x: list[Value]) -> list[Value]:
        place = Cat(register(phase.entry, "entry"), ~phase.side)
        clearing = register(~phase.awake, "clearing")
        return [self.running(m, register, phase, lane, x[lane % len(x)], place, clearing)
                for lane in range(self.unit.pe * self.unit.simd)]

    def running(self, m: Module, register: Register, phase: Phase, lane: int, x: Value, place: Value,
                clearing: Value) -> Value:
        """What ``place`` held one cycle ago in a lane."""
        unit = self.unit
        shape, coming = unit.shape(0), self.i.p.index[lane]
        index = register(Mux(phase.awake, coming, phase.entry), f"index{lane}")
        written, written_en = Signal(shape, name=f"written{lane}"), phase.valid | clearing
        # A word is read one cycle after its address, in which the one before is written: an index that comes again in the
        # same bank goes on with the sum that has just been made.
        kept = register(written, f"kept{lane}")
        again = register(written_en & ~phase.ends & (coming == index), f"again{lane}")
        copies = [BankedRam(shape.width, unit.depth, banks=1) for _ in range(2)]
        held = Signal(shape, name=f"held{lane}")
        for number, (copy, read) in enumerate(zip(copies, (Cat(coming, phase.turned), place), strict=True)):
            m.submodules[f"buckets{lane}_{number}"] = copy
            m.d.comb += [
                copy.read_addr.eq(read), copy.read_en.eq(phase.en),
                copy.write_addr.eq(Cat(index, phase.side)), copy.write_en.eq(phase.en & written_en),
                copy.write_data.eq(written),
            ]
        m.d.comb += [held.eq(Mux(again, kept, copies[0].read_data)), written.eq(Mux(clearing, 0, held + x))]
        return fit(copies[1].read_data, shape)

    def store(self, m: Module, register: Register, phase: Phase, sums: WeightedSum, found: list[Value],
              controls: list[Value], number: Value) -> None:
        unit = self.unit
        width = unit.shape(0).width
        places = self.steer(m, sums, register, controls, Cat(number, phase.side))
        m.submodules.before = before = BankedRam(width * unit.pe, 1 << len(places[0]), banks=1)
        m.d.comb += [
            before.read_addr.eq(places[-2]), before.read_en.eq(phase.en),
            before.write_addr.eq(places[-1]), before.write_en.eq(phase.en & sums.write),
            before.write_data.eq(Cat(total[:width] for total in found)),
        ]
        for p, total in enumerate(found):
            m.d.comb += sums.values[p].eq(total[:width] - before.read_data.word_select(p, width))
