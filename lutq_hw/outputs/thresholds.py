"""Binary search among the thresholds of a channel: one comparator a lane, one step for each bit of the code."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring

from ..gateware.rom import Rom
from ..gateware.serial import SerialStage
from ..network import Thresholds
from ..network.tensor import Ints, signed_bits
from ..output import OutputStage
from ..sums import Sums


def folded_bounds(step: Thresholds, bias: Ints, sum_range: tuple[int, int]) -> Ints:
    """``(O, 2**bits)`` what sums are compared with; bias folded in, out-of-range values clipped to never or always.

    The code counts the bounds from number 1 on that a sum reaches; where a channel counts downwards it is the complement.
    """
    low, high = sum_range
    size = 1 << step.bits
    table = np.full((step.channels, size), low, np.int64)
    for o, row in enumerate(step.values - bias[:, None]):
        if step.descending[o]:
            # #{acc <= t} = T - #{acc >= t + 1}: the missing ones always count, so the inverted code starts at 0.
            table[o, size - len(row):] = row + 1
        else:
            table[o, 1:1 + len(row)] = row
            table[o, 1 + len(row):] = high + 1
    return np.clip(table, low, high + 1)


class ThresholdSearch(OutputStage):
    """Any monotone step, exact. Table: for each channel ``2**bits`` words, of which word 0 is unused.

    Word c is the smallest sum whose count is at least c. A channel that counts downwards holds the complement: the
    search then runs on ``acc >= value + 1`` and the code is inverted, marked by one more bit in its words.
    """

    name = "thresholds"
    needs = "thresholds, any"
    takes_constants = True

    @classmethod
    def reject(cls, sums: Sums) -> str | None:
        return None if isinstance(sums.step, Thresholds) else f"{sums.name} has no thresholds"

    @property
    def step(self) -> Thresholds:
        """The layer's step."""
        assert isinstance(self.sums.step, Thresholds)
        return self.sums.step

    @property
    def steps(self) -> int:
        return self.step.bits

    @cached_property
    def bounds(self) -> Ints:
        """``(O, 2**bits)`` words as signed numbers."""
        return folded_bounds(self.step, self.sums.bias, self.sum_range)

    @property
    def word_bits(self) -> int:
        """Bits of a signed table word; it holds the negated bound, so that one adder compares (iCE40 cannot subtract as
        cheaply: its carry chain takes operands as they are)."""
        low, high = self.sum_range
        return signed_bits(-high - 1, -low)

    @property
    def inverts(self) -> bool:
        """Whether any channel counts downwards."""
        return bool(self.step.descending.any())

    @property
    def contents(self) -> Ints:
        return self._tables

    @cached_property
    def _tables(self) -> Ints:
        """``(lanes, rows * 2**bits)`` tables of the lanes: each asks for its own."""
        marks = self.step.descending.astype(np.int64) << self.word_bits
        words = -self.bounds & (1 << self.word_bits) - 1 | marks[:, None]
        return np.stack([words[lane::self.lanes].reshape(-1) for lane in range(self.lanes)])

    @property
    def table(self) -> tuple[int, int]:
        return self.word_bits + self.inverts, self.rows << self.step.bits

    @property
    def same_address(self) -> bool:
        return False

    def features(self, lut_inputs: int) -> dict[str, float]:
        # Of each bit: what is found, the next trial, the code so far; and the sign of the comparison. Compared with a
        # constant, a sum also takes luts.
        return {"search": self.lanes * (3 * self.step.bits + 1),
                "constant": self.lanes * self.acc_bits if self.table[1] == 2 else 0, "carries": self.lanes * self.word_bits}

    def create(self) -> wiring.Component:
        return _SearchStage(self)


class _SearchStage(SerialStage):
    def lane(self, m: Module, lane: int, acc: Value) -> Value:
        s = self.stage
        assert isinstance(s, ThresholdSearch)
        bits = s.step.bits
        m.submodules[f"table{lane}"] = table = Rom(s.contents[lane].tolist(), width=s.table[0], style=s.memory)
        code, found, trial = (Signal(bits, name=f"{name}{lane}") for name in ("code", "found", "trial"))
        excess = Signal(signed(max(s.word_bits, s.acc_bits) + 1), name=f"excess{lane}")
        m.d.comb += [
            excess.eq(acc + table.data[:s.word_bits].as_signed()),
            found.eq(Mux(excess[-1], code, code | self.step)),
            # The next word to compare with: one bit further, or the middle of the next channel.
            trial.eq(Mux(self.next_step[-1], self.next_step, found | self.next_step)),
            table.addr.eq(Cat(trial, [] if self.next_row is None else self.next_row)),
            table.en.eq(self.enable),
        ]
        with m.If(self.enable):
            m.d.sync += code.eq(Mux(self.next_step[-1], 0, found))
        flip = table.data[s.word_bits].replicate(bits) if s.inverts else 0
        sign = 1 << (bits - 1) if s.step.signed else 0
        return found ^ flip ^ sign
