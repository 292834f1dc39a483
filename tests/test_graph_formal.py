# amaranth: UnusedElaboratable=no
"""Fork, FIFO and join are proved for all inputs and stalls: nothing lost, doubled or withdrawn, and no deadlock in between.

Bounded model checking. Words are numbered by the source, so that a branch shows by its next word what it has had so far.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from amaranth import Cat, Module, Mux, ResetSignal, Signal, Value, signed
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from formal import prove

from lutq_hw.gateware.fifo import StreamFifo
from lutq_hw.gateware.fork import StreamFork
from lutq_hw.gateware.join import StreamAdder
from lutq_hw.network import TensorType

WIDTH = 3
"""Of a word; numbers of words wrap around, which is no matter as long as fewer are on their way."""


def numbered_source(m: Module, i, wish: Value) -> Signal:
    """Offers 0, 1, 2 ... whenever it wishes to, and holds what it offers; the number of words taken."""
    held, count = Signal(name="held"), Signal(WIDTH, name="sent")
    m.d.comb += [i.valid.eq(held | wish), i.payload.eq(count)]
    m.d.sync += held.eq(i.valid & ~i.ready)
    with m.If(i.valid & i.ready):
        m.d.sync += count.eq(count + 1)
    return count


def watched_sink(m: Module, o, ready: Value, name: str, factor: int = 1) -> Signal:
    """Asserts that words come in order and stay until they are taken; the number of words taken."""
    payload = o.payload if isinstance(o.payload, Value) else o.payload.as_value()
    count, waited = Signal(WIDTH, name=f"{name}_taken"), Signal(name=f"{name}_waited")
    m.d.comb += o.ready.eq(ready)
    m.d.sync += waited.eq(o.valid & ~ready)
    with m.If(o.valid):
        m.d.comb += Assert(payload == (count * factor)[:len(payload)])
        with m.If(ready):
            m.d.sync += count.eq(count + 1)
    with m.If(waited):
        m.d.comb += Assert(o.valid)
    return count


class ForkProof(wiring.Component):
    """A branch is offered a word exactly while the source offers it and the branch has not had it."""

    def __init__(self, fork: StreamFork):
        self.fork = fork
        super().__init__({"wish": In(1), "ready": In(fork.count)})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += Assume(~ResetSignal())
        m.submodules.fork = fork = self.fork
        sent = numbered_source(m, fork.i, self.wish)
        for k in range(fork.count):
            o = getattr(fork, f"o{k}")
            taken = watched_sink(m, o, self.ready[k], f"o{k}")
            m.d.comb += Assert(o.valid == (fork.i.valid & (taken == sent)))
            with m.If(taken != sent):
                m.d.comb += Assert((taken == (sent + 1)[:WIDTH]) & fork.i.valid)
        with m.If(self.ready.all()):
            m.d.comb += Assert(fork.i.ready)
        return m


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_fork(count: int, tmp_path: Path):
    prove(ForkProof(StreamFork(WIDTH, count)), 8, tmp_path)


class FifoProof(wiring.Component):
    """A FIFO beside `timing.FifoTimer`, cycle for cycle, and its words in order."""

    def __init__(self, fifo: StreamFifo, depth: int):
        self.fifo, self.depth = fifo, depth
        super().__init__({"wish": In(1), "ready": In(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += Assume(~ResetSignal())
        m.submodules.fifo = fifo = self.fifo
        sent = numbered_source(m, fifo.i, self.wish)
        taken = watched_sink(m, fifo.o, self.ready, "o")
        stored, valid = Signal(range(self.depth + 1)), Signal()
        read = Signal()
        m.d.comb += [read.eq((stored > 0) & (self.ready | ~valid)), Assert(fifo.i.ready == (stored != self.depth)),
                     Assert(fifo.o.valid == valid), Assert(sent == (taken + stored + valid)[:WIDTH])]
        m.d.sync += [stored.eq(stored + (fifo.i.valid & (stored != self.depth)) - read),
                     valid.eq(read | (valid & ~self.ready))]
        return m


@pytest.mark.parametrize(("memory", "depth"), [
    ("bram", 3), ("luts", 3),
    pytest.param("bram", 1, marks=pytest.mark.slow), pytest.param("luts", 1, marks=pytest.mark.slow)])
def test_fifo(memory: str, depth: int, tmp_path: Path):
    prove(FifoProof(StreamFifo(WIDTH, depth, memory), depth), 2 * depth + 3, tmp_path)


class AdderProof(wiring.Component):
    """All inputs are taken in the same cycle, when all are there and the sums are wanted."""

    def __init__(self):
        super().__init__({"a": In(6), "b": In(4), "valid": In(2), "ready": In(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += Assume(~ResetSignal())
        types = TensorType((2,), 3), TensorType((2,), 2, signed=True)
        m.submodules.adder = adder = StreamAdder(types, (1, 0), 2, 6)
        first, second = adder.i0, adder.i1  # pyright: ignore[reportAttributeAccessIssue]
        m.d.comb += [first.valid.eq(self.valid[0]), second.valid.eq(self.valid[1]), adder.o.ready.eq(self.ready),
                     first.payload.eq(self.a), second.payload.eq(self.b),
                     Assert(adder.o.valid == self.valid.all()), Assert(first.ready == (self.valid.all() & self.ready)),
                     Assert(second.ready == first.ready)]
        for lane in range(2):
            total = Signal(signed(6), name=f"total{lane}")
            m.d.comb += [total.eq(2 * self.a.word_select(lane, 3) + self.b.word_select(lane, 2).as_signed()),
                         Assert(adder.o.payload[lane] == total)]
        return m


def test_adder(tmp_path: Path):
    prove(AdderProof(), 2, tmp_path)


AHEAD = 4
"""Words that the slow branch of `Diamond` must have before it gives its first one, like the rows of a line buffer."""

PATIENCE = 4
"""Cycles for which a word may not be taken although the sink is ready and has nothing."""


class Diamond(wiring.Component):
    """A fork, a slow branch, a FIFO beside it, an add: sums come in order, and something always moves."""

    def __init__(self, depth: int):
        self.depth = depth
        super().__init__({"wish": In(1), "ready": In(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += Assume(~ResetSignal())
        m.submodules.fork = fork = StreamFork(WIDTH, 2)
        m.submodules.fifo = fifo = StreamFifo(WIDTH, self.depth, "luts")
        number = TensorType((1,), WIDTH)
        m.submodules.adder = adder = StreamAdder((number, number), (0, 0), 1, WIDTH + 2)
        slow, quick = fork.o0, fork.o1  # pyright: ignore[reportAttributeAccessIssue]
        numbered_source(m, fork.i, self.wish)
        wiring.connect(m, quick, fifo.i)
        wiring.connect(m, fifo.o, adder.i0)  # pyright: ignore[reportAttributeAccessIssue]
        late = adder.i1  # pyright: ignore[reportAttributeAccessIssue]
        inside, given = Signal(range(AHEAD + 1)), Signal(WIDTH)
        m.d.comb += [slow.ready.eq(inside != AHEAD), late.valid.eq(inside == AHEAD), late.payload.eq(given)]
        m.d.sync += [inside.eq(inside + (slow.valid & slow.ready) - (late.valid & late.ready)),
                     given.eq(given + (late.valid & late.ready))]
        o = adder.o
        sums = Signal(WIDTH + 1)
        quiet = Signal(range(PATIENCE + 1))
        m.d.comb += [o.ready.eq(self.ready), Assert(quiet < PATIENCE)]
        with m.If(o.valid):
            m.d.comb += Assert(o.payload[0].as_unsigned() == Cat(0, sums[:WIDTH]))
            with m.If(self.ready):
                m.d.sync += sums.eq(sums + 1)
        waiting = fork.i.valid & ~fork.i.ready & self.ready & ~o.valid
        m.d.sync += quiet.eq(Mux(waiting, quiet + 1, 0))
        return m


def test_branches_meet_without_deadlock(tmp_path: Path):
    """The least FIFO with which the slow branch gets its words: one in the FIFO's register, one in the fork."""
    prove(Diamond(AHEAD - 2), 12, tmp_path)


def test_a_fifo_too_small_is_refuted(tmp_path: Path):
    with pytest.raises(AssertionError, match="FAIL"):
        prove(Diamond(AHEAD - 3), 12, tmp_path)
