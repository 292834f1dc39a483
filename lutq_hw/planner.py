"""(network, board, goal) → plan: the unit, array and memories of every layer. A pure function of its arguments.

Every layer has a list of candidates, each with the cycles that it takes for a frame and its price. For a given number of
cycles the cheapest candidates that keep up are chosen, where scarce resources are made dearer until everything fits; the
smallest number of cycles for which that works wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from .cost import Cost
from .costing import LayerParts, gearbox_cost, stage_cost
from .errors import PlanError
from .network import Conv2d, Dense, MaxPool2d, Network, TensorType, WeightNode
from .outputs import OUTPUTS
from .pipeline import Layer, Pool, hardware_nodes
from .plan import LayerPlan, Plan, PoolPlan
from .units import UNITS

MAX_LANES = 256
"""Largest array that is considered for one layer."""

MAX_TABLE = 128
"""Deepest index ROM that is considered in logic; deeper ones cost more luts than a block RAM is worth."""

RESOURCES = ("cells", "brams", "dsps")
"""What is scarce: logic cells (luts, and flip-flops that need one of their own) and blocks."""

EAGERNESS = {"cells": 1.0, "brams": 0.3, "dsps": 0.3}
"""What a share of each is worth while everything fits: saved logic cells make the clock faster, unused blocks nothing."""

NAMES = {"cells": "logic cells"}

FULL_SLOWDOWN = 0.25
"""By how much an FPGA with all available cells used is clocked slower than an empty one, seen on iCE40UP5K builds."""

PATENTED = "product-table"
"""Claimed, together with an activation table, by US 11,488,016 and US 12,118,466: never a silent default."""


class Budget(Protocol):
    """What a plan has to fit: a `board.Board`, or anything that answers the same questions."""

    @property
    def name(self) -> str:
        """Word on the command line."""
        ...

    @property
    def title(self) -> str:
        """Name for people."""
        ...

    @property
    def available(self) -> Cost:
        """What an accelerator may use: the board's capacity less host link and room for routing; ``cells`` counts."""
        ...

    @property
    def plan_clock_hz(self) -> float:
        """Clock that rates are planned with, before place and route has had its word."""
        ...


@dataclass(frozen=True)
class Candidate:
    """One way to build a layer: cycles for a frame in steady state, and price."""

    plan: LayerPlan | PoolPlan
    cycles: int
    cost: Cost


@dataclass(frozen=True)
class Verdict:
    """What became of one unit for one layer, as a sentence for the plan's table."""

    node: str
    unit: str
    chosen: bool
    reason: str


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


def cheapest_output(node: WeightNode, x: TensorType) -> str:
    """The smallest output stage that can finish ``node``."""
    return next(name for name in ("scores", "shift", *OUTPUTS) if OUTPUTS[name].reject(node, x) is None)


def layer_candidates(node: WeightNode, x: TensorType, units: Iterable[str]) -> list[Candidate]:
    """Every sensible way to build a weight layer with one of ``units``; beaten ones are dropped."""
    units = list(units)
    groups = node.groups if isinstance(node, Conv2d) else 1
    kernel = node.kernel[0] if isinstance(node, Conv2d) else 1
    output = cheapest_output(node, x)
    parts = LayerParts(node, x)
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


def total(chosen: Sequence[Candidate]) -> Cost:
    """Price of all candidates and of the gearboxes between them."""
    return sum((c.cost for c in chosen), Cost()) + gearbox_cost("Collector", 4, 3) * len(chosen)


def shortage(cost: Cost, available: Cost) -> dict[str, float]:
    """How far ``cost`` exceeds what is available, by resource; empty if it fits."""
    excess = {r: getattr(cost, r) - getattr(available, r) for r in RESOURCES}
    return {r: amount for r, amount in excess.items() if amount > 0}


def attempts(layers: Sequence[Sequence[Candidate]], available: Cost) -> Iterator[list[Candidate]]:
    """Cheapest candidates, again and again with other weights until they fit or no weight helps."""
    weights = {r: EAGERNESS[r] / max(1.0, getattr(available, r)) for r in RESOURCES}
    for _ in range(40):
        chosen = [min(layer, key=lambda c: sum(weights[r] * getattr(c.cost, r) for r in RESOURCES)) for layer in layers]
        yield chosen
        # A resource that is exceeded becomes dearer, until layers that can do without it do.
        for r, over in shortage(total(chosen), available).items():
            weights[r] *= 1.2 + min(4.0, over / max(1.0, getattr(available, r)))


def choose(layers: Sequence[Sequence[Candidate]], cycles: float, available: Cost) -> list[Candidate] | None:
    """Cheapest candidates within ``cycles`` that fit together, or None."""
    fast = [[c for c in layer if c.cycles <= cycles] for layer in layers]
    if not all(fast):
        return None
    return next((chosen for chosen in attempts(fast, available) if not shortage(total(chosen), available)), None)


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


