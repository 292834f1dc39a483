"""Lanes that shift: ``sign * odd * 2**shift`` times an activation is an odd multiple of it, shifted and complemented."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed

from ..logic_estimate import Logic
from ..network.tensor import Ints
from .accumulate import TermRange
from .lane_cost import row_bits
from .lanes import fill, select
from .mac_array import Term


class Shifter:
    """What a lane does for each of the ``values`` of a dictionary, all of which end in ``zeros`` zeros.

    Its control bits have names: ``odd0``, ``odd1``, … number the odd multiple in the row, ``nonzero`` opens the gate behind
    it, ``shift0``, ``shift1``, … switch the stages of the shifter, ``sign`` complements. Bits that are the same for every
    value do not exist.
    """

    def __init__(self, values: Sequence[int], zeros: int):
        self.values = list(values)
        self.parts = [(odd, shift - zeros if odd else 0) for odd, shift in map(odd_and_shift, values)]
        """Odd part and shift of every value; ``(0, 0)`` for 0."""

    @cached_property
    def odds(self) -> list[int]:
        """The odd multiples in the row of an activation."""
        return sorted({odd for odd, _ in self.parts if odd}) or [0]

    @cached_property
    def stages(self) -> tuple[int, ...]:
        """What the stages of the shifter shift by."""
        return shift_stages(frozenset(shift for odd, shift in self.parts if odd))

    @cached_property
    def controls(self) -> dict[str, list[int]]:
        """Control bits for every value, by name."""
        which = [self.odds.index(odd) if odd else 0 for odd, _ in self.parts]
        uses = stage_uses(self.stages, [shift for _, shift in self.parts])
        bits = {f"odd{bit}": [number >> bit & 1 for number in which] for bit in range((len(self.odds) - 1).bit_length())}
        bits["nonzero"] = [int(value != 0) for value in self.values]
        bits |= {f"shift{stage}": [use[stage] for use in uses] for stage in range(len(self.stages))}
        bits["sign"] = [int(value < 0) for value in self.values]
        return {name: column for name, column in bits.items() if len(set(column)) > 1}

    def logic(self, logic: Logic, bits: Mapping[str, int], levels: Ints, width: int) -> list[int]:
        """The lane's result for activations ``levels``, as bits of a network; ``bits`` are its controls there.

        Without ``nonzero`` among them there is no gate.
        """
        place = [bit for name, bit in bits.items() if name.startswith("odd")]
        rows = [row_bits(logic, levels * odd, width) for odd in self.odds]
        columns = zip(*(rows[n] for n in fill(range(len(rows)), len(place))), strict=True)
        value = [logic.table(column, place) for column in columns]
        if "nonzero" in bits:
            value = [logic.mux(bits["nonzero"], bit, 0) for bit in value]
        for stage, shift in enumerate(self.stages):
            if f"shift{stage}" in bits:
                value = [logic.mux(bits[f"shift{stage}"], high, low)
                         for high, low in zip([0] * shift + value, value, strict=False)]
        return [logic.xor(bits.get("sign", 0), bit) for bit in value]

    def lane(self, m: Module, name: str, row: Sequence[Value], bits: Mapping[str, Value], term: TermRange, *,
             clears: bool = False) -> Term:
        """The lane's result in gates; ``bits`` are its controls. If it ``clears``, ``nonzero`` resets a register instead."""
        value = select(Cat(bit for key, bit in bits.items() if key.startswith("odd")), row, range(len(row)))
        clear = ~bits["nonzero"] if clears else None
        if "nonzero" in bits and not clears:
            value = Mux(bits["nonzero"], value, 0)
        for stage, shift in enumerate(self.stages):
            if f"shift{stage}" in bits:
                value = Mux(bits[f"shift{stage}"], value << shift, value)
        wide = Signal(signed(term.bits), name=name)
        m.d.comb += wide.eq(value)
        if min(self.values) >= 0:
            return Term(wide, clear=clear)
        sign = bits.get("sign", Const(1, 1))  # where it is no control, all values are negative
        return Term((wide ^ sign.replicate(len(wide))).as_signed(), sign if term.carries else None, clear=clear)


def odd_and_shift(value: int) -> tuple[int, int]:
    """``(odd, shift)`` with ``abs(value) == odd << shift``; ``(0, 0)`` for 0."""
    shift = max(0, (value & -value).bit_length() - 1)
    return abs(value) >> shift, shift


def stage_uses(stages: tuple[int, ...], shifts: Sequence[int]) -> list[tuple[int, ...]]:
    """Which stages make each of the shifts, as 0 and 1."""
    sums = {sum(itertools.compress(stages, use)): use for use in itertools.product((0, 1), repeat=len(stages))}
    return [sums[shift] for shift in shifts]


@functools.cache
def shift_stages(shifts: frozenset[int]) -> tuple[int, ...]:
    """The fewest stages, and among these the smallest, that can make all the shifts."""
    largest = max(shifts, default=0)
    for count in range(4):
        for stages in sorted(itertools.combinations_with_replacement(range(1, largest + 1), count), key=sum):
            if shifts <= {sum(itertools.compress(stages, use)) for use in itertools.product((0, 1), repeat=count)}:
                return stages
    return tuple(1 << bit for bit in range(largest.bit_length()))
