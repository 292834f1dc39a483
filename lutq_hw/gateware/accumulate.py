"""Adder tree and accumulator: what every MAC unit has behind its products."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from amaranth import Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..cost import Cost
from ..network.tensor import signed_bits
from .digits import fewest_luts, scale_ffs, scale_luts

CONTROL_LUTS = 4
"""Of the valid and last bits, however large the array."""


def tree_levels(simd: int) -> int:
    """Registered levels of the adder tree over ``simd`` terms."""
    return (simd - 1).bit_length()


def spare_carry(simd: int) -> bool:
    """Whether a tree over ``simd`` terms has a carry input for all but the first."""
    return simd & (simd - 1) == 0


def scale_levels(factor: int) -> int:
    """Registered levels that multiply finished sums by a positive ``factor``: one for each adder."""
    return max(0, len(fewest_luts(factor)) - 1)


class TermRange(NamedTuple):
    """What one term can be: ``low <= value`` and ``value + carry <= high``, in units of ``2**zeros``."""

    low: int
    high: int
    zeros: int = 0
    carries: bool = False
    """Every term brings a carry: a bit of the same weight as the term's lowest, to be added to it."""

    @property
    def bits(self) -> int:
        """Bits of one term."""
        return self.sum_bits(1)

    def sum_bits(self, count: int) -> int:
        """Bits of the sum of ``count`` terms, some of their carries added or not; without a sign where none is negative."""
        if self.low >= 0:
            return max(1, (count * self.high).bit_length())
        return signed_bits(count * self.low, max(count * self.high, 0))

    def shape(self, bits: int) -> Shape:
        """Shape of a sum that is kept in ``bits``."""
        return Shape(bits, signed=self.low < 0)


class Node(NamedTuple):
    """A sum on its way down the tree, and the one carry of its terms that is not in it yet."""

    value: Value
    carry: Value | None
    terms: int


class Accumulate(wiring.Component):
    """Sums ``simd`` terms a cycle for each of ``pe`` outputs, up to and including the word with ``last``.

    Moves when ``en`` is high, which is ``o.ready | ~o.valid``, combinationally; bubbles (``valid`` low) move too. The
    sums follow the last word by ``tree_levels(simd) + 1 + scale_levels(factor)`` cycles. A word of terms is taken every
    cycle. ``factor``, which all products have in common, is multiplied into the finished sums: an adder and a register for
    each of its digits beyond the first.

    On iCE40 an adder bit is one LUT4 with its carry, and three things are hidden in there:

    * the first word of a sum overwrites the accumulator through the fourth LUT input, no masking is needed;
    * a term's carry (the + 1 of a two's complement) is the carry input of the adder that takes it, or a later one;
    * an operand without partner takes its carry while it waits.

    A tree over a power of two has one adder less than terms and nobody who waits, and the accumulator's carry input
    would be lost with the first word. There the first term brings no carry (`spare_carry`): its lane adds it.

    Members
    -------
    terms, carries
        Of output p and term s at ``p * simd + s``; ``carries`` only if ``term.carries``, and if `spare_carry` not used
        for s = 0.
    valid, last, en
        The word is there; it ends a sum; it is taken.
    o
        Stream of ``pe`` signed sums.
    """

    def __init__(self, *, pe: int, simd: int, acc_bits: int, term: TermRange, factor: int = 1):
        self.pe, self.simd, self.acc_bits, self.term, self.factor = pe, simd, acc_bits, term, factor
        self.inner_bits = max(1, acc_bits - term.zeros)
        """Bits of an accumulator, without those that are always zero."""
        members = {
            "terms": In(data.ArrayLayout(term.shape(min(term.bits, self.inner_bits)), pe * simd)),
            "valid": In(1), "last": In(1), "en": Out(1),
            "o": Out(stream.Signature(data.ArrayLayout(signed(acc_bits), pe))),
        }
        if term.carries:
            members["carries"] = In(pe * simd)
        super().__init__(members)

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += self.en.eq(self.o.ready | ~self.o.valid)
        valid, last = self.valid, self.last
        for level in range(tree_levels(self.simd)):
            valid, last = (self._register(m, bit, f"{name}{level}", reset_less=False)
                           for name, bit in (("valid", valid), ("last", last)))
        first = Signal(init=1)
        taken = Signal()
        m.d.comb += taken.eq(self.en & valid)
        with m.If(taken):
            m.d.sync += first.eq(last)
        done = self._register(m, valid & last, "done", reset_less=False)
        for level in range(scale_levels(self.factor)):
            done = self._register(m, done, f"done{level}", reset_less=False)
        m.d.comb += self.o.valid.eq(done)
        for p in range(self.pe):
            total = self._tree(m, p).value
            acc = Signal(signed(self.inner_bits), name=f"acc{p}", reset_less=True)
            with m.If(taken):
                m.d.sync += acc.eq(Mux(first, total, acc + total))
            m.d.comb += self.o.payload[p].eq(self._scaled(m, acc, p) << self.term.zeros)
        return m

    def _scaled(self, m: Module, acc: Signal, p: int) -> Value:
        """The finished sum times ``factor``, highest digit first."""
        (_, highest), *digits = reversed(fewest_luts(self.factor))
        kept, total = acc, (acc << highest)[:self.inner_bits].as_signed()
        for level, (sign, shift) in enumerate(digits):
            moved = kept << shift
            total = self._register(m, total + moved if sign > 0 else total - moved, f"scaled{p}_{level}", acc.shape())
            if level + 1 < len(digits):
                kept = self._register(m, kept, f"kept{p}_{level}", acc.shape())
        return total

    def _tree(self, m: Module, p: int) -> Node:
        """Sum of the terms of output ``p``."""
        nodes = []
        for s in range(self.simd):
            lane = p * self.simd + s
            carry = self.term.carries and not (s == 0 and spare_carry(self.simd))
            nodes.append(Node(self.terms[lane], self.carries[lane] if carry else None, 1))
        for level in range(tree_levels(self.simd)):
            nodes = [self._merge(m, nodes[n:n + 2], f"{p}_{level}_{n // 2}") for n in range(0, len(nodes), 2)]
        assert nodes[0].carry is None
        return nodes[0]

    def _merge(self, m: Module, pair: list[Node], name: str) -> Node:
        """Adds two nodes, or moves a lone one, and takes a carry in."""
        count = sum(node.terms for node in pair)
        carries = [node.carry for node in pair if node.carry is not None]
        taken = carries.pop(0) if carries else None
        if len(pair) == 2:
            value = add(pair[0].value, pair[1].value, taken)
        else:
            value = pair[0].value if taken is None else pair[0].value + taken
        shape = self.term.shape(min(self.term.sum_bits(count), self.inner_bits))
        return Node(self._register(m, value, f"sum{name}", shape),
                    self._register(m, carries[0], f"carry{name}") if carries else None, count)

    def _register(self, m: Module, value: Value, name: str, shape=1, reset_less: bool = True) -> Signal:
        register = Signal(shape, name=name, reset_less=reset_less)
        with m.If(self.en):
            m.d.sync += register.eq(value)
        return register


