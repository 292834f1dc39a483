"""A network and its plan as stages and streams: the one description that gateware, cycle model and costs are made from.

The folded architecture: one engine per layer, all connected by streams, all working at the same time. Where the width of
one stage's output differs from the next one's input, a gearbox stands between them. A result with several readers is forked;
in front of an add, a FIFO keeps what comes early (`flow` says how much).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd

from . import balance, nonzero
from .errors import PlanError
from .geometry import WindowGeometry, term_order, window_of
from .joins import AveragePool, Fifo, Fork, Join, Requantizer, summing
from .mac import MacUnit
from .network import (
    ActivationTable,
    Add,
    AvgPool2d,
    Conv2d,
    Dense,
    Flatten,
    MaxPool2d,
    Network,
    Node,
    Output,
    Requantize,
    TensorType,
    WeightNode,
)
from .network.tensor import Ints
from .nonzero import NonzeroReads
from .output import OutputStage
from .outputs import OUTPUTS
from .outputs.activation_table import TableLookup
from .plan import Entry, FifoPlan, LayerPlan, Plan, PoolPlan
from .streams import StreamFormat
from .sums import Sums, sums_of
from .units import UNITS


@dataclass(frozen=True, eq=False)
class Gearbox:
    """Hands words of ``input.lanes`` out as words of ``output.lanes``; one of them divides the other."""

    name: str
    input: StreamFormat
    output: StreamFormat


@dataclass(frozen=True, eq=False)
class Layer:
    """A weight layer: window reader, index ROM, MAC unit, output stage."""

    name: str
    node: WeightNode
    x: TensorType
    plan: LayerPlan

    @cached_property
    def window(self) -> WindowGeometry:
        """Which words are read, and when."""
        return window_of(self.node, self.x, channels=self.plan.channels, rows=self.plan.rows, pe=self.plan.pe,
                         spread=self.plan.spread, gap=self.unit.gap)

    @cached_property
    def order(self) -> Ints:
        """Which term each lane of each word sums, ``(fold, simd)``."""
        return term_order(self.node, channels=self.plan.channels, rows=self.plan.rows)

    @cached_property
    def _summed(self) -> tuple[MacUnit, Sums]:
        """The unit and its sums, off by constants where that is cheaper for the one and free for the output stage."""
        plan, sums, skips = self.plan, sums_of(self.node, self.x), self.plan.terms != "all"
        unit = UNITS[plan.unit].for_layer(self.node.weights, self.x, pe=1 if skips else plan.pe, simd=plan.simd,
                                          order=None if skips else self.order, acc_bits=sums.bits, spread=plan.spread)
        moved = moved_sums(unit, sums) if OUTPUTS[plan.output].takes_constants else None
        return (unit, sums) if moved is None else (unit.off(moved.bits), moved)

    @property
    def sums(self) -> Sums:
        """What the output stage finishes."""
        return self._summed[1]

    @cached_property
    def nonzero(self) -> NonzeroReads | None:
        """The reads of a layer that skips zeros; None for one that reads all terms."""
        if self.plan.terms == "all":
            return None
        return NonzeroReads(self.window, self.unit.codebook, self.plan.pe)  # a unit may have indices of its own

    @cached_property
    def stage(self) -> OutputStage:
        """What turns sums into codes."""
        p = self.plan
        return OUTPUTS[p.output](sums=self.sums, pe=p.pe, lanes=p.output_lanes, memory=p.output_memory)

    @property
    def unit(self) -> MacUnit:
        """What sums the products; where zeros are skipped, one such unit for each output of a word."""
        return self._summed[0]

    @property
    def input(self) -> StreamFormat:
        """Format of the input stream."""
        return StreamFormat(self.x, self.plan.input_lanes)

    @property
    def output(self) -> StreamFormat:
        """Format of the output stream."""
        return StreamFormat(self.node.output(self.x), self.plan.output_lanes)

    @property
    def lanes(self) -> int:
        """Terms summed in a cycle."""
        return self.plan.pe * self.plan.simd

    @property
    def interval(self) -> int:
        """Cycles for one frame in steady state, when neither neighbour holds it up."""
        if self.nonzero is not None:
            return self.nonzero.cycles(self.stage.interval)
        groups = self.window.reads // self.window.fold
        return groups * max(self.window.period, self.stage.interval)


def moved_sums(unit: MacUnit, sums: Sums) -> Sums | None:
    """What a layer's ``unit`` leaves in its ``sums`` if it may be off by constants; None if that makes nothing cheaper.

    They are constants because every output's terms are known: not where zeros are skipped, and some read after all.
    """
    if unit.order is None or not unit.excess.any():
        return None
    index = unit.codebook.assignments.reshape(sums.outputs, -1)
    return sums.moved(unit.excess[index].sum(axis=1))


@dataclass(frozen=True, eq=False)
class Pool:
    """A max-pool: window reader and running maximum."""

    name: str
    node: MaxPool2d
    x: TensorType
    plan: PoolPlan

    @cached_property
    def window(self) -> WindowGeometry:
        """Which words are read, and when."""
        return window_of(self.node, self.x, channels=self.plan.channels, rows=1, pe=1)

    @property
    def input(self) -> StreamFormat:
        """Format of the input stream."""
        return StreamFormat(self.x, self.plan.channels)

    @property
    def output(self) -> StreamFormat:
        """Format of the output stream."""
        return StreamFormat(self.node.output(self.x), self.plan.channels)

    @property
    def interval(self) -> int:
        """Cycles for one frame in steady state."""
        return self.window.reads


@dataclass(frozen=True, eq=False)
class Argmax:
    """Index of the largest element of a frame."""

    name: str
    node: Output
    input: StreamFormat

    @property
    def output(self) -> StreamFormat:
        """Format of the output stream."""
        return StreamFormat(self.node.output(self.input.type), 1)

    @property
    def interval(self) -> int:
        """Cycles for one frame in steady state."""
        return self.input.words


@dataclass(frozen=True, eq=False)
class TopK:
    """Indices of the largest elements of a frame, all of them in one word, the largest first."""

    name: str
    node: Output
    x: TensorType

    @property
    def input(self) -> StreamFormat:
        """Format of the input stream."""
        return StreamFormat(self.x, 1)

    @property
    def output(self) -> StreamFormat:
        """Format of the output stream."""
        return StreamFormat(self.node.output(self.x), self.node.top)

    @property
    def interval(self) -> int:
        """Cycles for one frame in steady state."""
        return self.input.words


Stage = Gearbox | Layer | Pool | Argmax | Join | AveragePool | Requantizer | Fork | Fifo | TopK


def frame_cycles(stage: Stage) -> int:
    """Cycles that ``stage`` needs for a frame in steady state: its own, or those in which its input's words come."""
    return max(getattr(stage, "interval", 0), stage.input.words)


