"""Add a constant, shift right, saturate: for steps whose thresholds are evenly spaced by a power of two."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np
from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import wiring

from ..gateware.serial import SerialStage
from ..logic_estimate import Logic
from ..network import Shift, Thresholds
from ..network.tensor import Ints, signed_bits
from ..output import OutputStage
from ..sums import Sums
from .scores import offset_adders, offset_bits, offset_table, offset_words


@cache
def clamp_luts(total: int, bits: int, is_signed: bool, lut_inputs: int) -> dict[str, int]:
    """Luts that clamp a signed number of ``total`` bits to a code of ``bits``, and those that tell whether to."""
    logic = Logic(lut_inputs)
    inputs = [logic.input(n) for n in range(max(1, total))]
    number = [inputs[min(n, len(inputs) - 1)] for n in range(max(total, bits + 2))]
    negative = number[-1]
    if not is_signed:
        above, luts = any_of(logic, number[bits:-1])
        codes = [logic.mux(negative, 0, logic.mux(above, 1, bit)) for bit in number[:bits]]
        return {"clamp": logic.luts(codes), "any": luts}
    # Some bit above the code is not as the sign, which is one of these.
    beyond, luts = any_of(logic, number[bits - 1:])
    return {"clamp": logic.luts([logic.mux(beyond, negative, bit) for bit in number[:bits]]), "any": luts}


def any_of(logic: Logic, bits: Sequence[int]) -> tuple[int, int]:
    """Whether one of ``bits`` is set, as a bit of its own from which several others are made; and the luts that tell."""
    different = sorted(set(bits))
    if len(different) < 2:
        return (different[0] if different else 0), 0
    return logic.input(("any", *different)), -(-(len(different) - 1) // (logic.lut_inputs - 1))


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

    def features(self, lut_inputs: int) -> dict[str, float]:
        return {**offset_adders(self, self.offsets, self.total_bits, self.shift),
                **{name: self.lanes * luts for name, luts in
                   clamp_luts(self.total_bits - self.shift, self.type.bits, self.type.signed, lut_inputs).items()}}

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
