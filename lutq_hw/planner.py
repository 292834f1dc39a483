"""(network, board, goal) → plan: the unit, array and memories of every layer. A pure function of its arguments.

Every layer has a list of candidates, each with the cycles that it takes for a frame and its price
(`planning.candidates`). `planning.search` chooses one for each layer: the fastest that fits together, or the smallest that
is fast enough, and proves how far the choice may be from the best one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import PlanError
from .flow import with_fifos
from .network import Network
from .plan import Plan
from .planning.between import between
from .planning.budget import NAMES, Budget, shortage
from .planning.candidates import MAX_TABLE, Candidate, candidates, cheapest_output, divisors, pareto, unit_verdicts
from .planning.explain import Verdict, explain
from .planning.parts import Target
from .planning.search import FAST, SMALL, Search
from .planning.shortfall import too_large

__all__ = ["MAX_TABLE", "NAMES", "Budget", "Candidate", "Planned", "Verdict", "candidates", "cheapest_output", "divisors",
           "explain", "find_plan", "make_plan", "pareto", "shortage", "unit_verdicts"]

EXACT = 5e-5
"""Gaps up to this share are called optimal: they would show as 0.00 %."""


@dataclass(frozen=True)
class Planned:
    """A plan and how good it is.

    ``gap`` is the share by which the best choice of candidates can at most be better: faster, with the clock that a fuller
    FPGA gets, or (``goal`` is ``smallest``) smaller in weighted shares of the board. 0 is the optimum of the cost model.
    """

    plan: Plan
    goal: str
    gap: float
    chosen: tuple[Candidate, ...]
    search: Search

    @property
    def optimal(self) -> bool:
        """Whether the plan is proven to be the best one."""
        return self.gap <= EXACT

    @property
    def sentence(self) -> str:
        """For people."""
        better = "faster" if self.goal == "fastest" else "smaller"
        if self.optimal:
            return f"Optimal: no choice of units, arrays, memories and output stages is {better} in the cost model."
        return (f"Within {100 * self.gap:.2f} % of the optimum: proven that no choice of units, arrays, memories and output "
                f"stages is {better} by more in the cost model.")


def make_search(network: Network, board: Budget, units: Sequence[str] | None = None, *, goal: str = "fastest",
                clock_hz: float | None = None) -> Search:
    """The search for plans of ``network`` on ``board``; ``goal`` is ``fastest`` or ``smallest``, others as in `find_plan`."""
    target = Target.of(board, clock_hz)
    return Search(candidates(network, units, target), board.available, between=between(network, target.family),
                  period_ns=target.period_ns, worth=FAST if goal == "fastest" else SMALL)


def find_plan(network: Network, board: Budget, *, fps: float | None = None, units: Sequence[str] | None = None,
              clock_hz: float | None = None) -> Planned:
    """The fastest plan that fits ``board``, or with ``fps`` the smallest one that is fast enough; with its bound.

    Parameters
    ----------
    fps
        Frames a second to reach, at the board's planning clock or the slower one that the plan's parts promise.
    units
        Names of the units that may be used; absent means all, the product table only where nothing else will do.
    clock_hz
        Clock to plan with, which every part must promise on a full FPGA (`clock`). Absent means the board's planning clock;
        a part that is slower then counts with its own.

    Raises
    ------
    PlanError
        If the network does not fit (which resource, how far over, what would help), or not at that rate or clock.
    """
    goal = "fastest" if fps is None else "smallest"
    search = make_search(network, board, units, goal=goal, clock_hz=clock_hz)
    found = search.fastest() if fps is None else search.smallest(1e9 / fps)
    if found is None:
        fastest = None if fps is None else search.fastest()
        if fastest is None:
            raise PlanError(too_large(network.name, board, search))
        cycles, period_ns = search.pace(fastest.chosen)
        raise PlanError(
            f"{network.name} cannot reach {fps:g} frames/s on the {board.title}: the fastest plan that fits takes {cycles} "
            f"cycles a frame, {1e9 / (cycles * period_ns):.0f} frames/s at {1e3 / period_ns:.4g} MHz; "
            "ask for a lower --fps, or train a smaller network")
    plan = with_fifos(network, Plan(network.digest, tuple(c.plan for c in found.chosen), board.name))
    return Planned(plan, goal, found.gap, found.chosen, search)


def make_plan(network: Network, board: Budget, *, fps: float | None = None, units: Sequence[str] | None = None,
              clock_hz: float | None = None) -> Plan:
    """The plan of `find_plan`."""
    return find_plan(network, board, fps=fps, units=units, clock_hz=clock_hz).plan