def hardware_nodes(network: Network, plan: Plan | None = None) -> tuple[Node, ...]:
    """The nodes of ``network`` as hardware has them: an activation table is the bank of thresholds equal to it.

    It stays a table where ``plan`` names an output stage for tables, and where it is not monotone.
    """
    outputs = {entry.node: getattr(entry, "output", "") for entry in plan.layers} if plan else {}
    return tuple(hardware_node(network, node, outputs.get(node.name, "")) for node in network.nodes)


def hardware_node(network: Network, node: Node, output: str = "") -> Node:
    """One of `hardware_nodes`, for the output stage of that name; without a name: what is built unless a plan asks."""
    match node:
        case Dense() | Conv2d() | Add() | AvgPool2d() | Requantize() if isinstance(node.step, ActivationTable):
            if node.step.monotone and output != TableLookup.name:
                return replace(node, step=node.step.thresholds(network.types[node.name].channels))
            return node
        case _:
            return node


def check_layer(network: Network, plan: Entry) -> None:
    """Raise `PlanError` if ``plan`` cannot be built for its layer."""
    node = next((hardware_node(network, n, getattr(plan, "output", "")) for n in network.nodes if n.name == plan.node), None)
    where = f"layer {plan.node}"
    if isinstance(node, MaxPool2d) and isinstance(plan, PoolPlan):
        channels = network.input_type(node).channels
        if channels % plan.channels:
            raise PlanError(f"{where}: channels must divide the {channels} channels, not {plan.channels}")
        return
    if isinstance(node, Add | AvgPool2d | Requantize):
        summing(network, node, plan)
        return
    if not isinstance(node, Dense | Conv2d) or not isinstance(plan, LayerPlan):
        raise PlanError(f"{where}: plan must be for a layer of the network and of its kind; make the plan again")
    x = network.input_type(node)
    groups = node.groups if isinstance(node, Conv2d) else 1
    kernel = node.kernel[0] if isinstance(node, Conv2d) else 1

    def divides(name: str, whole: int, of: str) -> None:
        if whole % getattr(plan, name):
            raise PlanError(f"{where}: {name} must divide the {whole} {of}, not {getattr(plan, name)}")

    outputs, channels = node.outputs // groups, x.channels // groups
    if plan.spread == 1:
        divides("pe", outputs, "output channels of a group")
        divides("channels", channels, "input channels of a group")
    else:
        divides("spread", groups, "channel groups")
        if (plan.pe, plan.channels) != (plan.spread * outputs, channels):
            raise PlanError(f"{where}: pe and channels must be {plan.spread * outputs} and {channels}, all outputs of "
                            f"{plan.spread} groups and all inputs of one, where spread is {plan.spread}, not {plan.pe} and "
                            f"{plan.channels}")
    divides("output_lanes", plan.pe, "sums of a word (pe)")
    if plan.rows not in (1, kernel):
        raise PlanError(f"{where}: rows must be 1 or the kernel's {kernel}, not {plan.rows}")
    for field, known in (("unit", UNITS), ("output", OUTPUTS)):
        if getattr(plan, field) not in known:
            raise PlanError(f"{where}: {field} must be one of {', '.join(known)}, not {getattr(plan, field)!r}")
    if plan.terms == "nonzero" and plan.simd > 1:
        raise PlanError(f"{where}: channels and rows must be 1 where terms is nonzero, not {plan.channels} and {plan.rows}")
    reason = OUTPUTS[plan.output].reject(sums_of(node, x))
    if reason:
        raise PlanError(f"{where}: output {plan.output} cannot be used: {reason}")
    reason = UNITS[plan.unit].refusal(node.weights, x)
    if reason:
        raise PlanError(f"{where}: unit {plan.unit} cannot be used: {reason}")
    reason = UNITS[plan.unit].reject_order(node.weights, term_order(node, channels=plan.channels, rows=plan.rows))
    if reason:
        raise PlanError(f"{where}: unit {plan.unit} cannot be used: {reason}")
    if plan.spread > 1 and not UNITS[plan.unit].spreads:
        raise PlanError(f"{where}: unit {plan.unit} cannot sum over {plan.spread} groups at once, so spread must be 1")
    if plan.terms == "nonzero" and not UNITS[plan.unit].any_length:
        raise PlanError(f"{where}: unit {plan.unit} needs dot products of one length, so terms must be all, not nonzero")
    reason = nonzero.reject(node.weights.flat, groups) if plan.terms == "nonzero" else None
    if reason:
        raise PlanError(f"{where}: terms {plan.terms} cannot be used: {reason}")


