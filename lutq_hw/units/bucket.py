"""K running sums of activations, one for each dictionary entry: the products are formed once for each dot product.

LUT-Q's own identity (arXiv 1811.05355): Σ_j d[w_j] a_j = Σ_k d_k Σ_{j: w_j = k} a_j.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from amaranth import Cat, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import memory, wiring

from ..cost import Cost
from ..gateware.accumulate import tree_levels
from ..gateware.weighted_sum import LATENCY, WeightedSum, memory_cost, read_levels, schedule, weighted_sum_cost
from ..mac import MacUnit
from ..network import Codebook
from ..network.tensor import Ints, signed_bits
from ..paths import Path, note_paths

_most: WeakKeyDictionary[Codebook, dict[tuple[object, ...], tuple[int, ...]]] = WeakKeyDictionary()

REGISTERS = 4
"""Entries up to which buckets are expected in registers."""

MOST_ENTRIES = 64
"""Entries up to which a dot product can be worth its gap."""


class Bucket(MacUnit):
    """Every lane adds its activation to the bucket of its index; in the gap the buckets are emptied one by one.

    What the lanes of an output hold for an entry is added up, stored, and multiplied in shifts and additions while the
    next dot product is summed (`gateware.weighted_sum`). The gap is one cycle for each entry that is not 0, more only if a
    dot product is too short to multiply in. Buckets are a memory that is read in the cycle of its address: distributed
    RAM where the FPGA has it, registers where not.
    """

    name = "bucket"
    needs = "a dictionary"
    any_length = False
    most_entries: ClassVar[int] = MOST_ENTRIES

    block_ram: ClassVar[bool] = False
    """Whether buckets, and what is read from them, are in block RAM."""

    @classmethod
    def reject(cls, codebook: Codebook, x_bits: int, x_signed: bool) -> str | None:
        if codebook.table is not None:
            return f"{cls.name} needs a dictionary, not a product table"
        if codebook.entries > cls.most_entries:
            return f"{cls.name} needs a dictionary of at most {cls.most_entries} entries, not {codebook.entries}"
        if not codebook.dictionary.any():
            return f"{cls.name} needs a dictionary with a value other than 0"
        return None

    @cached_property
    def used(self) -> list[int]:
        """Entries that are not 0, in the order in which they are read out."""
        return np.flatnonzero(self.codebook.dictionary[0]).tolist()

    @cached_property
    def zeros(self) -> int:
        """Zeros that all values end in."""
        union = int(np.bitwise_or.reduce(abs(self.codebook.dictionary[0])))
        return (union & -union).bit_length() - 1

    @cached_property
    def factors(self) -> list[int]:
        """What the stored sums are multiplied by."""
        return [int(self.codebook.dictionary[0, k]) >> self.zeros for k in self.used]

    @property
    def inner_bits(self) -> int:
        """Bits of a result without the zeros that it ends in."""
        return max(1, self.acc_bits - self.zeros)

    @cached_property
    def most(self) -> tuple[int, ...]:
        """Terms of a dot product that share an entry which is not 0, at most: in a lane, in two neighbours, in four, …"""
        assert self.order is not None
        known = _most.setdefault(self.codebook, {})
        key = self.order.shape, self.order.tobytes()
        if key not in known:
            known[key] = most_terms(self.codebook, self.order, self.used)
        return known[key]

    def shape(self, level: int) -> Shape:
        """Shape of an entry's sum after ``level`` levels of the adder tree: exact from the weights, or else wrapping."""
        if self.order is None:
            bits = self.inner_bits
        else:
            low, high = (self.most[level] * int(x) for x in (self.levels[0], self.levels[-1]))
            bits = signed_bits(low, high) if self.x_signed else max(1, high.bit_length())
        return (signed if self.x_signed else unsigned)(min(bits, self.inner_bits))

    @property
    def fold(self) -> int:
        """Words of the shortest dot product that may come."""
        return 1 if self.order is None else len(self.order)

    @property
    def period(self) -> int:
        """Cycles between dot products, at least: `WeightedSum` reads an entry for the last time before it is written again.

        Always more than there are entries: the first one is read when all have been written.
        """
        count, steps = len(self.used), schedule(self.factors)
        reads = (number + 1 + count - step.entry for number, step in enumerate(steps))
        return max(len(steps) + 1, *reads)

    @property
    def readout(self) -> tuple[int, ...]:
        return (*self.used, *[0] * max(0, self.period - self.fold - len(self.used)))

    @property
    def latency(self) -> int:
        return tree_levels(self.simd) + len(self.used) + len(schedule(self.factors)) + 2 + LATENCY

    def lane_cost(self) -> Cost:
        """Cells of the buckets of a lane, with the register of what is read."""
        width = self.shape(0).width
        adder = Cost(luts=width, ffs=width + self.index_bits, adder_bits=width, adders=1)
        # From the index through the memory and the adder to the registers of all entries; of gates that carry, a lut does
        # three bits.
        levels, bits = 2 + read_levels(self.family, self.codebook.entries), width
        if self.codebook.entries > REGISTERS and not self.x_signed:
            levels, bits = levels + -(-max(0, width - self.x_bits - 2) // 3), min(width, self.x_bits)
        note_paths([Path(levels=levels, adders=1, bits=bits)])
        return memory_cost(self.family, self.codebook.entries, width) + adder

    def control_cost(self) -> Cost:
        """Cells that say what is read out, and move with it down the adder tree."""
        number = max(1, (len(self.used) - 1).bit_length())
        return Cost(luts=1.5 * number + 5, ffs=(2 + tree_levels(self.simd)) * (number + 2) + 4)

    def cost(self) -> Cost:
        lanes = self.pe * self.simd
        registers = Cost(ffs=self.simd * self.x_bits)
        sums, left = Cost(), self.simd
        for level in range(1, 1 + tree_levels(self.simd)):
            bits, adds = self.shape(level).width, left // 2
            left -= adds
            sums += Cost(luts=adds * bits, ffs=left * bits, adder_bits=adds * bits, adders=adds)
        end = weighted_sum_cost(self.factors, pe=self.pe, width=self.shape(tree_levels(self.simd)).width,
                                acc_bits=self.inner_bits, family=self.family, block_ram=self.block_ram)
        return self.lane_cost() * lanes + registers + sums * self.pe + self.control_cost() + end

    def create(self) -> wiring.Component:
        return BucketArray(self)


def most_terms(codebook: Codebook, order: Ints, used: Sequence[int]) -> tuple[int, ...]:
    """How many terms of one dot product share an entry of ``used`` at most, in groups of 1, 2, 4, … neighbouring lanes."""
    index = codebook.assignments.reshape(len(codebook.assignments), -1)[:, order].transpose(0, 2, 1)
    cell = np.arange(len(index) * order.shape[1]).reshape(len(index), -1, 1) * codebook.entries + index
    counts = np.bincount(cell.reshape(-1), minlength=len(index) * order.shape[1] * codebook.entries)
    counts = counts.reshape(len(index), order.shape[1], codebook.entries)[:, :, used]
    found = [int(counts.max())]
    while counts.shape[1] > 1:
        if counts.shape[1] % 2:
            counts = np.pad(counts, ((0, 0), (0, 1), (0, 0)))
        counts = counts[:, ::2] + counts[:, 1::2]
        found.append(int(counts.max()))
    return tuple(found)


class Register(Protocol):
    """Makes a register that moves with the pipeline."""

    def __call__(self, value: Value, name: str, reset_less: bool = True) -> Signal:
        """``value`` one enabled cycle ago."""
        ...


class BucketArray(wiring.Component):
    """The array of `Bucket`: register, buckets, register, adder tree, `WeightedSum`."""

    def __init__(self, unit: Bucket):
        super().__init__(unit.members)
        self.unit = unit

    def elaborate(self, platform) -> Module:
        m = Module()
        unit = self.unit
        sums, register = self.end(m)
        en, count = sums.en, len(unit.used)
        x = [register(value, f"x{s}") for s, value in enumerate(self.i.p.x)]
        valid = register(self.i.valid, "valid", reset_less=False)
        # After reset, whatever the buckets held is emptied until the first word comes, and nothing is summed up: the
        # indices of the gap reach the unit only after some that the pipeline in front of it made up.
        ends, emptying, live, waiting = Signal(), Signal(), Signal(), Signal()
        m.d.comb += waiting.eq(~live & ~valid & ~self.i.valid)
        number = Signal(range(max(2, count)))
        done = number == count - 1
        with m.If(en):
            m.d.sync += [ends.eq(self.i.valid & self.i.p.last), emptying.eq(ends | (emptying & ~done & live) | waiting),
                         number.eq(Mux(emptying, number + 1, 0)), live.eq(live | valid)]
        for p in range(unit.pe):
            lanes = range(p * unit.simd, (p + 1) * unit.simd)
            held = [self.bucket(m, en, lane, x[lane % unit.simd], valid, emptying, register) for lane in lanes]
            m.d.comb += sums.values[p].eq(tree(held, unit, register, f"{p}"))
        self.steer(m, sums, register, [emptying, emptying & done & live], number)
        return m

    def end(self, m: Module, awake: Value | None = None) -> tuple[WeightedSum, Register]:
        """What multiplies and offers the sums, and a register that moves with it; words are taken while ``awake``."""
        unit = self.unit
        m.submodules.sums = sums = WeightedSum(unit.factors, pe=unit.pe, shape=unit.shape(tree_levels(unit.simd)),
                                              acc_bits=unit.inner_bits, block_ram=unit.block_ram)
        ready = sums.en if awake is None else sums.en & awake
        m.d.comb += [self.i.ready.eq(ready), self.o.valid.eq(sums.o.valid), sums.o.ready.eq(self.o.ready)]
        for p in range(unit.pe):
            m.d.comb += self.o.payload[p].eq(sums.o.payload[p] << unit.acc_bits - unit.inner_bits)

        def register(value: Value, name: str, reset_less: bool = True) -> Signal:
            kept = Signal(value.shape(), name=name, reset_less=reset_less)
            with m.If(sums.en):
                m.d.sync += kept.eq(value)
            return kept

        return sums, register

    def steer(self, m: Module, sums: WeightedSum, register: Register, controls: list[Value], number: Value) -> list[Value]:
        """Takes what the sums need to know along the register behind the buckets and the adder tree.

        ``controls`` say that an entry is read, and that it is the last one; the low bits of ``number`` say which. The
        result is ``number`` behind each register, the first one before any.
        """
        numbers = [number]
        for stage in range(1 + tree_levels(self.unit.simd)):
            controls = [register(control, f"control{stage}_{n}", reset_less=False) for n, control in enumerate(controls)]
            numbers.append(register(numbers[-1], f"number{stage}"))
        m.d.comb += [sums.write.eq(controls[0]), sums.start.eq(controls[1]), sums.entry.eq(numbers[-1])]
        return numbers

    def bucket(self, m: Module, en: Value, lane: int, x: Value, valid: Value, emptying: Value, register: Register) -> Value:
        """What the bucket of a lane's index held one cycle ago."""
        unit = self.unit
        shape = unit.shape(0)
        index = register(self.i.p.index[lane], f"index{lane}")
        m.submodules[f"buckets{lane}"] = buckets = memory.Memory(
            shape=unsigned(shape.width), depth=max(2, unit.codebook.entries), init=[])
        read, write = buckets.read_port(domain="comb"), buckets.write_port()
        held = Signal(shape, name=f"held{lane}")
        m.d.comb += [
            read.addr.eq(index), write.addr.eq(index), write.en.eq(en & (valid | emptying)),
            held.eq(read.data), write.data.eq(Mux(emptying, 0, add(held, x, gates=unit.codebook.entries > REGISTERS))),
        ]
        return register(held, f"read{lane}")


def tree(values: list[Value], unit: Bucket, register: Register, name: str) -> Value:
    """Sum of what the lanes of an output held, in as many cycles as it has levels."""
    for level in range(1, 1 + tree_levels(unit.simd)):
        pairs = (values[n:n + 2] for n in range(0, len(values), 2))
        values = [register(fit(sum(pair[1:], start=pair[0]), unit.shape(level)), f"sum{name}_{level}_{n}")
                  for n, pair in enumerate(pairs)]
    return values[0]


def add(sum: Value, x: Value, *, gates: bool) -> Value:
    """``sum + x`` in the bits of ``sum``, in ``gates`` if asked to: on a carry chain nothing else finds room in its luts.

    With gates, what empties a bucket goes into the luts of the sum, and above the bits of ``x`` a bit takes little more than
    one: three luts fewer for a bucket of 8 bits and an activation of 4.
    """
    if x.shape().signed or not gates:
        return sum + x
    low = sum[:len(x)] + x
    bits: list[Any] = [*low[:-1]]
    carry: Any = low[-1]
    for bit in sum[len(x):]:
        bits.append(bit ^ carry)
        carry = bit & carry
    return Cat(bits)


def fit(value: Value, shape: Shape) -> Value:
    """``value`` in ``shape``, which holds it or wraps it."""
    bits: Any = value[:shape.width] if len(value) > shape.width else value
    return bits.as_signed() if shape.signed else bits.as_unsigned()
