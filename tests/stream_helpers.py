"""Drive and watch streams in Amaranth's simulator, cycle by cycle, with stalls on both sides.

Both sides count cycles from 0, the first rising edge after reset. A stall pattern is an iterator of booleans: the
source asks it once for every cycle in which it has nothing offered, the sink once for every cycle.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from amaranth.sim import Simulator


@dataclass
class Log:
    """Transfers of one stream, and for a sink what was seen in each cycle."""

    cycles: list[int] = field(default_factory=list)
    payloads: list[Any] = field(default_factory=list)
    ready: list[bool] = field(default_factory=list)
    offered: list[bool] = field(default_factory=list)


def never() -> Iterator[bool]:
    """No stalls."""
    while True:
        yield False


def stalls(probability: float, seed: int) -> Iterator[bool]:
    """A stall with this probability, independently in every cycle."""
    rng = random.Random(seed)
    while True:
        yield rng.random() < probability


def bursts(length: int, seed: int) -> Iterator[bool]:
    """Runs of stalls and of none, each of 1 to ``length`` cycles."""
    rng = random.Random(seed)
    state = False
    while True:
        for _ in range(rng.randint(1, length)):
            yield state
        state = not state


async def stream_put(ctx, stream, payloads: Iterable[Any], pattern: Iterator[bool], log: Log,
                     garbage: Iterator[Any] | None = None) -> None:
    """Offers the payloads in order and holds each until it is taken; ``garbage`` stands on the wires in between."""
    cycle = 0
    for payload in payloads:
        while next(pattern):
            if garbage is not None:
                ctx.set(stream.payload, next(garbage))
            _, _, ready = await ctx.tick().sample(stream.ready)
            log.ready.append(bool(ready))
            log.offered.append(False)
            cycle += 1
        ctx.set(stream.payload, payload)
        ctx.set(stream.valid, 1)
        while True:
            _, _, ready = await ctx.tick().sample(stream.ready)
            log.ready.append(bool(ready))
            log.offered.append(True)
            cycle += 1
            if ready:
                break
        log.cycles.append(cycle - 1)
        log.payloads.append(payload)
        ctx.set(stream.valid, 0)
    while garbage is not None:
        ctx.set(stream.payload, next(garbage))
        _, _, ready = await ctx.tick().sample(stream.ready)
        log.ready.append(bool(ready))
        log.offered.append(False)


async def stream_get(ctx, stream, count: int, pattern: Iterator[bool], log: Log, *, drain: int = 0,
                     limit: int = 100_000) -> None:
    """Takes ``count`` payloads, then asserts that nothing more comes for ``drain`` cycles.

    Asserts that a payload which is not taken stays offered, unchanged.
    """
    held = None
    left = drain
    for cycle in range(limit):
        done = len(log.payloads) >= count
        if done and left == 0:
            return
        left -= done
        ready = done or not next(pattern)
        ctx.set(stream.ready, ready)
        _, _, valid, payload = await ctx.tick().sample(stream.valid, stream.payload)
        log.ready.append(ready)
        log.offered.append(bool(valid))
        assert not (done and valid), f"cycle {cycle}: a payload is left over after {count}"
        assert held is None or valid, f"cycle {cycle}: a payload was withdrawn before it was taken"
        assert held is None or payload == held, f"cycle {cycle}: a payload changed before it was taken"
        held = payload if valid and not ready else None
        if valid and ready:
            log.cycles.append(cycle)
            log.payloads.append(payload)
    raise AssertionError(f"only {len(log.payloads)} of {count} payloads came within {limit} cycles")


def transfer(dut, payloads: Sequence[Any], count: int, *, put_stalls: Iterator[bool] | None = None,
             get_stalls: Iterator[bool] | None = None, garbage: Iterator[Any] | None = None, drain: int = 20,
             limit: int = 100_000) -> tuple[Log, Log]:
    """Sends ``payloads`` through ``dut.i`` and takes ``count`` from ``dut.o``; returns both logs."""
    sent, received = Log(), Log()

    async def source(ctx):
        await stream_put(ctx, dut.i, payloads, put_stalls or never(), sent, garbage)

    async def sink(ctx):
        await stream_get(ctx, dut.o, count, get_stalls or never(), received, drain=drain, limit=limit)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(source, background=True)
    simulator.add_testbench(sink)
    simulator.run()
    assert len(sent.payloads) == len(payloads), "not every payload was taken"
    return sent, received