@dataclass(frozen=True, eq=False)
class Stream:
    """A connection between two stages, or between a stage and the outside."""

    name: str
    """The stage that it comes from, or the network's input."""

    node: str
    """The node whose result it carries."""

    format: StreamFormat
    """How that result travels, in its own shape where the lanes allow it."""

    order: Ints | None = None
    """Channel of the result in every place of the last axis, where they travel in another order (`balance`)."""

    def arranged(self, values: Ints) -> Ints:
        """Values of the result, ``(N, ..., C)``, in the order of the stream."""
        return values if self.order is None else values[..., self.order]


@dataclass(frozen=True, eq=False)
class Pipeline:
    """Stages in topological order, and the streams that connect them.

    Every stream has one writer and one reader. Stream 0 comes from outside, the last one goes outside.
    """

    stages: tuple[Stage, ...]
    streams: tuple[Stream, ...]
    inputs: tuple[tuple[int, ...], ...]
    """For each stage the numbers of the streams that it reads, in the order of its ports."""

    outputs: tuple[tuple[int, ...], ...]
    """For each stage the numbers of the streams that it writes, in the order of its ports."""


class _Builder:
    """Stages put one behind the other."""

    def __init__(self, network: Network):
        self.network = network
        self.stages: list[Stage] = []
        self.streams: list[Stream] = []
        self.inputs: list[tuple[int, ...]] = []
        self.outputs: list[tuple[int, ...]] = []
        self.orders: dict[str, Ints] = {}  # of the channels of a node's result, where it is not its own
        self.names = {node.name for node in network.nodes}

    def unused(self, name: str) -> str:
        """``name``, or one like it that nothing else has."""
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name

    def stream(self, name: str, node: str, form: StreamFormat) -> int:
        """A new stream; its number."""
        self.streams.append(Stream(name, node, form, self.orders.get(node)))
        return len(self.streams) - 1

    def put(self, stage: Stage, node: str, *inputs: int, form: StreamFormat | None = None) -> int:
        """A stage that reads ``inputs`` and writes the result of ``node``; the number of its output."""
        output = self.stream(stage.name, node, form or stage.output)
        self.stages.append(stage)
        self.inputs.append(inputs)
        self.outputs.append((output,))
        return output

    def share(self, source: int, count: int) -> list[int]:
        """Stream ``source`` for ``count`` readers."""
        if count == 1:
            return [source]
        stream = self.streams[source]
        fork = Fork(self.unused(f"{stream.name}_fork"), stream.format, count)
        self.stages.append(fork)
        self.inputs.append((source,))
        self.outputs.append(tuple(self.stream(self.unused(f"{fork.name}{branch}"), stream.node, stream.format)
                                  for branch in range(count)))
        return list(self.outputs[-1])

    def fit(self, name: str, source: int, lanes: int) -> int:
        """Stream ``source`` in words of ``lanes``, through the greatest common divisor if need be."""
        stream = self.streams[source]
        if stream.format.lanes == lanes:
            return source
        # The consumer may see the same elements as a vector (after a flatten), whose lanes need not divide the channels.
        x = stream.format.type
        flat = StreamFormat(replace(x, shape=(x.size,)), stream.format.lanes)
        common = gcd(flat.lanes, lanes)
        steps = [flat.lanes, lanes] if common in (flat.lanes, lanes) else [flat.lanes, common, lanes]
        names = [name] if len(steps) == 2 else [f"{name}_split", f"{name}_join"]
        shape = self.network.types[stream.node]
        for own, before, after in zip(names, steps, steps[1:], strict=False):
            box = Gearbox(self.unused(own), replace(flat, lanes=before), replace(flat, lanes=after))
            shaped = StreamFormat(shape, after) if shape.channels % after == 0 else None
            source = self.put(box, stream.node, source, form=shaped)
        return source

    def wait(self, name: str, source: int, fifo: FifoPlan | None) -> int:
        """Stream ``source`` behind a FIFO, if there is one."""
        if fifo is None:
            return source
        stream = self.streams[source]
        stage = Fifo(self.unused(name), stream.format, fifo.depth, fifo.memory)
        return self.put(stage, stream.node, source)

    def ordered(self, node: WeightNode, plan: LayerPlan) -> WeightNode:
        """``node`` for the order in which its input comes, with its outputs in the order in which they leave."""
        if node.input in self.orders:
            node = balance.with_inputs(node, self.orders[node.input])
        if plan.terms == "nonzero" and plan.pe > 1 and balance.free_order(self.network, node):
            self.orders[node.name] = nonzero.balanced(node.weights.flat, plan.pe)
            node = balance.with_outputs(node, self.orders[node.name])
        return node

    def keep_order(self, node: Node) -> None:
        """The result of a node that moves channels only has the order of its input."""
        if isinstance(node, MaxPool2d | Flatten | Output) and (order := self.orders.get(node.input)) is not None:
            x = self.network.input_type(node)
            self.orders[node.name] = balance.flattened(order, x) if isinstance(node, Flatten) else order