def add(a: Value, b: Value, carry: Value | None) -> Value:
    """``a + b``, and of signed values ``a + b + carry``, in one adder: its carry input comes from one bit below."""
    if carry is None:
        return a + b
    return (Cat(Const(1, 1), a).as_signed() + Cat(carry, b).as_signed())[1:].as_signed()


def sums_cost(*, pe: int, simd: int, acc_bits: int, term: TermRange, factor: int = 1) -> Cost:
    """Cells of an `Accumulate`: one LUT4 for each adder bit; what waits for a partner is a bare register."""
    luts, ffs, adders = _output_cells(simd, acc_bits, term, factor)
    control = 2 * tree_levels(simd) + 2 + scale_levels(factor)
    return Cost(luts=pe * luts + CONTROL_LUTS, ffs=pe * ffs + control, adder_bits=pe * luts, adders=pe * adders)


@cache
def _output_cells(simd: int, acc_bits: int, term: TermRange, factor: int) -> tuple[int, int, int]:
    """Luts, flip-flops and adders of one output's tree and accumulator."""
    inner_bits = max(1, acc_bits - term.zeros)
    luts = ffs = inner_bits
    adders = 1
    counts = [1] * simd
    carries = term.carries
    waiting = [carries] * simd
    if spare_carry(simd):
        waiting[0] = False
    for _ in range(tree_levels(simd)):
        pairs = [slice(n, n + 2) for n in range(0, len(counts), 2)]
        merged = [sum(counts[pair]) for pair in pairs]
        left = []
        for pair, count in zip(pairs, merged, strict=True):
            bits = min(term.sum_bits(count), inner_bits)
            adds = len(counts[pair]) == 2 or any(waiting[pair])
            luts += bits * adds
            adders += adds
            left.append(sum(waiting[pair]) == 2)
            ffs += bits + left[-1]
        counts, waiting = merged, left
    return luts + scale_luts(factor, inner_bits), ffs + scale_ffs(factor, inner_bits), adders + scale_levels(factor)
