"""Branches that part and meet again: how much each FIFO must keep, and whether a plan can come to a stop.

Every stage takes and gives words in an order that no timing changes, so whether words ever stop moving does not depend
on timing either (the stages are a Kahn process network with bounded queues). And a frame that has passed leaves every stage
as it was. One frame that gets through without pauses therefore proves that any number does, whatever pauses there are.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from .cost import Cost
from .costing import fifo_cost
from .errors import PlanError
from .geometry import window_of
from .joins import Fifo, Join
from .network import Add, AvgPool2d, Conv2d, Dense, MaxPool2d, Network
from .pipeline import Pipeline, pipeline
from .plan import FifoPlan, Plan
from .timing import Schedule, schedule

FRAMES = 3
"""Frames that FIFOs are measured with: the first fills the pipeline, the others keep it full."""

UNLIMITED = 1 << 40

REGISTER_BITS = 64
"""Up to this size a FIFO stands in registers: less than a block RAM is worth."""

_flowing: set[tuple[str, Plan]] = set()
"""Models (by digest) and plans that are known not to stop."""


def with_fifos(network: Network, plan: Plan) -> Plan:
    """``plan`` with FIFOs just large enough that no branch ever waits for one, and none where it would not help.

    The cycle model runs with FIFOs of any depth in front of every add; the most words that each had to hold is its depth,
    so the same run takes the same cycles with them. Those that never held more than one word are left out if the run
    is not slower then.
    """
    inputs = [(node.name, k) for node in network.nodes if isinstance(node, Add) for k in range(len(node.inputs))]
    if not inputs:
        return replace(plan, fifos=())
    everywhere, depths = _measured(network, plan, inputs)
    needed = [place for place in inputs if depths[place] > 1]
    try:
        fewer, fewer_depths = _measured(network, plan, needed)
        if fewer.interval <= everywhere.interval and fewer.latency <= everywhere.latency:
            depths = fewer_depths
    except PlanError:
        pass  # it comes to a stop without them
    widths = _widths(pipeline(network, _unlimited(plan, inputs)))
    fifos = tuple(
        FifoPlan(node=node, input=k, depth=depth, memory="luts" if depth * widths[node, k] <= REGISTER_BITS else "bram")
        for (node, k), depth in depths.items())
    sized = replace(plan, fifos=fifos)
    _flowing.add((network.digest, sized))
    return sized


def fifo_room(network: Network) -> Cost:
    """Price of the FIFOs that any plan of ``network`` may need, before there is one.

    A branch is behind by what its line buffers hold, in frames; that many words can be waiting in front of the add.
    """
    room = Cost()
    behind: dict[str, float] = {}
    for node in network.nodes:
        lags = [behind[name] for name in node.inputs]
        lag = max(lags, default=0.0)
        for x, mine in zip(network.input_types(node), lags, strict=True) if isinstance(node, Add) else ():
            if mine < lag:
                room += fifo_cost(x.bits, ceil((lag - mine) * x.size), "bram")
        if isinstance(node, Dense | Conv2d | MaxPool2d | AvgPool2d):
            window = window_of(node, network.input_type(node), channels=1, rows=1, pe=1)
            lag += window.buffer_rows / window.shape[0]
        behind[node.name] = lag
    return room


def _unlimited(plan: Plan, places: list[tuple[str, int]]) -> Plan:
    return replace(plan, fifos=tuple(FifoPlan(node=node, input=k, depth=UNLIMITED) for node, k in places))


def _fifos(parts: Pipeline) -> dict[tuple[str, int], Fifo]:
    """Every FIFO by its add and the number of the input."""
    writers = {number: stage for stage, outputs in zip(parts.stages, parts.outputs, strict=True) for number in outputs}
    found = {}
    for stage, inputs in zip(parts.stages, parts.inputs, strict=True):
        for k, number in enumerate(inputs if isinstance(stage, Join) else ()):
            writer = writers.get(number)
            if isinstance(writer, Fifo):
                found[stage.name, k] = writer
    return found


def _widths(parts: Pipeline) -> dict[tuple[str, int], int]:
    return {place: fifo.input.width for place, fifo in _fifos(parts).items()}


def _measured(network: Network, plan: Plan, places: list[tuple[str, int]],
              ) -> tuple[Schedule, dict[tuple[str, int], int]]:
    """A run with FIFOs of any depth at ``places``, and the most words that each held."""
    parts = pipeline(network, _unlimited(plan, places))
    times = schedule(parts, FRAMES)
    return times, {place: times.fills[fifo.name] for place, fifo in _fifos(parts).items()}


def check_flow(network: Network, plan: Plan) -> None:
    """Let one frame through the cycle model of a plan with adds, unless that was done before.

    Raises
    ------
    PlanError
        If words stop moving: the sentence names the FIFO that is too small.
    """
    if any(isinstance(node, Add) for node in network.nodes) and (network.digest, plan) not in _flowing:
        schedule(pipeline(network, plan), 1)
        _flowing.add((network.digest, plan))