def make_plan(network: Network, board: Budget, *, fps: float | None = None, units: Sequence[str] | None = None) -> Plan:
    """The fastest plan that fits ``board``, or with ``fps`` the smallest one that is fast enough.

    Parameters
    ----------
    fps
        Frames a second to reach at the board's planning clock.
    units
        Names of the units that may be used; absent means all, the product table only where nothing else will do.

    Raises
    ------
    PlanError
        If the network does not fit (which resource, how far over, what would help), or not at that rate.
    """
    layers = candidates(network, units)
    floor = max(min(c.cycles for c in layer) for layer in layers)
    steps = sorted({c.cycles for layer in layers for c in layer if c.cycles >= floor})
    if fps is not None:
        return _plan(network, board, _smallest(network, board, layers, steps, fps))
    best = choose(layers, steps[-1], board.available)
    if best is None:
        raise PlanError(_too_large(network, board, layers))
    # Whether a number of cycles fits is monotone up to the heuristic in `choose`, so bisection finds the border.
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2
        attempt = choose(layers, steps[middle], board.available)
        if attempt is None:
            low = middle + 1
        else:
            best, high = attempt, middle
    # A few cycles more may save a large part of the design, which then closes at a faster clock.
    near = [choose(layers, s, board.available) for s in steps if steps[low] <= s <= 1.1 * steps[low]]
    return _plan(network, board, min((c for c in [best, *near] if c), key=lambda c: _frame_time(c, board.available)))


def _frame_time(chosen: Sequence[Candidate], available: Cost) -> float:
    """Cycles of a frame, weighted by how much slower a fuller FPGA is clocked."""
    return max(c.cycles for c in chosen) * (1 + FULL_SLOWDOWN * total(chosen).cells / max(1.0, available.cells))


def _plan(network: Network, board: Budget, chosen: Sequence[Candidate]) -> Plan:
    return Plan(network.digest, tuple(c.plan for c in chosen), board.name)


def _smallest(network: Network, board: Budget, layers: Sequence[Sequence[Candidate]], steps: Sequence[int],
              fps: float) -> Sequence[Candidate]:
    """Cheapest candidates for a rate."""
    chosen = choose(layers, board.plan_clock_hz / fps, board.available)
    if chosen is not None:
        return chosen
    if choose(layers, steps[-1], board.available) is None:
        raise PlanError(_too_large(network, board, layers))
    fastest = next(s for s in steps if choose(layers, s, board.available) is not None)
    raise PlanError(
        f"{network.name} cannot reach {fps:g} frames/s on the {board.title}: the fastest plan that fits takes {fastest} "
        f"cycles a frame, {board.plan_clock_hz / fastest:.0f} frames/s at {board.plan_clock_hz / 1e6:g} MHz; "
        "ask for a lower --fps, or train a smaller network")


def _too_large(network: Network, board: Budget, layers: Sequence[Sequence[Candidate]]) -> str:
    """Sentence for a network whose smallest plan does not fit."""
    def excess(chosen: Sequence[Candidate]) -> float:
        over = shortage(total(chosen), board.available)
        return sum(amount / max(1.0, getattr(board.available, r)) for r, amount in over.items())

    chosen = min(attempts(layers, board.available), key=excess)
    over = shortage(total(chosen), board.available)
    parts = []
    for r, amount in over.items():
        available = getattr(board.available, r)
        worst = max(chosen, key=lambda c: getattr(c.cost, r))
        parts.append(f"{available + amount:.0f} {NAMES.get(r, r)} where {available:.0f} are available "
                     f"({100 * amount / max(1.0, available):.0f} % over, {worst.plan.node} alone takes "
                     f"{getattr(worst.cost, r):.0f})")
    remedy = ("fewer weights or smaller dictionaries" if "brams" in over and "cells" not in over
              else "fewer or narrower layers, fewer activation bits")
    return (f"{network.name} does not fit the {board.title}: its smallest plan needs {' and '.join(parts)}; "
            f"{remedy} or a larger board would help")


def explain(network: Network, plan: Plan, board: Budget) -> list[Verdict]:
    """For every weight layer and unit: why it was chosen or not, against the chosen plan's cycles."""
    verdicts = []
    nodes = {node.name: node for node in hardware_nodes(network)}
    for entry in plan.layers:
        if not isinstance(entry, LayerPlan):
            continue
        node = nodes[entry.node]
        assert isinstance(node, Dense | Conv2d)
        x = network.input_type(node)
        parts = LayerParts(node, x)
        mine = parts.unit(entry.unit, entry.pe, entry.simd)
        for name in UNITS:
            if name == entry.unit:
                verdicts.append(Verdict(node.name, name, True, f"{mine.luts:.0f} luts, {mine.dsps} dsps"))
                continue
            own = UNITS[name].reject(node.weights.flat, x.bits, x.signed)
            if own is None:
                cost = parts.unit(name, entry.pe, entry.simd)
                short = shortage(cost, board.available)
                own = f"{cost.luts:.0f} luts, {cost.dsps} dsps for the same array"
                if short:
                    own += f", more {NAMES.get(next(iter(short)), next(iter(short)))} than the board has"
            verdicts.append(Verdict(node.name, name, False, own))
    return verdicts
