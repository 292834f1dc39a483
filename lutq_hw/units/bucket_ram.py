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
        read = Cost(ffs=width, brams=ram_brams(width, max(2, self.codebook.entries), 1))
        # What empties the bucket is in the adder on iCE40, and elsewhere behind it.
        return adding_cost(width, self.index_bits, levels=1 + (self.family is not ICE40)) + read

    def create(self) -> wiring.Component:
        return BucketRamArray(self)


def adding_cost(width: int, index_bits: int, *, levels: int) -> Cost:
    """Cells that add to what a block held, or to the sum just made, with ``levels`` luts on that path; and its registers."""
    note_paths([Path(levels=levels, adders=1, bits=width, brams=1, stores=1)])
    # A multiplexer in front of the adder; two index bits to a lut of the comparison, and one that joins them.
    compare = -(-index_bits // 2) + 1
    return Cost(luts=2 * width + compare, ffs=width + index_bits + 1, adder_bits=width, adders=1)


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
