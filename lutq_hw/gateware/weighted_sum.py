"""A few stored sums, each times its constant, added up one digit a cycle: the end of units that multiply last."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from amaranth import Cat, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..cost import Cost, ram_brams
from ..family import Family
from ..logic_estimate import Logic
from ..paths import Path, counted_paths, note_paths
from .lanes import fill, lookup, signed_digits
from .ram import BankedRam

LATENCY = 2
"""Cycles from ``start`` to ``o.valid`` beside the steps: the controls of a step, and the sum."""

CONTROL_LUTS = 6
"""Of the bits that start and end a sum."""


class Step(NamedTuple):
    """What one cycle does: ``total = (total << shift) ± entry``."""

    entry: int
    negative: bool
    shift: bool


def schedule(factors: Sequence[int]) -> tuple[Step, ...]:
    """Steps that leave Σ factors[e] * entry e, by Horner's rule over the digits of the factors, highest power first.

    Where no factor has a digit, entry 0 is subtracted and added. The last step adds.
    """
    return _schedule(tuple(factors))


@cache
def _schedule(factors: tuple[int, ...]) -> tuple[Step, ...]:
    """`schedule`, remembered: a planner asks for the same in hundreds of sizes."""
    nothing = [(True, 0), (False, 0)]
    powers: dict[int, list[tuple[bool, int]]] = {}
    for entry, factor in enumerate(factors):
        for sign, power in signed_digits(factor):
            powers.setdefault(power, []).append((sign < 0, entry))
    steps: list[Step] = []
    for power in range(max(powers, default=-1), -1, -1):
        # Negative ones first: so the last step of all adds, if any digit there does.
        digits = sorted(powers.get(power, []), key=lambda digit: (not digit[0], digit[1]))
        for number, (negative, entry) in enumerate(digits or nothing):
            steps.append(Step(entry, negative, shift=number == 0 and bool(steps)))
    if not steps or steps[-1].negative:
        steps += [Step(entry, negative, shift=False) for negative, entry in nothing]
    return tuple(steps)


class WeightedSum(wiring.Component):
    """Entries are written one by one, for ``pe`` outputs at once; then ``o`` offers Σ factors[e] * entry e.

    They are kept in registers or distributed RAM (see `memory_cost`), or with ``block_ram`` in block RAM.

    Everything moves when ``en`` is high, which is ``o.ready | ~o.valid``, combinationally. ``start`` comes with the last
    entry of a sum; step n of `schedule` reads its entry in the (n + 2)-th enabled cycle after that, and ``o.valid`` is high
    ``len(steps) + LATENCY`` cycles after it. An entry may be written again in the cycle of its last reading, not before;
    the next ``start`` may come ``len(steps) + 1`` cycles after this one.

    An adder and a LUT4 for each bit: a subtraction is an addition to the complement, and the total stays complemented
    until the next digit that adds.

    Members
    -------
    write, entry, values
        ``values[p]`` is entry number ``entry`` of output p.
    start, en
        See above.
    o
        Stream of ``pe`` signed sums modulo ``2**acc_bits``.
    """

    def __init__(self, factors: Sequence[int], *, pe: int, shape: Shape, acc_bits: int, block_ram: bool = False):
        self.factors, self.pe, self.shape, self.acc_bits = tuple(factors), pe, shape, acc_bits
        self.block_ram = block_ram
        self.steps = schedule(factors)
        super().__init__({
            "write": In(1), "entry": In(range(max(2, len(self.factors)))), "values": In(data.ArrayLayout(shape, pe)),
            "start": In(1), "en": Out(1),
            "o": Out(stream.Signature(data.ArrayLayout(signed(acc_bits), pe))),
        })

    def elaborate(self, platform) -> Module:
        m = Module()
        steps, en = self.steps, self.en
        m.d.comb += en.eq(self.o.ready | ~self.o.valid)
        number = Signal(range(max(2, len(steps))))
        running = Signal()
        last = number == len(steps) - 1
        with m.If(en):
            m.d.sync += [number.eq(Mux(running, number + 1, 0)), running.eq(self.start | (running & ~last))]

        active, final = Signal(), Signal()
        entry = Signal.like(self.entry)
        m.d.comb += entry.eq(lookup(number, [step.entry for step in steps], unsigned(len(entry))))
        read = self._entries(m, entry)
        shift, negative, inverted = (Signal(name=name, reset_less=True) for name in ("shift", "negative", "inverted"))
        with m.If(en):
            m.d.sync += [
                active.eq(running), final.eq(running & last), self.o.valid.eq(final),
                shift.eq(lookup(number, [step.shift for step in steps], unsigned(1))),
                negative.eq(lookup(number, [step.negative for step in steps], unsigned(1))),
                inverted.eq(active & negative),
            ]
        flip = Signal()
        m.d.comb += flip.eq(negative ^ inverted)
        for p in range(self.pe):
            total = Signal(signed(self.acc_bits), name=f"total{p}", reset_less=True)
            # The bit that a shift brings in is a zero, complemented like the rest.
            moved = Mux(shift, Cat(inverted, total)[:self.acc_bits], total)
            term = data.View(data.ArrayLayout(self.shape, self.pe), read)[p]
            with m.If(en):
                m.d.sync += total.eq(Mux(active, (moved ^ flip.replicate(self.acc_bits)).as_signed() + term, 0))
            m.d.comb += self.o.payload[p].eq(total)
        return m

    def _entries(self, m: Module, entry: Signal) -> Value:
        """The entry of all outputs whose number was ``entry`` one enabled cycle ago."""
        width, depth = self.shape.width * self.pe, max(2, len(self.factors))
        write = self.en & self.write
        if self.block_ram:
            m.submodules.entries = ram = BankedRam(width, depth, banks=1)
            m.d.comb += [ram.write_addr.eq(self.entry), ram.write_data.eq(self.values.as_value()), ram.write_en.eq(write),
                         ram.read_addr.eq(entry), ram.read_en.eq(self.en)]
            return ram.read_data
        m.submodules.entries = entries = memory.Memory(shape=width, depth=depth, init=[])
        store, read = entries.write_port(), entries.read_port(domain="comb")
        # The register stands before the address and not behind the memory, which block RAM would swallow.
        address = Signal(len(read.addr), reset_less=True)
        with m.If(self.en):
            m.d.sync += address.eq(entry)
        m.d.comb += [store.addr.eq(self.entry), store.data.eq(self.values.as_value()), store.en.eq(write),
                     read.addr.eq(address)]
        return read.data


def memory_cost(family: Family, depth: int, width: int) -> Cost:
    """Cells of a memory that is read in the cycle of its address: made of luts where the family can, else registers."""
    depth = max(2, depth)
    if family.lutram is None:
        # A multiplexer of two for each entry but the first, and an enable for each.
        return Cost(luts=width * (depth - 1) + depth, ffs=depth * width)
    words, bits, luts = family.lutram
    blocks = -(-depth // words)
    return Cost(luts=blocks * -(-width // bits) * luts + (width * (blocks - 1) + blocks if blocks > 1 else 0))


def read_levels(family: Family, depth: int) -> int:
    """Luts one behind the other in the read port of such a memory: each selects one of two, or half of one of four."""
    return 1 if family.lutram is not None else max(1, (depth - 1).bit_length())


def table_luts(tables: Sequence[Sequence[int]], count: int, family: Family) -> int:
    """Luts of functions of a counter below ``count``, given bit by bit."""
    luts, paths = _table_luts(tuple(map(tuple, tables)), count, family)
    note_paths(paths)
    return luts


@cache
def _table_luts(tables: tuple[tuple[int, ...], ...], count: int, family: Family) -> tuple[int, tuple[Path, ...]]:
    """`table_luts` with its paths, remembered: a planner asks for the same in hundreds of sizes."""
    with counted_paths() as paths:
        logic = Logic(family.lut_inputs)
        number = [logic.input(bit) for bit in range(max(1, (count - 1).bit_length()))]
        luts = logic.luts([logic.tree(fill(table, len(number)), number) for table in tables])
    return luts, tuple(paths)


def weighted_sum_cost(factors: Sequence[int], *, pe: int, width: int, acc_bits: int, family: Family,
                      block_ram: bool = False) -> Cost:
    """Cells of a `WeightedSum`."""
    depth = max(2, len(factors))
    address_bits, number_bits = (depth - 1).bit_length(), max(1, (len(schedule(factors)) - 1).bit_length())
    control = Cost(luts=_step_luts(factors, family) + 1.5 * number_bits + CONTROL_LUTS,
                   ffs=number_bits + (0 if block_ram else address_bits) + 7)
    sums = Cost(luts=2 * pe * acc_bits, ffs=pe * acc_bits, adder_bits=pe * acc_bits, adders=pe)
    # Whether the sum is complemented, the sum shifted and complemented, and the adder; or an entry and the adder.
    entry = Path(brams=1) if block_ram else Path(levels=read_levels(family, depth))
    note_paths([Path(levels=2, adders=1, bits=acc_bits), entry._replace(adders=1, bits=acc_bits)])
    kept = Cost(brams=ram_brams(pe * width, depth, 1)) if block_ram else memory_cost(family, len(factors), pe * width)
    return kept + control + sums


def _step_luts(factors: Sequence[int], family: Family) -> int:
    """Luts that tell a step's entry, shift and sign from its number."""
    steps = schedule(factors)
    tables = [[step.entry >> bit & 1 for step in steps] for bit in range((max(2, len(factors)) - 1).bit_length())]
    tables += [[int(step.shift) for step in steps], [int(step.negative) for step in steps]]
    return table_luts(tables, len(steps), family)
