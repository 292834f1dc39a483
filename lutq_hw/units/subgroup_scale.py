"""Weights of -1, 0 and 1 with a scale for each subgroup: terms are added and subtracted, sums are multiplied.

SYQ (arXiv 1807.00301): Σ_j α_g(j) q_j a_j = Σ_g α_g Σ_{j in g} q_j a_j, where g(j) is the kernel row or pixel of term j.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from amaranth import EnableInserter, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring

from ..cost import Cost
from ..gateware.lanes import lookup
from ..gateware.weighted_sum import LATENCY, WeightedSum, schedule, table_luts, weighted_sum_cost
from ..mac import MacUnit
from ..network import Codebook
from ..network.tensor import Ints, signed_bits
from ..remembered import kept_view
from .shift_add import ShiftAdd

MOST_RUNS = 64
"""Runs of words of one subgroup, each with a sum of its own, up to which a dot product can be worth its gap."""


@kept_view
def signs_only(weights: Codebook) -> Codebook:
    """Weights without their scales."""
    largest = abs(weights.dictionary).max(axis=1).argmax()
    return Codebook(assignments=weights.assignments, dictionary=np.sign(weights.dictionary[largest]))


class SubgroupScale(MacUnit):
    """Adds and subtracts the terms of one subgroup after the other; each sum is multiplied once, at the end.

    Words must not mix subgroups: kernel rows and pixels come one after the other where one row is read at a time. The sums
    are stored and multiplied in shifts and additions while the next dot product is summed (`gateware.weighted_sum`); there
    is a gap only where a dot product is too short for that. The index is that of -1, 0 or 1, whatever the subgroup.
    """

    name = "subgroup-scale"
    needs = "dictionaries of -a, 0 and a, one for each subgroup"
    any_length = False

    @classmethod
    def view(cls, weights: Codebook) -> Codebook:
        return weights

    @classmethod
    def reject(cls, codebook: Codebook, x_bits: int, x_signed: bool) -> str | None:
        if codebook.table is not None:
            return "subgroup-scale needs dictionaries, not a product table"
        if not codebook.dictionary.any():
            return "subgroup-scale needs a dictionary with a value other than 0"
        scale = abs(codebook.dictionary).max(axis=1, keepdims=True)
        signs = np.sign(codebook.dictionary)
        for row, size, pattern in zip(codebook.dictionary, scale, signs, strict=True):
            if (row != size * pattern).any():
                return f"subgroup-scale needs dictionaries of -a, 0 and a, not {row.tolist()}"
        if len(np.unique(signs[scale[:, 0] > 0], axis=0)) > 1:
            return "subgroup-scale needs dictionaries that differ by positive factors"
        return None

    @classmethod
    def reject_order(cls, weights: Codebook, order: Ints) -> str | None:
        groups = weights.subgroups.reshape(-1)[order]
        if (groups != groups[:, :1]).any():
            return "subgroup-scale needs words of one subgroup; read one kernel row at a time (rows 1)"
        runs = 1 + np.count_nonzero(np.diff(groups[:, 0].astype(int)))
        if runs > MOST_RUNS:
            return f"subgroup-scale needs subgroups in at most {MOST_RUNS} runs of words, not {runs}"
        return None

    @cached_property
    def scales(self) -> Ints:
        """Factor of every subgroup."""
        return abs(self.codebook.dictionary).max(axis=1)

    @cached_property
    def zeros(self) -> int:
        """Zeros that all factors end in."""
        union = int(np.bitwise_or.reduce(self.scales))
        return (union & -union).bit_length() - 1

    @property
    def inner_bits(self) -> int:
        """Bits of a result without the zeros that it ends in."""
        return max(1, self.acc_bits - self.zeros)

    @cached_property
    def ends(self) -> list[int]:
        """Words that end a run of one subgroup."""
        if self.order is None:
            return [0]
        groups = self.codebook.subgroups.reshape(-1)[self.order[:, 0]].astype(int)
        return [*np.flatnonzero(np.diff(groups)).tolist(), len(groups) - 1]

    @cached_property
    def factors(self) -> list[int]:
        """What the sum of every run is multiplied by."""
        groups = [0] if self.order is None else self.codebook.subgroups.reshape(-1)[self.order[self.ends, 0]]
        return [int(self.scales[g]) >> self.zeros for g in groups]

    @cached_property
    def signs(self) -> Ints:
        """What every index stands for: -1, 0 or 1."""
        return signs_only(self.codebook).dictionary[0]

    @cached_property
    def adder(self) -> MacUnit:
        """The unit that adds and subtracts, one run after the other."""
        return ShiftAdd(codebook=signs_only(self.codebook), x_bits=self.x_bits, x_signed=self.x_signed, pe=self.pe,
                        simd=self.simd, acc_bits=self.run_bits, family=self.family)

    @cached_property
    def run_bits(self) -> int:
        """Bits of the sum of a run: exact from the layer's weights, or else wrapping."""
        if self.order is None:
            return self.inner_bits
        terms = self.signs[self.codebook.assignments.reshape(len(self.codebook.assignments), -1)[:, self.order]]
        starts = [0, *(end + 1 for end in self.ends[:-1])]
        more, less = (np.add.reduceat((terms == sign).sum(axis=2), starts, axis=1) for sign in (1, -1))
        low, high = int(self.levels[0]), int(self.levels[-1])
        return min(self.inner_bits, signed_bits(min(0, int((more * low - less * high).min())),
                                                max(0, int((more * high - less * low).max()))))

    @property
    def readout(self) -> tuple[int, ...]:
        steps, fold = schedule(self.factors), 1 if self.order is None else len(self.order)
        # A sum must have been read for the last time when that of the next dot product comes.
        reads = (number + 1 - self.ends[step.entry] for number, step in enumerate(steps))
        return (0,) * max(0, len(steps) + 1 - fold, *reads)

    @property
    def latency(self) -> int:
        return self.adder.latency + len(schedule(self.factors)) + LATENCY

    def reference(self, x: Ints, index: Ints) -> Ints:
        if self.order is None:
            return super().reference(x, index)
        groups = self.codebook.subgroups.reshape(-1)[self.order]
        return (x[:, None, :] * self.codebook.dictionary[groups[:, None, :], index]).sum(axis=(0, 2))

    def cost(self) -> Cost:
        end = weighted_sum_cost(self.factors, pe=self.pe, width=self.run_bits, acc_bits=self.inner_bits, family=self.family)
        return self.adder.cost() + end + self.run_cost()

    def run_cost(self) -> Cost:
        """Cells that find the ends of runs and number them."""
        if len(self.ends) == 1:
            return Cost(luts=1)
        fold, runs = self.ends[-1] + 1, len(self.ends)
        position, number = (fold - 1).bit_length(), (runs - 1).bit_length()
        marks = table_luts([[int(word in self.ends) for word in range(fold)]], fold, self.family)
        return Cost(luts=marks + 1.3 * position + 1.5 * number + 3, ffs=position + number)

    def create(self) -> wiring.Component:
        return SubgroupScaleArray(self)


