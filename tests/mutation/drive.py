# amaranth: UnusedElaboratable=no
"""Runs a stream component in Amaranth's simulator against expected words and a timer; the first wrong cycle raises."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from amaranth import Module, ResetInserter, Signal, Value
from amaranth.lib import wiring
from amaranth.sim import Simulator

from lutq_hw.timing import ForkTimer, Timer

MARGIN = 12
"""Cycles behind the last word, in which nothing may come."""

PAUSES = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.6), (0.4, 0.5))


class Wrong(AssertionError):
    """The component does something else than it should."""


def streams(dut: Any, name: str) -> list[Any]:
    """The streams ``i`` or ``o`` of a component: one, or those that are called ``i0``, ``i1`` ..."""
    if hasattr(dut, name):
        return [getattr(dut, name)]
    found: list[Any] = []
    while hasattr(dut, f"{name}{len(found)}"):
        found.append(getattr(dut, f"{name}{len(found)}"))
    return found


class PipelineTimer:
    """One pipeline of ``latency`` registers, a startup, and gaps behind last words, in which nothing is taken.

    A result follows the last words, as ``lasts`` says of each.
    """

    def __init__(self, latency: int, lasts: Sequence[bool], gap: int = 0, startup: int = 0):
        self.pipe, self.lasts, self.next = [False] * latency, lasts, 0
        self.gap, self.rest = gap, startup + gap

    at_rest = False

    @property
    def valid(self) -> bool:
        return self.pipe[-1]

    def ready(self, o_ready: bool) -> bool:
        return (o_ready or not self.valid) and not self.rest

    def step(self, i_valid: bool, o_ready: bool) -> None:
        if o_ready or not self.valid:
            taken = i_valid and not self.rest
            self.pipe = [taken and self.lasts[self.next], *self.pipe[:-1]]
            self.rest = self.gap if self.pipe[0] else max(0, self.rest - 1)
            self.next += taken


class Rules:
    """What a `Timer` says of all streams of a component: its inputs are taken together, in a cycle in which all are there."""

    def __init__(self, timer: Timer | ForkTimer):
        self.timer = timer

    def valid(self, offers: Sequence[bool]) -> list[bool]:
        """Of every output."""
        if isinstance(self.timer, ForkTimer):
            return [offers[0] and not done for done in self.timer.done]
        return [self.timer.valid]

    def ready(self, offers: Sequence[bool], takes: Sequence[bool]) -> list[bool]:
        """Of every input."""
        if isinstance(self.timer, ForkTimer):
            return [all(done or take for done, take in zip(self.timer.done, takes, strict=True))]
        return [self.timer.ready(takes[0]) and (len(offers) == 1 or all(offers))] * len(offers)

    def step(self, offers: Sequence[bool], takes: Sequence[bool]) -> None:
        """One clock edge."""
        if not isinstance(self.timer, ForkTimer):
            self.timer.step(all(offers), takes[0])
        elif offers[0]:
            self.timer.settle(takes)


@dataclass(frozen=True)
class Run:
    """What goes in, what must come out and when.

    Parameters
    ----------
    make
        The component, with streams ``i`` and ``o``, or several of them.
    timer
        A new timer, which says in every cycle what ``valid`` and ``ready`` are.
    words, results
        Payloads as bits, of every stream.
    seed
        Of pauses, of garbage on the wires while nothing is offered, and of the cycle of a reset in the middle.
    """

    make: Callable[[], wiring.Component]
    timer: Callable[[], Timer | ForkTimer]
    words: Sequence[Sequence[int]]
    results: Sequence[Sequence[int]]
    seed: int = 0
    legal: Callable[[Module, Value, Value], Value] | None = None
    """Makes any payload one that can occur, given when a word is taken; None: all can."""

    pauses: tuple[float, float] | None = None
    """How often nothing is offered, and nothing taken; None: as the seed says."""

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
        idle, stall = self.pauses or PAUSES[self.seed % len(PAUSES)]

        async def bench(ctx: Any) -> None:
            await self.part(ctx, dut, rng, idle, stall, limit=self.warm + rng.randrange(3, 30))
            ctx.set(reset, 1)
            for i in streams(dut, "i"):
                ctx.set(i.valid, rng.getrandbits(1))  # whoever offers may be reset as late as this
            await ctx.tick()
            ctx.set(reset, 0)
            await self.part(ctx, dut, rng, idle, stall, limit=None)

        simulator = Simulator(ResetInserter(reset)(dut))
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()

    async def part(self, ctx: Any, dut: Any, rng: random.Random, idle: float, stall: float, limit: int | None) -> None:
        """From a reset on, ``limit`` cycles or until all is done."""
        inputs, outputs = streams(dut, "i"), streams(dut, "o")
        watched = [*(i.ready for i in inputs), *(o.valid for o in outputs), *(Value.cast(o.payload) for o in outputs)]
        rules = Rules(self.timer())
        sent, taken, offers = [0] * len(inputs), [0] * len(outputs), [False] * len(inputs)
        cycle = quiet = 0
        while quiet < MARGIN if limit is None else cycle < limit:
            for n, (i, words) in enumerate(zip(inputs, self.words, strict=True)):
                offers[n] = offers[n] or (sent[n] < len(words) and rng.random() >= idle)
                payload = Value.cast(i.payload)
                ctx.set(i.valid, offers[n])
                ctx.set(payload, words[sent[n]] if offers[n] else rng.getrandbits(len(payload)))
            takes = [rng.random() >= stall for _ in outputs]
            for o, take in zip(outputs, takes, strict=True):
                ctx.set(o.ready, take)
            _, _, *values = await ctx.tick().sample(*watched)
            ready, valid = values[:len(inputs)], values[len(inputs):-len(outputs)]
            want_valid, want_ready = rules.valid(offers), rules.ready(offers, takes)
            if [bool(bit) for bit in valid] != want_valid or [bool(bit) for bit in ready] != want_ready:
                raise Wrong(f"cycle {cycle}: valid {valid} and ready {ready}, not {want_valid} and {want_ready}")
            for n, word in enumerate(values[-len(outputs):]):
                if want_valid[n]:
                    want = self.results[n][taken[n]]
                    if word & ((1 << len(Value.cast(outputs[n].payload))) - 1) != want:
                        raise Wrong(f"cycle {cycle}: result {taken[n]} of output {n} is {word:#x}, not {want:#x}")
                    taken[n] += takes[n]
            rules.step(offers, takes)
            for n in range(len(inputs)):
                if offers[n] and want_ready[n]:
                    sent[n], offers[n] = sent[n] + 1, False
            quiet = quiet + 1 if taken == [len(results) for results in self.results] else 0
            cycle += 1
            if cycle > 20000:
                raise Wrong(f"only {taken} of {[len(results) for results in self.results]} results came")
