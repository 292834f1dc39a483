"""Candidates: every sensible way to build each layer, with the cycles that it takes for a frame and its price.

A new kind of node gets a function like `layer_candidates` here and a line in `node_candidates`. Units and output stages
are found by themselves: whatever can run a layer is priced, and what nothing beats is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import balance, nonzero
from ..cost import Cost
from ..costing import nonzero_cost, stage_cost
from ..errors import PlanError
from ..geometry import WindowGeometry, term_order, window_of
from ..joins import summing
from ..network import (
    ActivationTable,
    Add,
    AvgPool2d,
    Conv2d,
    Dense,
    MaxPool2d,
    Network,
    Node,
    Requantize,
    TensorType,
    WeightNode,
)
from ..outputs import OUTPUTS
from ..pipeline import Layer, Pool, Stage, frame_cycles, hardware_nodes
from ..plan import Entry, LayerPlan, PoolPlan, SumPlan
from ..streams import StreamFormat
from ..sums import Sums, sums_of
from ..unit_cost import unit_cost
from ..units import UNITS
from .budget import scarce
from .pareto import efficient
from .parts import Target, TimedParts

MAX_LANES = 256
"""Largest array that is considered for one layer."""

MAX_PORTS = 32
"""Most lanes of a layer that skips zeros: each has its own copy of the buffered rows."""

WORTH_SKIPPING = 0.8
"""Part of the weights that may be non-zero where skipping the others is considered."""

MAX_TABLE = 128
"""Deepest index ROM that is considered in logic; deeper ones cost more luts than a block RAM is worth."""

ANY = Target()
"""iCE40 at any clock."""

PATENTED = "product-table"
"""Claimed, together with an activation table, by US 11,488,016 and US 12,118,466: never a silent default."""


@dataclass(frozen=True)
class Candidate:
    """One way to build a layer: cycles for a frame in steady state, and price."""

    plan: Entry
    cycles: int
    cost: Cost
    period_ns: float = 0.0
    """Shortest clock period that it promises on a full FPGA; 0 if it keeps up with the planning clock, or nobody knows."""

    @property
    def figures(self) -> tuple[float, ...]:
        """All that counts, and less is better."""
        return (self.cycles, self.period_ns, *scarce(self.cost))

    @property
    def ports(self) -> tuple[int, int]:
        """Lanes of input and output, on which the gearboxes to its neighbours depend."""
        if isinstance(self.plan, LayerPlan):
            return self.plan.input_lanes, self.plan.output_lanes
        lanes = getattr(self.plan, "channels", 1)
        return lanes, lanes


def divisors(n: int, limit: int = MAX_LANES) -> list[int]:
    """Divisors of ``n`` up to ``limit``, ascending."""
    return [d for d in range(1, min(n, limit) + 1) if n % d == 0]


def unit_verdicts(node: WeightNode, x: TensorType, asked: Sequence[str] | None = None) -> dict[str, str | None]:
    """Every unit with None if it may run ``node``, or with the reason why it may not."""
    verdicts = {name: unit.refusal(node.weights, x) for name, unit in UNITS.items()}
    if asked is not None:
        return {name: reason or (None if name in asked else "not among the units asked for")
                for name, reason in verdicts.items()}
    if isinstance(node.step, ActivationTable) and verdicts[PATENTED] is None:
        verdicts[PATENTED] = "taken only when asked for: with the activation table behind it, it is claimed by patents"
    others = any(reason is None for name, reason in verdicts.items() if name != PATENTED)
    if others and verdicts[PATENTED] is None:
        verdicts[PATENTED] = "taken only when asked for, since other units can run the layer"
    return verdicts


def usable_outputs(sums: Sums) -> list[str]:
    """Output stages that can finish ``sums``, usually the smallest first."""
    return [name for name in dict.fromkeys(("scores", "shift", "thresholds", *OUTPUTS)) if OUTPUTS[name].reject(sums) is None]


def cheapest_output(sums: Sums) -> str:
    """The output stage that is usually the smallest."""
    return usable_outputs(sums)[0]


def layer_candidates(node: WeightNode, x: TensorType, units: Iterable[str], target: Target = ANY) -> list[Candidate]:
    """Every sensible way to build a weight layer with one of ``units``; beaten ones are dropped."""
    parts = TimedParts(node, x, target)
    units, outputs = list(units), usable_outputs(parts.sums)
    groups = node.groups if isinstance(node, Conv2d) else 1
    kernel = node.kernel[0] if isinstance(node, Conv2d) else 1
    found: list[Candidate] = []
    suited: dict[tuple[int, int], list[str]] = {}  # units that can sum the terms in the order of that array
    for pe, channels, spread in _arrays(node.outputs // groups, x.channels // groups, groups):
        for rows in sorted({1, kernel}):
            if (channels, rows) not in suited:
                order = term_order(node, channels=channels, rows=rows)
                suited[channels, rows] = [name for name in units if UNITS[name].reject_order(node.weights, order) is None]
            usable = [name for name in suited[channels, rows] if spread == 1 or UNITS[name].spreads]
            if usable and pe * channels * rows <= MAX_LANES:
                plan = LayerPlan(node=node.name, unit=usable[0], pe=pe, channels=channels, rows=rows, spread=spread,
                                 output=outputs[0])
                found += _array_candidates(plan, parts, usable, outputs)
    return pareto_by_ports(found)


def _arrays(outputs: int, channels: int, groups: int) -> Iterator[tuple[int, int, int]]:
    """``(pe, channels, spread)`` of a layer whose ``groups`` have so many outputs and channels each."""
    for pe in divisors(outputs):
        yield from ((pe, some, 1) for some in divisors(channels, MAX_LANES // pe))
    for spread in divisors(groups, MAX_LANES // outputs)[1:]:
        yield spread * outputs, channels, spread


@dataclass(frozen=True)
class _Option:
    """One way to build a part of a layer: what it sets in the plan, least cycles between sums, price and clock period."""

    changes: dict[str, Any]
    interval: int
    cost: Cost
    period_ns: float


def _array_candidates(plan: LayerPlan, parts: TimedParts, units: Sequence[str], outputs: Sequence[str]) -> list[Candidate]:
    """Candidates of one array size: units, memories, output stages.

    Prices of the parts add up, so what is beaten within its part need not be combined with the others.
    """
    window = window_of(parts.node, parts.x, channels=plan.channels, rows=plan.rows, pe=plan.pe, spread=plan.spread)
    fold, groups = window.fold, window.reads // window.fold
    found: list[Candidate] = []
    # A unit may be another in front of a stage that takes constants, so those stages are apart from the others.
    for takes in (False, True):
        alike = [output for output in outputs if OUTPUTS[output].takes_constants == takes]
        if not alike:
            continue
        macs = _best(option for unit in units for option in _mac_options(unit, alike[0], plan, window, parts))
        for stages in _finishers(alike, plan.pe, fold, parts):
            found += _combined(plan, parts, macs, stages, groups)
    return found


def _finishers(outputs: Sequence[str], pe: int, fold: int, parts: TimedParts) -> list[list[_Option]]:
    """Output stages for arrays that fold so often, the best for each number of lanes, since these are a port."""
    key = (*outputs, pe, fold)
    if key not in parts.finishers:
        by_lanes: dict[int, list[_Option]] = {}
        for output in outputs:
            for option in _output_options(output, pe, fold, parts):
                by_lanes.setdefault(option.changes["output_lanes"], []).append(option)
        parts.finishers[key] = [_best(options) for options in by_lanes.values()]
    return parts.finishers[key]


def _combined(plan: LayerPlan, parts: TimedParts, macs: Sequence[_Option], stages: Sequence[_Option],
              groups: int) -> list[Candidate]:
    """Of one array, every MAC unit with every output stage that has the same lanes; beaten ones are dropped.

    A frame has ``groups`` dot products for each output of the array.
    """
    words = StreamFormat(parts.x, plan.input_lanes).words
    behind: dict[str, list[tuple[float, Cost]]] = {}  # period and price of the stages, by the unit in front of them
    pairs: list[tuple[_Option, _Option, int, Cost, float]] = []
    for mac in macs:
        unit = mac.changes["unit"]
        if unit not in behind:
            sizes = [(stage.changes["output"], plan.pe, stage.changes["output_lanes"], stage.changes["output_memory"], unit)
                     for stage in stages]
            behind[unit] = [(parts.output_period(*size), parts.output(*size)) for size in sizes]
        for stage, (period, cost) in zip(stages, behind[unit], strict=True):
            cycles = max(groups * max(mac.interval, stage.interval), words)
            pairs.append((mac, stage, cycles, mac.cost + cost, max(mac.period_ns, period)))
    kept = efficient(np.array([(cycles, period, *scarce(cost)) for _, _, cycles, cost, period in pairs], float))
    return [Candidate(replace(plan, **pairs[n][0].changes, **pairs[n][1].changes), *pairs[n][2:])
            for n in kept]


def nonzero_candidates(network: Network, node: WeightNode, units: Iterable[str], target: Target = ANY) -> list[Candidate]:
    """Every sensible way to build a layer that reads its non-zero weights only; none where zeros are rare."""
    x, flat = network.input_type(node), node.weights.flat
    if nonzero.reject(flat, node.groups if isinstance(node, Conv2d) else 1):
        return []
    if (flat.assignments != nonzero.zero_index(flat)).mean() > WORTH_SKIPPING:
        return []
    free = balance.free_order(network, node)
    found: list[Candidate] = []
    outputs = usable_outputs(sums_of(node, x))
    for pe in divisors(node.outputs, MAX_PORTS):
        ordered = balance.with_outputs(node, nonzero.balanced(flat, pe)) if free and pe > 1 else node
        parts = TimedParts(ordered, x, target)  # the tables of an output stage are in that order too
        for unit in (name for name in units if UNITS[name].any_length):
            plan = LayerPlan(node=node.name, unit=unit, pe=pe, channels=1, terms="nonzero")
            layer = Layer(node.name, ordered, x, plan)
            assert layer.nonzero is not None
            shortest, words = min(layer.nonzero.lengths), layer.nonzero.words
            mac = unit_cost(layer.unit, target.family).cost * pe
            fronts = {memory: mac + nonzero_cost(layer.nonzero, x.bits, memory, target.family)
                      for memory in (("bram", "luts") if words <= MAX_TABLE else ("bram",))}
            period = parts.reader_period(layer.unit, layer.window)
            for output in outputs:
                for option in _output_options(output, pe, shortest, parts):
                    interval = parts.interval(output, pe, option.changes["output_lanes"])
                    cycles = max(layer.nonzero.cycles(interval), layer.input.words)
                    found += [Candidate(replace(plan, index_memory=memory, **option.changes), cycles, front + option.cost,
                                        max(period, option.period_ns)) for memory, front in fronts.items()]
    return pareto_by_ports(found)


def _mac_options(name: str, output: str, plan: LayerPlan, window: WindowGeometry, parts: TimedParts) -> Iterator[_Option]:
    """One unit in front of an output stage, with what depends on it: window reader (its gap is the unit's), index ROM."""
    mac = parts.mac_before(output, name, *plan.array)
    if mac.gap:
        window = replace(window, gap=mac.gap)
    cost, period = parts.window(window) + parts.unit(name, *plan.array, output=output), parts.reader_period(mac, window)
    shallow = window.groups * window.repeat * window.fold + window.gap <= MAX_TABLE
    for memory in ("bram", "luts") if shallow else ("bram",):
        yield _Option({"unit": name, "index_memory": memory}, window.period, cost + parts.index(mac, window, memory), period)


def _output_options(output: str, pe: int, fold: int, parts: TimedParts) -> Iterator[_Option]:
    """Output stages of one kind: memories, and just as many lanes as keep up with an array that folds ``fold`` times."""
    for lanes in divisors(pe):
        interval = parts.interval(output, pe, lanes)
        for memory in ("luts", "bram"):
            yield _Option({"output": output, "output_lanes": lanes, "output_memory": memory}, max(fold, interval),
                          parts.output(output, pe, lanes, memory), parts.output_period(output, pe, lanes, memory))
        if interval <= fold:
            break


def _best(options: Iterable[_Option]) -> list[_Option]:
    """Options that no other one equals or beats in interval, period and every resource."""
    options = list(options)
    rows = np.array([(o.interval, o.period_ns, *scarce(o.cost)) for o in options], float)
    return [options[i] for i in efficient(rows)]


def built(stage: Stage, plan: Entry, target: Target = ANY) -> Candidate:
    """The candidate that ``stage``, built as ``plan`` says, is."""
    return Candidate(plan, frame_cycles(stage), stage_cost(stage, target.family), target.stage_period(stage))


def pool_candidates(node: MaxPool2d, x: TensorType, target: Target = ANY) -> list[Candidate]:
    """Every way to build a max-pool."""
    plans = [PoolPlan(node=node.name, channels=c) for c in divisors(x.channels)]
    return pareto_by_ports([built(Pool(node.name, node, x, plan), plan, target) for plan in plans])


def sum_candidates(network: Network, node: Add | AvgPool2d | Requantize, target: Target = ANY) -> list[Candidate]:
    """Every sensible way to build a node without weights that a step may follow."""
    found: list[Candidate] = []
    sums = sums_of(node, *network.input_types(node))
    outputs = usable_outputs(sums)
    if not outputs:
        reasons = "; ".join(f"{name}: {output.reject(sums)}" for name, output in OUTPUTS.items())
        raise PlanError(f"layer {node.name}: no output stage can finish it ({reasons})")
    for channels in divisors(network.input_type(node).channels):
        for output in outputs:
            for lanes in divisors(channels):
                for memory in ("luts", "bram"):
                    plan = SumPlan(node=node.name, channels=channels, output=output, output_lanes=lanes, output_memory=memory)
                    found.append(built(summing(network, node, plan), plan, target))
    return pareto_by_ports(found)


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates that no other one equals or beats in cycles, period and every resource; the fastest first."""
    return [candidates[i] for i in efficient(np.array([c.figures for c in candidates], float))]


def pareto_by_ports(candidates: Iterable[Candidate]) -> list[Candidate]:
    """As `pareto`, but candidates with other ports do not count: a dearer one may save a gearbox."""
    kinds: dict[tuple[int, int], list[Candidate]] = {}
    for candidate in candidates:
        kinds.setdefault(candidate.ports, []).append(candidate)
    return sorted((c for kind in kinds.values() for c in pareto(kind)), key=lambda c: c.figures)


def node_candidates(network: Network, node: Node, units: Sequence[str] | None = None,
                    target: Target = ANY) -> list[Candidate] | None:
    """Candidates of one of `hardware_nodes`, None if nothing is to be chosen for it.

    Raises
    ------
    PlanError
        If no unit can run a layer or no output stage can finish it (the sentence names every one with its reason), or
        nothing reaches the clock of a strict target.
    """
    found = _all_candidates(network, node, units, target)
    if found is None or not target.strict:
        return found
    fast = [c for c in found if not c.period_ns]
    if not fast:
        best = min(found, key=lambda c: c.period_ns)
        raise PlanError(f"layer {node.name}: nothing that can build it promises {1e3 / target.period_ns:g} MHz on a full "
                        f"FPGA, the fastest {1e3 / best.period_ns:.1f} MHz; ask for a lower --clock")
    return fast


def _all_candidates(network: Network, node: Node, units: Sequence[str] | None, target: Target) -> list[Candidate] | None:
    """`node_candidates` at any clock."""
    if isinstance(node, MaxPool2d):
        return pool_candidates(node, network.input_type(node), target)
    if isinstance(node, Add | AvgPool2d | Requantize):
        return sum_candidates(network, node, target)
    if isinstance(node, Dense | Conv2d):
        verdicts = unit_verdicts(node, network.input_type(node), units)
        usable = [name for name, reason in verdicts.items() if reason is None]
        if not usable:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in verdicts.items())
            raise PlanError(f"layer {node.name}: no unit can run it ({reasons})")
        sums = sums_of(node, network.input_type(node))
        if not usable_outputs(sums):
            reasons = "; ".join(f"{name}: {stage.reject(sums)}" for name, stage in OUTPUTS.items())
            raise PlanError(f"layer {node.name}: no output stage can finish it ({reasons})")
        dense = layer_candidates(node, network.input_type(node), usable, target)
        found = pareto_by_ports([*dense, *nonzero_candidates(network, node, usable, target)])
        if not found:
            order = term_order(node, channels=1, rows=1)
            reasons = "; ".join(f"{name}: {UNITS[name].reject_order(node.weights, order)}" for name in usable)
            raise PlanError(f"layer {node.name}: no unit can run it ({reasons})")
        return found
    return None


def candidates(network: Network, units: Sequence[str] | None = None, target: Target = ANY) -> list[list[Candidate]]:
    """Candidates of every layer, in order.

    Raises
    ------
    PlanError
        As `node_candidates` does, and for a unit that there is not.
    """
    unknown = [name for name in units or () if name not in UNITS]
    if unknown:
        raise PlanError(f"unit must be one of {', '.join(UNITS)}, not {unknown[0]!r}")
    layers = [found for node in hardware_nodes(network)
              if (found := node_candidates(network, node, units, target)) is not None]
    if not layers:
        raise PlanError("network must have at least one layer to be built")
    return layers