class SubgroupScaleArray(wiring.Component):
    """The array of `SubgroupScale`: an adding array whose sums end with each run, and a `WeightedSum`."""

    def __init__(self, unit: SubgroupScale):
        super().__init__(unit.members)
        self.unit = unit

    def elaborate(self, platform) -> Module:
        m = Module()
        unit = self.unit
        m.submodules.sums = sums = WeightedSum(unit.factors, pe=unit.pe, shape=signed(unit.run_bits),
                                               acc_bits=unit.inner_bits)
        en, runs = sums.en, len(unit.ends)
        # One pipeline: the array never waits by itself, and stands still with the sums.
        adder = unit.adder.create()
        m.submodules.adder = EnableInserter(en)(adder)
        taken, run_end = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(en), taken.eq(self.i.valid & en),
            adder.i.valid.eq(self.i.valid), adder.i.p.x.eq(self.i.p.x), adder.i.p.index.eq(self.i.p.index),
            adder.i.p.last.eq(run_end), adder.o.ready.eq(1),
            sums.write.eq(adder.o.valid), sums.values.eq(adder.o.payload),
            self.o.valid.eq(sums.o.valid), sums.o.ready.eq(self.o.ready),
        ]
        for p in range(unit.pe):
            m.d.comb += self.o.payload[p].eq(sums.o.payload[p] << unit.acc_bits - unit.inner_bits)
        if runs == 1:
            m.d.comb += [run_end.eq(self.i.p.last), sums.start.eq(adder.o.valid)]
            return m
        position, number = Signal(range(unit.ends[-1] + 1)), Signal(range(runs))
        with m.If(taken):
            m.d.sync += position.eq(Mux(self.i.p.last, 0, position + 1))
        final = number == runs - 1
        with m.If(en & adder.o.valid):
            m.d.sync += number.eq(Mux(final, 0, number + 1))
        ends = [word in unit.ends for word in range(unit.ends[-1] + 1)]
        m.d.comb += [run_end.eq(lookup(position, ends, unsigned(1))), sums.entry.eq(number),
                     sums.start.eq(adder.o.valid & final)]
        return m