def _origins(network: Network) -> dict[str, str]:
    """For every node the one whose stage writes its result: a flatten and an output of scores have no hardware."""
    origins: dict[str, str] = {}
    for node in network.nodes:
        passes = isinstance(node, Flatten) or (isinstance(node, Output) and node.kind == "scores")
        origins[node.name] = origins[node.inputs[0]] if passes else node.name
    return origins


def _fifos(network: Network, plan: Plan) -> dict[tuple[str, int], FifoPlan]:
    """The FIFOs of ``plan`` by add and number of the input, each checked."""
    found: dict[tuple[str, int], FifoPlan] = {}
    adds = {node.name: len(node.inputs) for node in network.nodes if isinstance(node, Add)}
    for fifo in plan.fifos:
        if fifo.node not in adds:
            raise PlanError(f"layer {fifo.node}: a FIFO must be for an add of the network; make the plan again")
        if fifo.input >= adds[fifo.node] or (fifo.node, fifo.input) in found:
            raise PlanError(f"layer {fifo.node}: input of a FIFO must be 0 to {adds[fifo.node] - 1}, each once, "
                            f"not {fifo.input}")
        found[fifo.node, fifo.input] = fifo
    return found


def _stage(build: _Builder, node: Node, plan: Plan, lanes: int) -> Stage | None:
    """The stage of ``node``, if it has one; ``lanes`` is what its input brings."""
    network = build.network
    match node:
        case Dense() | Conv2d() | MaxPool2d():
            entry = plan[node.name]
            check_layer(network, entry)
            if isinstance(node, MaxPool2d):
                assert isinstance(entry, PoolPlan)
                return Pool(node.name, node, network.input_type(node), entry)
            assert isinstance(entry, LayerPlan)
            return Layer(node.name, build.ordered(node, entry), network.input_type(node), entry)
        case Add() | AvgPool2d() | Requantize():
            return summing(network, node, plan[node.name])
        case Output(kind="argmax"):
            return Argmax(node.name, node, StreamFormat(network.input_type(node), lanes))
        case Output() if node.top:
            return TopK(node.name, node, network.input_type(node))
        case _:
            return None


