# amaranth: UnusedElaboratable=no
"""Runs a stream component in Amaranth's simulator against expected words and a timer; the first wrong cycle raises."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from amaranth import ResetInserter, Signal, Value
from amaranth.lib import wiring
from amaranth.sim import Simulator

from lutq_hw.timing import Timer

MARGIN = 12
"""Cycles behind the last word, in which nothing may come."""

PAUSES = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.6), (0.4, 0.5))


class Wrong(AssertionError):
    """The component does something else than it should."""


@dataclass(frozen=True)
class Run:
    """What goes in, what must come out and when.

    Parameters
    ----------
    make
        The component, with streams ``i`` and ``o``.
    timer
        A new timer, which says in every cycle what ``o.valid`` and ``i.ready`` are.
    words, results
        Payloads as bits.
    seed
        Of pauses, of garbage on the wires while nothing is offered, and of the cycle of a reset in the middle.
    """

    make: Callable[[], wiring.Component]
    timer: Callable[[], Timer]
    words: Sequence[int]
    results: Sequence[int]
    seed: int = 0
    legal: Callable[[Value], Value] | None = None
    """Makes any payload one that can occur; None: all can."""

    warm: int = 0
    """Cycles that come on top of those before the reset: so many pass until a word is taken."""

    def build(self) -> wiring.Component:
        """The component, for a look at its RTLIL."""
        return self.make()

    def __call__(self) -> None:
        """Simulate: first a part with a reset at its end, then all of it."""
        dut: Any = self.make()
        reset = Signal()
        rng = random.Random(self.seed)
        idle, stall = PAUSES[self.seed % len(PAUSES)]

        async def bench(ctx: Any) -> None:
            await self.part(ctx, dut, rng, idle, stall, limit=self.warm + rng.randrange(3, 30))
            ctx.set(reset, 1)
            ctx.set(dut.i.valid, rng.getrandbits(1))  # whoever offers may be reset as late as this
            await ctx.tick()
            ctx.set(reset, 0)
            await self.part(ctx, dut, rng, idle, stall, limit=None)

        simulator = Simulator(ResetInserter(reset)(dut))
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()

    async def part(self, ctx: Any, dut: Any, rng: random.Random, idle: float, stall: float, limit: int | None) -> None:
        """From a reset on, ``limit`` cycles or until all is done."""
        payload_in, payload_out = Value.cast(dut.i.payload), Value.cast(dut.o.payload)
        timer = self.timer()
        sent = taken = cycle = quiet = 0
        offered = False
        while quiet < MARGIN if limit is None else cycle < limit:
            offered = offered or (sent < len(self.words) and rng.random() >= idle)
            o_ready = rng.random() >= stall
            ctx.set(dut.i.valid, offered)
            ctx.set(payload_in, self.words[sent] if offered else rng.getrandbits(len(payload_in)))
            ctx.set(dut.o.ready, o_ready)
            _, _, i_ready, o_valid, word = await ctx.tick().sample(dut.i.ready, dut.o.valid, payload_out)
            want_valid, want_ready = timer.valid, timer.ready(o_ready)
            if bool(o_valid) != want_valid or bool(i_ready) != want_ready:
                raise Wrong(f"cycle {cycle}: o.valid {o_valid} and i.ready {i_ready}, not {want_valid:d} and {want_ready:d}")
            if want_valid:
                want = self.results[taken]
                if word & ((1 << len(payload_out)) - 1) != want:
                    raise Wrong(f"cycle {cycle}: result {taken} is {word:#x}, not {want:#x}")
                taken += o_ready
            timer.step(offered, o_ready)
            if offered and want_ready:
                sent, offered = sent + 1, False
            quiet = quiet + 1 if taken == len(self.results) else 0
            cycle += 1
            if cycle > 20000:
                raise Wrong(f"only {taken} of {len(self.results)} results came")
