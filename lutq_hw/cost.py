"""What a piece of hardware occupies on an FPGA."""

from __future__ import annotations

from typing import NamedTuple

from .families import ICE40
from .family import RESOURCES, Family

LONELY_FFS = 0.35
"""Share of flip-flops that nextpnr gives a logic cell of their own, from designs of this kind: those behind a block RAM,
behind another flip-flop, or behind a lut that also feeds something else. ``docs/tools.md`` has the figures."""


class Cost(NamedTuple):
    """Cells of one family: ``luts`` and ``ffs`` may be fitted (hence float), block counts are exact.

    A tuple only because a planner makes a million of them: ``+`` and ``*`` are those of amounts.
    """

    luts: float = 0.0
    ffs: float = 0.0
    brams: int = 0
    sprams: int = 0
    dsps: int = 0

    adder_bits: float = 0.0
    """Of ``luts``, those that hold a bit of an adder. A family without carry in its luts may need more than one for each."""

    adders: float = 0.0
    """How many adders these are: each may need a cell for its carry, or leave half of one empty."""

    lone_carries: float = 0.0
    """Cells beyond ``luts`` that hold only a carry: of comparisons, of which nothing but the sign is used (iCE40)."""

    def __add__(self, other: Cost) -> Cost:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Cost(self.luts + other.luts, self.ffs + other.ffs, self.brams + other.brams, self.sprams + other.sprams,
                    self.dsps + other.dsps, self.adder_bits + other.adder_bits, self.adders + other.adders,
                    self.lone_carries + other.lone_carries)

    def __sub__(self, other: Cost) -> Cost:
        return self + other * -1

    def __mul__(self, count: int) -> Cost:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Cost(self.luts * count, self.ffs * count, self.brams * count, self.sprams * count, self.dsps * count,
                    self.adder_bits * count, self.adders * count, self.lone_carries * count)

    @property
    def cells(self) -> float:
        """Logic cells: one for every lut, lone carry, and flip-flop that cannot share one with the lut in front of it."""
        return self.luts + self.lone_carries + LONELY_FFS * self.ffs

    def over(self, capacity: Cost) -> dict[str, float]:
        """How far each resource exceeds ``capacity``; empty if all fit."""
        excess = {name: getattr(self, name) - getattr(capacity, name) for name in RESOURCES}
        return {name: amount for name, amount in excess.items() if amount > 0}


def bits_for(count: int) -> int:
    """Bits of a counter with ``count`` states, at least 1."""
    return max(1, (count - 1).bit_length())


BRAM_SHAPES = ICE40.bram_shapes
"""Word widths and depths of an iCE40 block RAM (SB_RAM40_4K), in which the gateware's own memories are cut."""


def bram_shape(depth: int, family: Family = ICE40) -> tuple[int, int]:
    """Width and depth of the blocks that hold a memory of ``depth`` words: the widest that is deep enough, if any is."""
    return next((shape for shape in family.bram_shapes if depth <= shape[1]), family.bram_shapes[-1])


def bram_chunks(depth: int, family: Family = ICE40) -> list[int]:
    """Depths of the memories that stand behind each other: as deep as a block can be, then the rest."""
    deepest = family.bram_shapes[-1][1]
    return [deepest] * (depth // deepest) + ([depth % deepest] if depth % deepest else [])


def bram_count(width: int, depth: int, family: Family = ICE40) -> int:
    """Blocks of a memory of ``depth`` words of ``width`` bits."""
    return sum(-(-width // bram_shape(chunk, family)[0]) for chunk in bram_chunks(depth, family))


def masked(depth: int, banks: int) -> bool:
    """Whether the banks of a memory share blocks: only blocks of 256 words can write some bits of a word."""
    return banks > 1 and depth <= BRAM_SHAPES[0][1]


def ram_brams(width: int, depth: int, banks: int) -> int:
    """Blocks of a `gateware.ram.BankedRam`."""
    return bram_count(width * banks, depth) if masked(depth, banks) else banks * bram_count(width, depth)
