"""Add a constant, shift right, saturate: for steps whose thresholds are evenly spaced by a power of two."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import wiring

from ..gateware.serial import SerialStage
from ..network import Shift, Thresholds
from ..network.tensor import Ints, signed_bits
from ..output import OutputStage
from ..sums import Sums
from .scores import offset_bits, offset_table, offset_words


def even_spacing(step: Thresholds) -> int | None:
    """The s for which every channel's thresholds are spaced by exactly ``2**s``; None if there is none."""
    if step.descending.any() or step.values.shape[1] != (1 << step.bits) - 1 or step.bits == 1:
        return None
    gaps = np.unique(np.diff(step.values, axis=1))
    gap = int(gaps[0])
    return gap.bit_length() - 1 if len(gaps) == 1 and gap > 0 and gap & (gap - 1) == 0 else None


class ShiftSaturate(OutputStage):
    """``code = clamp((acc + offset[o]) >> shift)``, one cycle for each word."""

    name = "shift"
    needs = "a shift, or thresholds evenly spaced by a power of two"

    @classmethod
    def reject(cls, sums: Sums) -> str | None:
        if isinstance(sums.step, Shift):
            return None
        if isinstance(sums.step, Thresholds) and even_spacing(sums.step) is not None:
            return None
        if not isinstance(sums.step, Thresholds):
            return f"{sums.name} has neither a shift nor thresholds"
        return f"thresholds of {sums.name} are not evenly spaced by a power of two"

    @property
    def steps(self) -> int:
        return 1

    @cached_property
    def shift(self) -> int:
        """Bits to shift by."""
        step = self.sums.step
        if isinstance(step, Shift):
            return step.shift
        assert isinstance(step, Thresholds)
        shift = even_spacing(step)
        assert shift is not None
        return shift

    @cached_property
    def offsets(self) -> Ints:
        """``(O,)`` what is added before the shift, bias and rounding included."""
        step = self.sums.step
        if isinstance(step, Shift):
            return self.sums.bias + ((1 << step.shift) >> 1)
        assert isinstance(step, Thresholds)
        # code - min = #{acc + bias >= first + t * 2**s} = ((acc + bias - first) >> s) + 1, clamped
        return self.sums.bias - step.values[:, 0] + (1 + self.type.min << self.shift)

    @property
    def total_bits(self) -> int:
        """Width of ``acc + offset``."""
        low, high = self.sum_range
        return signed_bits(min(low + int(self.offsets.min()), 0), max(high + int(self.offsets.max()), 0))

    @property
    def table(self) -> tuple[int, int]:
        return offset_bits(self.offsets), self.rows

    @property
    def contents(self) -> Ints | None:
        return offset_words(self, self.offsets)

    @property
    def features(self) -> dict[str, float]:
        # Below the shift only carries are left of the adder.
        added = self.total_bits - self.shift if self.offsets.any() else 0
        return {"offset": self.lanes * max(0, added), "carries": self.lanes * min(self.shift, self.total_bits) * (added > 0),
                "above": self.lanes * max(0, self.total_bits - self.shift - self.type.bits)}

    def create(self) -> wiring.Component:
        return _ShiftStage(self)


class _ShiftStage(SerialStage):
    def lane(self, m: Module, lane: int, acc: Value) -> Value:
        s = self.stage
        assert isinstance(s, ShiftSaturate)
        bits = s.type.bits
        total = Signal(signed(max(s.total_bits, s.shift + bits + 2)), name=f"total{lane}")
        m.d.comb += total.eq(acc + offset_table(self, m, lane, s.offsets))
        code, negative = total[s.shift:], total[-1]
        # Saturation by looking at the bits above the code: comparators would cost a carry chain each.
        if s.type.signed:
            above = code[bits - 1:-1]
            fits = Mux(negative, above.all(), ~above.any())
            return Mux(fits, code[:bits], Mux(negative, 1 << (bits - 1), s.type.max))
        return Mux(negative, 0, code[:bits] | code[bits:-1].any().replicate(bits))
