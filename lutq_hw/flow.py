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
from .families import ICE40
from .family import Family
from .geometry import window_of
from .joins import Fifo, Join
from .network import Add, AvgPool2d, Conv2d, Dense, MaxPool2d, Network
from .pipeline import Pipeline, pipeline
from .plan import FifoPlan, Plan
from .timing import schedule

FRAMES = 4
"""Frames that FIFOs and rates are measured with: the first fills the pipeline, the others keep it full."""

UNLIMITED = 1 << 40

REGISTER_BITS = 64
"""Up to this size a FIFO stands in registers: less than a block RAM is worth."""

Place = tuple[str, int]
"""An add and the number of one of its inputs."""

_known: dict[tuple[str, Plan], tuple[int, int] | None] = {}
"""`rate` of models (by digest) under plans with adds; None if one frame is all that got through so far."""


def rate(network: Network, plan: Plan) -> tuple[int, int]:
    """Latency and interval in cycles, of `FRAMES` frames without pauses; remembered for plans with adds.

    Raises
    ------
    PlanError
        As `timing.schedule` does.
    """
    known = _known.get((network.digest, plan))
    if known is None:
        times = schedule(pipeline(network, plan), FRAMES)
        known = times.latency, times.interval
        if _adds(network):
            _known[network.digest, plan] = known
    return known


def check_flow(network: Network, plan: Plan) -> None:
    """Let one frame through the cycle model of a plan with adds, unless that was done before.

    Raises
    ------
    PlanError
        If words stop moving: the sentence names the FIFO that is too small.
    """
    if _adds(network) and (network.digest, plan) not in _known:
        schedule(pipeline(network, plan), 1)
        _known[network.digest, plan] = None


def with_fifos(network: Network, plan: Plan) -> Plan:
    """``plan`` with FIFOs in front of its adds, so deep that none is ever full.

    The cycle model runs with FIFOs of any depth at every input of an add but the one that comes last; the most words that
    each had to hold is its depth, so the same run takes the same cycles with them.
    """
    late = [(name, lags.index(max(lags))) for name, lags in _adds(network).items()]
    everywhere = [(name, k) for name, lags in _adds(network).items() for k in range(len(lags))]
    try:
        return _measured(network, plan, [place for place in everywhere if place not in late])
    except PlanError:  # it stops without the others
        return _measured(network, plan, everywhere)


def fifo_room(network: Network, family: Family = ICE40) -> Cost:
    """Price of the FIFOs that any plan of ``network`` may need, before there is one.

    A branch is behind by what its line buffers hold, in frames; that many words can be waiting in front of the add.
    """
    room = Cost()
    for name, lags in _adds(network).items():
        node = network[name]
        for x, lag in zip(network.input_types(node), lags, strict=True):
            if lag < max(lags):
                room += fifo_cost(x.bits, ceil((max(lags) - lag) * x.size), "bram", family)
    return room


def _adds(network: Network) -> dict[str, list[float]]:
    """Every add with the frames by which each of its inputs is behind that of the network."""
    behind: dict[str, float] = {}
    found: dict[str, list[float]] = {}
    for node in network.nodes:
        lags = [behind[name] for name in node.inputs]
        lag = max(lags, default=0.0)
        if isinstance(node, Add):
            found[node.name] = lags
        if isinstance(node, Dense | Conv2d | MaxPool2d | AvgPool2d):
            window = window_of(node, network.input_type(node), channels=1, rows=1, pe=1)
            lag += window.buffer_rows / window.shape[0]
        behind[node.name] = lag
    return found


def _measured(network: Network, plan: Plan, places: list[Place]) -> Plan:
    """``plan`` with FIFOs at ``places``, as deep as a run without limits finds them."""
    unlimited = replace(plan, fifos=tuple(FifoPlan(node=node, input=k, depth=UNLIMITED) for node, k in places))
    if not places:
        return unlimited
    parts = pipeline(network, unlimited)
    times = schedule(parts, FRAMES)
    fifos = []
    for (node, k), stage in _fifos(parts).items():
        depth = times.fills[stage.name]
        memory = "luts" if depth * stage.input.width <= REGISTER_BITS else "bram"
        fifos.append(FifoPlan(node=node, input=k, depth=depth, memory=memory))
    sized = replace(plan, fifos=tuple(fifos))
    _known[network.digest, sized] = times.latency, times.interval
    return sized


def _fifos(parts: Pipeline) -> dict[Place, Fifo]:
    """Every FIFO by its place."""
    writers = {number: stage for stage, outputs in zip(parts.stages, parts.outputs, strict=True) for number in outputs}
    found = {}
    for stage, inputs in zip(parts.stages, parts.inputs, strict=True):
        for k, number in enumerate(inputs if isinstance(stage, Join) else ()):
            writer = writers.get(number)
            if isinstance(writer, Fifo):
                found[stage.name, k] = writer
    return found
