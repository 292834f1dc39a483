# amaranth: UnusedElaboratable=no
"""Every output stage is proved equal to its step, cycle for cycle, for all sums and stalls after reset.

Bounded model checking, over two words of sums (or one of many slices) and what follows them. Beside equality, from which
follows that nothing is lost or doubled, the stream rules are proved: what is offered stays offered, unchanged, until it is
taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from amaranth import Array, Cat, Const, Module, Mux, ResetSignal, Signal, Value
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from formal import assert_held, prove

from lutq_hw.gateware.top_k import TopKStage
from lutq_hw.network import ActivationTable, Shift, TensorType, Thresholds
from lutq_hw.network.steps import Step
from lutq_hw.output import OutputStage
from lutq_hw.outputs import OUTPUTS
from lutq_hw.sums import Sums

LOW, HIGH = -5, 6
"""Range of the sums: small enough to write every result down."""

DEPTH = 3
"""Cycles beyond two words of sums."""

DEEPEST = 16
"""Most cycles of a proof: a word of many slices, and the beginning of the next."""


class StageProof(wiring.Component):
    """A stage beside its specification: the codes of a word are known when it is taken, and leave as the rule says."""

    def __init__(self, stage: OutputStage):
        self.stage = stage
        super().__init__({"payload": In(stage.pe * stage.acc_bits), "valid": In(1), "ready": In(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += Assume(~ResetSignal())
        s = self.stage
        m.submodules.stage = dut = s.create()
        m.d.comb += [dut.i.payload.as_value().eq(self.payload), dut.i.valid.eq(self.valid), dut.o.ready.eq(self.ready)]
        m.d.comb += [Assume((acc >= LOW) & (acc <= HIGH)) for acc in dut.i.payload]

        words = s.sums.outputs // s.pe
        number = Signal(range(max(2, words)))
        results = Signal(range(3))
        free, taken = Signal(), Signal()
        m.d.comb += [free.eq(results < 2), Assert(dut.o.valid == (results > 0))]
        with m.If(taken):
            m.d.sync += number.eq(Mux(number == words - 1, 0, number + 1))
        new = Cat(self.code(number, p, acc) for p, acc in enumerate(dut.i.payload))
        width = s.lanes * s.type.bits
        self.moves = Signal()  # the words that are worked on come a cycle nearer to their ends
        slice_end, accept, codes = (self._one_word if s.at_once == 1 else self._two_words)(m, new, taken)
        m.d.comb += [taken.eq(accept & self.valid), Assert(dut.i.ready == accept)]

        pending, pending_word = Signal(), Signal(width)
        done, word = (pending, pending_word) if s.delay else (slice_end, codes[:width])
        m.d.comb += self.moves.eq(free | ~(pending if s.cut else slice_end))
        with m.If(self.moves if s.cut else free):
            m.d.sync += [pending.eq(slice_end), pending_word.eq(codes)]
        given, leaves = Signal(), Signal()
        first, second = Signal(width), Signal(width)
        m.d.comb += [given.eq(done & free), leaves.eq((results > 0) & self.ready)]
        m.d.sync += results.eq(results + given - leaves)
        with m.If(leaves):
            m.d.sync += first.eq(second)
        with m.If(given):
            with m.If(results - leaves == 0):
                m.d.sync += first.eq(word)
            with m.Else():
                m.d.sync += second.eq(word)
        with m.If(results > 0):
            m.d.comb += Assert(dut.o.payload == first)

        assert_held(m, dut.o)
        return m

    def _one_word(self, m: Module, new: Value, taken: Value) -> tuple[Value, Value, Value]:
        """Whether a slice ends, whether a word is accepted, and the codes that are still to leave."""
        s = self.stage
        left, codes, slice_end = Signal(range(s.interval + 1)), Signal(s.pe * s.type.bits), Signal()
        m.d.comb += slice_end.eq(Array(Const(end, 1) for end in (False, *reversed(s.ends)))[left])
        with m.If(taken):
            m.d.sync += [left.eq(s.interval), codes.eq(new)]
        with m.Elif((left > 0) & self.moves):
            m.d.sync += left.eq(left - 1)
            with m.If(slice_end):
                m.d.sync += codes.eq(codes >> s.lanes * s.type.bits)
        return slice_end, (left == 0) | ((left == 1) & self.moves), codes

    def _two_words(self, m: Module, new: Value, taken: Value) -> tuple[Value, Value, Value]:
        """The same of a stage that works on two words in turn."""
        s = self.stage
        # Of two words, number 0 and 1 in turn: the steps that each still needs, its codes, and whose turn it is to go ahead.
        left = [Signal(range(s.steps + 1), name=f"left{n}") for n in range(2)]
        codes = [Signal(s.pe * s.type.bits, name=f"codes{n}") for n in range(2)]
        turn, following = Signal(), Signal()
        slice_end, accept = Signal(), Signal()
        idle = (left[0] == 0) & (left[1] == 0)
        m.d.comb += [slice_end.eq(Array(left)[turn] == 1),
                     accept.eq(self.moves & (slice_end | (left[0] == 0) | (left[1] == 0)))]
        with m.If(self.moves):
            for n in range(2):
                with m.If((turn == n) & (left[n] > 0)):
                    m.d.sync += left[n].eq(left[n] - 1)
            with m.If(taken):
                m.d.sync += following.eq(~following)
                for n in range(2):
                    with m.If(following == n):
                        m.d.sync += [left[n].eq(s.steps), codes[n].eq(new)]
            with m.If(idle):  # the first cycle of a word alone is not its own
                m.d.sync += turn.eq(Mux(taken, ~following, turn))
            with m.Else():
                m.d.sync += turn.eq(~turn)
        return slice_end, accept, Array(codes)[turn]

    def code(self, number: Value, p: int, acc: Value) -> Value:
        """Code of sum ``p`` of word ``number``, out of a list of all of them."""
        sums, bits = self.stage.sums, self.stage.type.bits
        totals = np.arange(LOW, HIGH + 1)[:, None] + sums.bias
        codes = (totals if sums.step is None else sums.step.apply(totals)) & (1 << bits) - 1
        columns = [Array(Const(int(code), bits) for code in codes[:, o]) for o in range(p, sums.outputs, self.stage.pe)]
        return Array([column[(acc - LOW)[:4].as_unsigned()] for column in columns])[number]


@dataclass(frozen=True)
class Case:
    """Sums with a step, and a size; ``outputs`` channels."""

    step: Step | None
    bits: int
    signed: bool = False
    bias: tuple[int, ...] = (0, 2, -3, 1)
    pe: int = 2
    lanes: int = 1
    memory: str = "luts"

    def stage(self, name: str) -> OutputStage | None:
        """The stage ``name``; None if it cannot finish these sums."""
        outputs = len(self.bias)
        sums = Sums("layer", np.full(outputs, LOW), np.full(outputs, HIGH), np.array(self.bias), self.step,
                    TensorType((outputs,), self.bits, self.signed))
        if OUTPUTS[name].reject(sums) is not None:
            return None
        return OUTPUTS[name](sums=sums, pe=self.pe, lanes=self.lanes, memory=self.memory)


ROWS = np.array([[-4, 0, 3], [-2, -2, 1], [1, 2, 9], [-9, 0, 5]])

CASES = {
    "scores": Case(None, 5, True),
    "shift": Case(Shift(1, 2), 2),
    "mixed": Case(Thresholds(ROWS, 2, descending=[0, 1, 1, 0]), 2),
    "table": Case(ActivationTable([1, 3, 0, 2, 2], 1, 2), 2),
    "one word": Case(Thresholds(ROWS[:2], 2, descending=[1, 0]), 2, bias=(1, -1), lanes=2),
    "shared": Case(Thresholds(np.tile(ROWS[:1], (4, 1)), 2, True, [1] * 4), 2, True, memory="bram"),
    "few": Case(Thresholds(ROWS[:, :2], 2, descending=[0, 1, 0, 1]), 2, pe=4, lanes=2, memory="bram"),
    "even": Case(Thresholds(np.arange(3) * 2 - [[1], [2], [0], [5]], 2), 2, memory="bram"),
    "rounding": Case(Shift(2, 3, True), 3, True, bias=(1, 1, 1, 1)),
    "memory": Case(ActivationTable([1, -2, 0, -1, 1], 1, 2, True), 2, True, memory="bram"),
    "lone slice": Case(Thresholds(ROWS, 2, descending=[0, 1, 1, 0]), 2, pe=1),
    "odd slices": Case(Thresholds(ROWS[:3], 2, True, [0, 1, 0]), 2, True, bias=(1, 0, 2), pe=3),
}

PAIRS = [(name, case) for name in OUTPUTS for case in CASES if CASES[case].stage(name) is not None]

QUICK = ("threshold-bank", "mixed")
"""The proof of the default suite."""


def prove_stage(stage: OutputStage, folder: Path) -> None:
    prove(StageProof(stage), min(2 * stage.interval + stage.latency + DEPTH, DEEPEST), folder)


@pytest.mark.parametrize(("name", "case"), [p if p == QUICK else pytest.param(*p, marks=pytest.mark.slow) for p in PAIRS])
def test_stage_equals_its_step(name: str, case: str, tmp_path: Path):
    stage = CASES[case].stage(name)
    assert stage is not None
    prove_stage(stage, tmp_path)


class TopProof(wiring.Component):
    """The k largest beside their specification: all scores of a frame are kept and ranked by counting."""

    def __init__(self, stage: TopKStage):
        self.stage = stage
        super().__init__({"payload": In(stage.shape), "valid": In(1), "ready": In(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += Assume(~ResetSignal())
        m.submodules.stage = dut = self.stage
        m.d.comb += [dut.i.payload.eq(self.payload), dut.i.valid.eq(self.valid), dut.o.ready.eq(self.ready)]
        word, offered = Signal(range(dut.words + 1)), Signal()
        scores = [Signal(dut.shape, name=f"score{n}") for n in range(dut.words)]
        expected = Signal.like(dut.o.payload)
        free = self.ready | ~offered
        m.d.comb += [Assert(dut.i.ready == free), Assert(dut.o.valid == offered)]
        with m.If(offered):
            m.d.comb += Assert(dut.o.payload == expected)
        seen = [*scores[:-1], self.payload]  # in the cycle of the last score
        ranks = [sum((other > mine) | ((other == mine) & (m < n)) for m, other in enumerate(seen) if m != n)
                 for n, mine in enumerate(seen)]
        places = []
        for place in range(dut.count):
            index = Const(0, dut.index_bits)
            for n, rank in enumerate(ranks):
                index = Mux(rank == place, Const(n, dut.index_bits), index)
            places.append(index)
        with m.If(free):
            m.d.sync += offered.eq(self.valid & (word == dut.words - 1))
            with m.If(self.valid):
                m.d.sync += [word.eq(Mux(word == dut.words - 1, 0, word + 1)), expected.eq(Cat(places)),
                             Array(scores)[word].eq(self.payload)]
        return m


@pytest.mark.slow
@pytest.mark.parametrize(("words", "count", "signed"), [(3, 2, True), (4, 4, False), (2, 1, True)])
def test_top_k_equals_ranking_by_counting(words: int, count: int, signed: bool, tmp_path: Path):
    stage = TopKStage(bits=2, is_signed=signed, words=words, index_bits=max(1, (words - 1).bit_length()), count=count)
    prove(TopProof(stage), 2 * words + 3, tmp_path)


def test_a_wrong_stage_is_refuted(tmp_path: Path):
    """The proof can fail: one bound that is off by one is found."""

    class Wrong(OUTPUTS["threshold-bank"]):
        @property
        def bounds(self):
            return super().bounds + (np.arange(len(super().bounds)) == 2)[:, None] * [0, 1, 0]

    case = CASES["mixed"]
    stage = case.stage("threshold-bank")
    assert stage is not None
    with pytest.raises(AssertionError, match="FAIL"):
        prove_stage(Wrong(sums=stage.sums, pe=case.pe, lanes=case.lanes, memory=case.memory), tmp_path)
