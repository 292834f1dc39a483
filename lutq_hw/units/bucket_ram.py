"""Running sums for each dictionary entry in block RAM: a dictionary of any structure for two luts a bit and a block a lane.

For FPGAs without distributed RAM (iCE40), where the registers and multiplexers of `bucket` are dear.
"""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import wiring

from ..cost import Cost, ram_brams
from ..families import ICE40
from ..gateware.ram import BankedRam
from ..paths import Path, note_paths
from .bucket import Bucket, BucketArray, Register


class BucketRam(Bucket):
    """`Bucket` with the sums of every lane in block RAM of its own, and those that wait for their product in another.

    A block is read one cycle after its address, in the cycle in which the sum before is written. A lane whose index comes
    twice in a row therefore goes on with the sum that it has just made.
    """

    name = "bucket-ram"
    needs = "a dictionary"
    most_entries = 256
    block_ram = True

    def lane_cost(self) -> Cost:
        width = self.shape(0).width
        # A multiplexer in front of the adder; two index bits to a lut of the comparison, and one that joins them.
        compare = -(-self.index_bits // 2) + 1
        # What was read or made, the adder, what empties the bucket (on iCE40 in the adder), and the other end of the block.
        note_paths([Path(levels=1 + (self.family is not ICE40), adders=1, bits=width, brams=1, stores=1)])
        logic = Cost(luts=2 * width + compare, ffs=2 * width + self.index_bits + 1, adder_bits=width, adders=1)
        return logic + Cost(brams=ram_brams(width, max(2, self.codebook.entries), 1))

    def create(self) -> wiring.Component:
        return BucketRamArray(self)


class BucketRamArray(BucketArray):
    """The array of `BucketRam`."""

    def bucket(self, m: Module, en: Value, lane: int, x: Value, valid: Value, emptying: Value, register: Register) -> Value:
        shape = self.unit.shape(0)
        coming = self.i.p.index[lane]
        index = register(coming, f"index{lane}")
        written = Signal(shape, name=f"written{lane}")
        kept = register(written, f"kept{lane}")
        again = register((valid | emptying) & (coming == index), f"again{lane}")
        m.submodules[f"buckets{lane}"] = buckets = BankedRam(shape.width, max(2, self.unit.codebook.entries), banks=1)
        held = Signal(shape, name=f"held{lane}")
        m.d.comb += [
            buckets.read_addr.eq(coming), buckets.read_en.eq(en),
            buckets.write_addr.eq(index), buckets.write_en.eq(en & (valid | emptying)),
            held.eq(Mux(again, kept, buckets.read_data)),
            written.eq(Mux(emptying, 0, held + x)), buckets.write_data.eq(written),
        ]
        return register(held, f"read{lane}")
