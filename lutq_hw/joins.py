"""Stages of nodes without weights, and those that let streams part and meet: adds, average pools, requantise, fork, FIFO."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .errors import PlanError
from .geometry import WindowGeometry, window_of
from .network import Add, AvgPool2d, Network, Requantize, TensorType
from .output import OutputStage
from .outputs import OUTPUTS
from .plan import SumPlan
from .streams import StreamFormat
from .sums import Sums, sums_of


@dataclass(frozen=True, eq=False)
class _Summing:
    """What forms ``channels`` sums at a time and has an output stage finish them."""

    name: str
    node: Add | AvgPool2d | Requantize
    types: tuple[TensorType, ...]
    plan: SumPlan

    @cached_property
    def sums(self) -> Sums:
        """What the output stage finishes."""
        return sums_of(self.node, *self.types)

    @cached_property
    def stage(self) -> OutputStage:
        """What turns sums into codes."""
        p = self.plan
        return OUTPUTS[p.output](sums=self.sums, pe=p.channels, lanes=p.output_lanes, memory=p.output_memory)

    @property
    def inputs(self) -> tuple[StreamFormat, ...]:
        """Formats of the input streams."""
        return tuple(StreamFormat(x, self.plan.channels) for x in self.types)

    @property
    def input(self) -> StreamFormat:
        """Format of the first input stream."""
        return self.inputs[0]

    @property
    def output(self) -> StreamFormat:
        """Format of the output stream."""
        return StreamFormat(self.sums.type, self.plan.output_lanes)

    @property
    def interval(self) -> int:
        """Cycles for one frame in steady state, when no neighbour holds it up."""
        return self.input.words * self.stage.interval


@dataclass(frozen=True, eq=False)
class Join(_Summing):
    """An add: one word of every input becomes a word of sums, all of them taken in the same cycle."""

    node: Add


@dataclass(frozen=True, eq=False)
class Requantizer(_Summing):
    """A step function on its own: the codes are the sums."""

    node: Requantize


@dataclass(frozen=True, eq=False)
class AveragePool(_Summing):
    """An average pool: window reader and running sums."""

    node: AvgPool2d

    @cached_property
    def window(self) -> WindowGeometry:
        """Which words are read, and when."""
        return window_of(self.node, self.types[0], channels=self.plan.channels, rows=1, pe=1)

    @property
    def interval(self) -> int:
        """Cycles for one frame in steady state, when neither neighbour holds it up."""
        fold = self.window.fold
        return self.window.reads // fold * max(fold, self.stage.interval)


@dataclass(frozen=True, eq=False)
class Fork:
    """Hands every word to ``count`` readers, to each when it is ready; the next word comes when all have it."""

    name: str
    input: StreamFormat
    count: int

    @property
    def output(self) -> StreamFormat:
        """Format of each output stream."""
        return self.input


@dataclass(frozen=True, eq=False)
class Fifo:
    """Keeps up to ``depth`` words, and one more that it offers; in block RAM or in registers."""

    name: str
    input: StreamFormat
    depth: int
    memory: str

    @property
    def output(self) -> StreamFormat:
        """Format of the output stream."""
        return self.input


SUMMING = {Add: Join, AvgPool2d: AveragePool, Requantize: Requantizer}
"""The stage of every kind of node without weights that a step may follow."""


def summing(network: Network, node: Add | AvgPool2d | Requantize, plan: object) -> Join | AveragePool | Requantizer:
    """The stage of ``node`` under ``plan``.

    Raises
    ------
    PlanError
        If it cannot be built so.
    """
    where = f"layer {node.name}"
    if not isinstance(plan, SumPlan):
        raise PlanError(f"{where}: plan must have the fields channels and output, and no unit; make the plan again")
    channels = network.input_type(node).channels
    if channels % plan.channels:
        raise PlanError(f"{where}: channels must divide the {channels} channels, not {plan.channels}")
    if plan.channels % plan.output_lanes:
        raise PlanError(f"{where}: output_lanes must divide the {plan.channels} sums of a word (channels), "
                        f"not {plan.output_lanes}")
    if plan.output not in OUTPUTS:
        raise PlanError(f"{where}: output must be one of {', '.join(OUTPUTS)}, not {plan.output!r}")
    stage = SUMMING[type(node)](node.name, node, network.input_types(node), plan)  # pyright: ignore[reportArgumentType]
    reason = OUTPUTS[plan.output].reject(stage.sums)
    if reason:
        raise PlanError(f"{where}: output {plan.output} cannot be used: {reason}")
    return stage