def pipeline(network: Network, plan: Plan) -> Pipeline:
    """The stages of ``network`` under ``plan`` and their streams. Every entry of the plan is checked.

    Raises
    ------
    PlanError
        If the plan was made for another model or an entry cannot be built; the sentence names the layer.
    """
    if plan.digest != network.digest:
        raise PlanError(f"plan must be for model {network.digest[:16]}, not {plan.digest[:16]}; make the plan again")
    build, fifos, origins = _Builder(network), _fifos(network, plan), _origins(network)
    readers = Counter(origins[name] for node in network.nodes if origins[node.name] == node.name for name in node.inputs)
    free: dict[str, list[int]] = {}  # streams of each result that still wait for a reader
    for node in hardware_nodes(network, plan):
        first = free.get(origins[node.inputs[0]]) if node.inputs else None
        stage = _stage(build, node, plan, build.streams[first[0]].format.lanes if first else 1)
        build.keep_order(node)
        if stage is None:
            continue
        sources = []
        for number, (name, form) in enumerate(zip(node.inputs, getattr(stage, "inputs", (stage.input,)), strict=True)):
            origin = origins[name]
            if origin not in free:
                free[origin] = build.share(build.stream(origin, origin, form), readers[origin])
            which = str(number) if len(node.inputs) > 1 else ""
            source = build.fit(f"{node.name}_gearbox{which}", free[origin].pop(0), form.lanes)
            sources.append(build.wait(f"{node.name}_fifo{which}", source, fifos.get((node.name, number))))
        free[node.name] = build.share(build.put(stage, node.name, *sources), readers[node.name] or 1)
    if not build.stages:
        raise PlanError("network must have at least one layer to be built")
    return Pipeline(tuple(build.stages), tuple(build.streams), tuple(build.inputs), tuple(build.outputs))
