"""(network, board, goal) → plan: the unit, array and memories of every layer. A pure function of its arguments.

Every layer has a list of candidates, each with the cycles that it takes for a frame and its price. For a given number of
cycles the cheapest candidates that keep up are chosen, where scarce resources are made dearer until everything fits; the
smallest number of cycles for which that works wins.
"""

from __future__ import annotations

from collections.abc import Sequence

from .errors import PlanError
from .network import Network
from .plan import Plan
from .planning.budget import NAMES, Budget, shortage
from .planning.candidates import MAX_TABLE, Candidate, candidates, cheapest_output, divisors, pareto, unit_verdicts
from .planning.explain import Verdict, explain
from .planning.search import attempts, choose, frame_time, total

__all__ = ["MAX_TABLE", "Budget", "Candidate", "Verdict", "candidates", "cheapest_output", "divisors", "explain",
           "make_plan", "pareto", "shortage", "unit_verdicts"]


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
    return _plan(network, board, min((c for c in [best, *near] if c), key=lambda c: frame_time(c, board.available)))


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
