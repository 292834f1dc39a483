"""Raw sums with their bias, for the last layer."""

from __future__ import annotations

import numpy as np
from amaranth import Const, Module, Signal, Value, signed
from amaranth.lib import wiring

from ..gateware.rom import Rom
from ..gateware.serial import SerialStage
from ..network.tensor import Ints, signed_bits
from ..output import OutputStage
from ..sums import Sums


def offset_bits(offsets: Ints) -> int:
    """Width of a table of ``offsets``; 0 if all are equal, for then it is a constant."""
    low, high = int(offsets.min()), int(offsets.max())
    return 0 if low == high else signed_bits(low, high)


def offset_words(stage: OutputStage, offsets: Ints) -> Ints | None:
    """``(lanes, rows)`` words of the tables of `offset_table`; None where there is no table."""
    width = offset_bits(offsets)
    if width == 0 or stage.rows == 1:
        return None
    return np.stack([offsets[lane::stage.lanes] for lane in range(stage.lanes)]) & (1 << width) - 1


def held_bits(words: Ints, bits: int) -> tuple[int, int]:
    """Which of ``bits`` differ among ``words``, and which are set in all: synthesis knows the rest, in block RAM too."""
    mask = (1 << bits) - 1
    union, common = int(np.bitwise_or.reduce(words & mask)), int(np.bitwise_and.reduce(words & mask))
    return union & ~common, common


def offset_adders(stage: OutputStage, offsets: Ints, bits: int, below: int = 0) -> dict[str, float]:
    """Structure of the adders of `offset_table` in all lanes, each of ``bits``.

    Where every offset of a lane ends in zeros nothing is added, and of the bits ``below`` only carries are used. A bit that
    is the same in all of them leaves an input of a lut to what reads the sum; where sums are made in another cell, it is an
    inverter or nothing.
    """
    mask, high = (1 << bits) - 1, -1 << below
    found = {"offset": 0, "fixed": 0, "inverted": 0, "carries": 0, "fixed_carries": 0}
    for lane in range(stage.lanes):
        varying, common = held_bits(offsets[lane::stage.lanes], bits)
        union = varying | common
        added = mask & -(union & -union)
        found["offset"] += (varying & high).bit_count()
        found["fixed"] += (added & ~varying & high).bit_count()
        found["inverted"] += common.bit_count()
        found["carries"] += (varying & ~high).bit_count()
        found["fixed_carries"] += (added & ~varying & ~high).bit_count()
    return dict(found)


def offset_table(stage: SerialStage, m: Module, lane: int, offsets: Ints) -> Value:
    """``offsets[o]`` of the channel that ``lane`` works on: a table, or a constant if all are equal."""
    words = offset_words(stage.stage, offsets)
    if words is None:
        mine = int(offsets[lane])
        return Const(mine, signed(signed_bits(mine, mine)))
    m.submodules[f"table{lane}"] = table = Rom(words[lane].tolist(), width=offset_bits(offsets), style=stage.stage.memory)
    m.d.comb += [table.addr.eq(stage.next_row), table.en.eq(stage.enable)]
    return table.data.as_signed()


class Scores(OutputStage):
    """``acc + bias[o]`` at full width, one cycle for each word."""

    name = "scores"
    needs = "a layer without a step"

    @classmethod
    def reject(cls, sums: Sums) -> str | None:
        return None if sums.step is None else f"{sums.name} has a step"

    @property
    def steps(self) -> int:
        return 1

    @property
    def table(self) -> tuple[int, int]:
        return offset_bits(self.sums.bias), self.rows

    @property
    def contents(self) -> Ints | None:
        return offset_words(self, self.sums.bias)

    def features(self, lut_inputs: int) -> dict[str, float]:
        return offset_adders(self, self.sums.bias, self.type.bits)

    def create(self) -> wiring.Component:
        return _ScoreStage(self)


class _ScoreStage(SerialStage):
    def lane(self, m: Module, lane: int, acc: Value) -> Value:
        s = self.stage
        score = Signal(signed(s.type.bits), name=f"score{lane}")
        m.d.comb += score.eq(acc + offset_table(self, m, lane, s.sums.bias))
        return score
