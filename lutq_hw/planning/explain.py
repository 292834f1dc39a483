"""Why a plan is as it is, in sentences."""

from __future__ import annotations

from dataclasses import dataclass

from ..costing import LayerParts
from ..families import FAMILIES
from ..geometry import term_order
from ..network import Conv2d, Dense, Network
from ..pipeline import hardware_nodes
from ..plan import LayerPlan, Plan
from ..units import UNITS
from .budget import NAMES, Budget, shortage


@dataclass(frozen=True)
class Verdict:
    """What became of one unit for one layer, as a sentence for the plan's table."""

    node: str
    unit: str
    chosen: bool
    reason: str


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
        parts = LayerParts(node, x, FAMILIES[board.family])
        mine = parts.unit(entry.unit, *entry.array, output=entry.output)
        for name in UNITS:
            if name == entry.unit:
                verdicts.append(Verdict(node.name, name, True, f"{mine.luts:.0f} luts, {mine.dsps} dsps"))
                continue
            own = UNITS[name].refusal(node.weights, x)
            if own is None:
                own = UNITS[name].reject_order(node.weights, term_order(node, channels=entry.channels, rows=entry.rows))
            if own is None and entry.spread > 1 and not UNITS[name].spreads:
                own = f"cannot sum over {entry.spread} groups at once"
            if own is None:
                cost = parts.unit(name, *entry.array, output=entry.output)
                short = shortage(cost, board.available)
                own = f"{cost.luts:.0f} luts, {cost.dsps} dsps for the same array"
                if short:
                    own += f", more {NAMES.get(next(iter(short)), next(iter(short)))} than the board has"
            verdicts.append(Verdict(node.name, name, False, own))
    return verdicts
