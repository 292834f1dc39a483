"""The candidates of one layer beside the chosen one, and why each of them, each unit and each output stage was not taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..cost import Cost
from ..errors import InputError
from ..network import Conv2d, Dense, Network, Node
from ..outputs import OUTPUTS
from ..pipeline import hardware_nodes, pipeline
from ..plan import Plan
from ..sums import sums_of
from .between import between
from .budget import NAMES, RESOURCES, Budget, shortage
from .candidates import ANY, Candidate, built, layer_candidates, node_candidates, pareto, unit_verdicts
from .parts import Target
from .search import FAST, SMALL, Search


@dataclass(frozen=True)
class Row:
    """One candidate; ``reason`` says why it was not taken, or that it was. ``fits``: beside the other layers as chosen."""

    candidate: Candidate
    chosen: bool
    fits: bool
    reason: str


@dataclass(frozen=True)
class LayerTable:
    """``rows``: the efficient candidates of a layer, fastest first. ``absent``: units and output stages (kind, name,
    reason) that none of them uses."""

    layer: str
    cycles: int
    rows: tuple[Row, ...]
    absent: tuple[tuple[str, str, str], ...]


def chosen_by(network: Network, plan: Plan, target: Target = ANY) -> list[Candidate]:
    """The entries of a plan as candidates, priced and timed as they are."""
    stages = {stage.name: stage for stage in pipeline(network, plan).stages}
    return [built(stages[entry.node], entry, target) for entry in plan.layers]


def explain_layer(network: Network, plan: Plan, board: Budget, layer: str, units: Sequence[str] | None = None,
                  *, goal: str = "fastest", clock_hz: float | None = None) -> LayerTable:
    """Why ``layer`` is built as ``plan`` has it, for this ``goal`` (``fastest`` or ``smallest``) and, if given, clock.

    Raises
    ------
    InputError
        If there is no such layer, or nothing to choose for it.
    """
    target = Target.of(board, clock_hz)
    chosen = chosen_by(network, plan, target)
    names = [c.plan.node for c in chosen]
    if layer not in names:
        raise InputError(f"--explain must name one of the layers {', '.join(names)}, not {layer!r}")
    nodes = {node.name: node for node in hardware_nodes(network, plan)}
    candidates = node_candidates(network, nodes[layer], units, target)
    assert candidates is not None, "a layer of a plan has candidates"
    search = Search([[c] for c in chosen], board.available, between=between(network, target.family),
                    period_ns=target.period_ns, worth=FAST if goal == "fastest" else SMALL)
    others = _Others(chosen, names.index(layer), search)
    mine = others.mine
    rows = [Row(mine, True, True, "chosen")]
    rows += [Row(c, False, *others.judge(c)) for c in pareto(candidates) if c.plan != mine.plan]
    rows.sort(key=lambda row: row.candidate.figures)
    used = {value for row in rows for value in (getattr(row.candidate.plan, "unit", ""),
                                                getattr(row.candidate.plan, "output", ""))}
    absent = _absent(network, nodes[layer], others, used, units, target)
    return LayerTable(layer, others.cycles, tuple(rows), tuple(absent))


class _Others:
    """The rest of a plan, for which a candidate of one layer is tried."""

    def __init__(self, chosen: Sequence[Candidate], place: int, search: Search):
        self.chosen, self.place, self.search = list(chosen), place, search
        self.mine = chosen[place]
        self.cycles, self.period_ns = search.pace(chosen)
        self.whole = search.total(chosen)

    def judge(self, candidate: Candidate) -> tuple[bool, str]:
        """Whether ``candidate`` fits beside the others, and why it was not taken."""
        swapped = [*self.chosen[:self.place], candidate, *self.chosen[self.place + 1:]]
        total = self.search.total(swapped)
        short = shortage(total, self.search.available)
        cycles, period_ns = self.search.pace(swapped)
        if candidate.cycles > self.cycles:
            late = candidate.cycles - self.cycles
            return not short, f"too slow by {late:,} cycles ({100 * late / self.cycles:,.0f} %)"
        if short:
            return False, f"does not fit beside the others: over by {_amounts(short)}"
        if (self.search.time_of(swapped) < self.search.time_of(self.chosen)
                and (cycles < self.cycles or period_ns < self.period_ns)):
            return True, "better; this plan is not the fastest"
        if period_ns > self.period_ns:
            return True, (f"holds the clock down to {1e3 / period_ns:.1f} MHz, where the plan is made for "
                          f"{1e3 / self.period_ns:.1f}")
        return True, self._difference(total)

    def _difference(self, total: Cost) -> str:
        difference = {r: getattr(total, r) - getattr(self.whole, r) for r in RESOURCES}
        more = {r: amount for r, amount in difference.items() if amount >= 0.5}
        less = {r: -amount for r, amount in difference.items() if amount <= -0.5}
        if not more and not less:
            return "costs the same"
        if not less:
            return f"dearer by {_amounts(more)}"
        if not more:
            return f"cheaper by {_amounts(less)}; this plan is not the smallest"
        dearer = self.search.price(total) - self.search.price(self.whole)
        return (f"saves {_amounts(less)}, but dearer by {_amounts(more)}: {100 * abs(dearer):.2g} % of the board "
                f"{'more' if dearer > 0 else 'less'} in all")


def _amounts(amounts: Mapping[str, float]) -> str:
    """``120 logic cells and 1 bram``."""
    texts = []
    for r, amount in amounts.items():
        count = max(1, round(amount))
        name = NAMES.get(r, r)
        texts.append(f"{count:,} {name.removesuffix('s') if count == 1 else name}")
    return " and ".join(texts)


def _absent(network: Network, node: Node, others: _Others, used: set[str], units: Sequence[str] | None,
            target: Target) -> list[tuple[str, str, str]]:
    """Units and stages that no efficient candidate uses, with reasons."""
    if not isinstance(node, Dense | Conv2d):
        return []
    x = network.input_type(node)
    found = []
    for name, refused in unit_verdicts(node, x, units).items():
        if name not in used:
            found.append(("unit", name, refused or _beaten(layer_candidates(node, x, [name], target), others)))
    sums = sums_of(node, x)
    for name, stage in OUTPUTS.items():
        if name not in used:
            found.append(("output stage", name, stage.reject(sums) or "dearer than others at every speed"))
    return found


def _beaten(own: Sequence[Candidate], others: _Others) -> str:
    """Why a unit that can run the layer is in none of the efficient candidates."""
    fast = [c for c in own if c.cycles <= others.cycles]
    if not own:
        return "no size of array suits it"
    if not fast:
        late = min(c.cycles for c in own) - others.cycles
        return f"too slow by {late:,} cycles at its largest array"
    best = min(fast, key=lambda c: others.search.price(c.cost))
    return f"beaten by others at every speed; its cheapest that keeps up, against the chosen one: {others.judge(best)[1]}"
