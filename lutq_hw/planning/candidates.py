"""Candidates: every sensible way to build each layer, with the cycles that it takes for a frame and its price.

A new kind of node gets a function like `layer_candidates` here and a line in `candidates`. Units and output stages are
found by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..cost import Cost
from ..costing import LayerParts, stage_cost
from ..errors import PlanError
from ..network import Conv2d, Dense, MaxPool2d, Network, TensorType, WeightNode
from ..outputs import OUTPUTS
from ..pipeline import Layer, Pool, hardware_nodes
from ..plan import LayerPlan, PoolPlan
from ..sums import Sums
from ..units import UNITS
from .budget import RESOURCES

MAX_LANES = 256
"""Largest array that is considered for one layer."""

MAX_TABLE = 128
"""Deepest index ROM that is considered in logic; deeper ones cost more luts than a block RAM is worth."""

PATENTED = "product-table"
"""Claimed, together with an activation table, by US 11,488,016 and US 12,118,466: never a silent default."""


@dataclass(frozen=True)
class Candidate:
    """One way to build a layer: cycles for a frame in steady state, and price."""

    plan: LayerPlan | PoolPlan
    cycles: int
    cost: Cost


def divisors(n: int, limit: int = MAX_LANES) -> list[int]:
    """Divisors of ``n`` up to ``limit``, ascending."""
    return [d for d in range(1, min(n, limit) + 1) if n % d == 0]


def unit_verdicts(node: WeightNode, x: TensorType, asked: Sequence[str] | None = None) -> dict[str, str | None]:
    """Every unit with None if it may run ``node``, or with the reason why it may not."""
    flat = node.weights.flat
    verdicts = {name: unit.reject(flat, x.bits, x.signed) for name, unit in UNITS.items()}
    if asked is not None:
        return {name: reason or (None if name in asked else "not among the units asked for")
                for name, reason in verdicts.items()}
    others = any(reason is None for name, reason in verdicts.items() if name != PATENTED)
    if others and verdicts[PATENTED] is None:
        verdicts[PATENTED] = "taken only when asked for, since other units can run the layer"
    return verdicts


def cheapest_output(sums: Sums) -> str:
    """The smallest output stage that can finish ``sums``."""
    return next(name for name in ("scores", "shift", *OUTPUTS) if OUTPUTS[name].reject(sums) is None)


def layer_candidates(node: WeightNode, x: TensorType, units: Iterable[str]) -> list[Candidate]:
    """Every sensible way to build a weight layer with one of ``units``; beaten ones are dropped."""
    units = list(units)
    groups = node.groups if isinstance(node, Conv2d) else 1
    kernel = node.kernel[0] if isinstance(node, Conv2d) else 1
    parts = LayerParts(node, x)
    output = cheapest_output(parts.sums)
    found: list[Candidate] = []
    for pe in divisors(node.outputs // groups):
        for channels in divisors(x.channels // groups, MAX_LANES // pe):
            for rows in sorted({1, kernel}):
                if pe * channels * rows <= MAX_LANES:
                    plan = LayerPlan(node=node.name, unit=units[0], pe=pe, channels=channels, rows=rows, output=output)
                    found += _variants(Layer(node.name, node, x, plan), parts, units)
    return pareto(found)


def _variants(layer: Layer, parts: LayerParts, units: Sequence[str]) -> list[Candidate]:
    """Candidates of one array size: units, memories, and just as many output lanes as keep up with the array."""
    plan, fold = layer.plan, layer.window.fold
    groups = layer.window.reads // fold
    window = parts.window(layer.window)
    found = []
    for lanes in divisors(plan.pe):
        interval = parts.interval(plan.output, plan.pe, lanes)
        cycles = max(groups * max(fold, interval), layer.input.words)
        shallow = layer.window.groups * layer.window.repeat * fold <= MAX_TABLE
        for output_memory in ("luts", "bram"):
            for index_memory in ("bram", "luts") if shallow else ("bram",):
                rest = (window + parts.index(layer.window, plan.pe, index_memory)
                        + parts.output(plan.output, plan.pe, lanes, output_memory))
                for unit in units:
                    choice = replace(plan, unit=unit, output_lanes=lanes, output_memory=output_memory,
                                     index_memory=index_memory)
                    found.append(Candidate(choice, cycles, rest + parts.unit(unit, plan.pe, plan.simd)))
        if interval <= fold:
            break
    return found


def pool_candidates(node: MaxPool2d, x: TensorType) -> list[Candidate]:
    """Every way to build a max-pool."""
    pools = [Pool(node.name, node, x, PoolPlan(node=node.name, channels=c)) for c in divisors(x.channels)]
    return pareto([Candidate(p.plan, max(p.interval, p.input.words), stage_cost(p)) for p in pools])


def pareto(candidates: list[Candidate]) -> list[Candidate]:
    """Candidates that no other one equals or beats in cycles and every resource."""
    def key(c: Candidate) -> tuple[float, ...]:
        return (c.cycles, *(getattr(c.cost, r) for r in RESOURCES))

    kept: list[tuple[tuple[float, ...], Candidate]] = []
    for mine, candidate in sorted(((key(c), c) for c in candidates), key=lambda pair: pair[0]):
        if not any(all(a <= b for a, b in zip(other, mine, strict=True)) for other, _ in kept):
            kept.append((mine, candidate))
    return [candidate for _, candidate in kept]


def candidates(network: Network, units: Sequence[str] | None = None) -> list[list[Candidate]]:
    """Candidates of every layer, in order.

    Raises
    ------
    PlanError
        If a node has no hardware, or no unit can run a layer; the sentence names every unit with its reason.
    """
    unknown = [name for name in units or () if name not in UNITS]
    if unknown:
        raise PlanError(f"unit must be one of {', '.join(UNITS)}, not {unknown[0]!r}")
    layers = []
    for node in hardware_nodes(network):
        if isinstance(node, MaxPool2d):
            layers.append(pool_candidates(node, network.input_type(node)))
        elif isinstance(node, Dense | Conv2d):
            verdicts = unit_verdicts(node, network.input_type(node), units)
            usable = [name for name, reason in verdicts.items() if reason is None]
            if not usable:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in verdicts.items())
                raise PlanError(f"layer {node.name}: no unit can run it ({reasons})")
            layers.append(layer_candidates(node, network.input_type(node), usable))
    if not layers:
        raise PlanError("network must have at least one layer to be built")
    return layers
