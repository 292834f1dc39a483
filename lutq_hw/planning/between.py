"""What stands between planned stages: gearboxes, argmax and whatever else a pipeline puts there by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..cost import Cost
from ..costing import stage_cost
from ..families import ICE40
from ..family import Family
from ..flow import fifo_room
from ..network import Network
from ..pipeline import pipeline
from ..plan import Plan
from .candidates import Candidate


def between(network: Network, family: Family = ICE40) -> Callable[[Sequence[Candidate]], Cost]:
    """Price of all stages of a pipeline that no candidate is for; of FIFOs, whose depths are not known yet, `fifo_room`."""
    fifos = fifo_room(network, family)

    def price(chosen: Sequence[Candidate]) -> Cost:
        planned = {c.plan.node for c in chosen}
        stages = pipeline(network, Plan(network.digest, tuple(c.plan for c in chosen))).stages
        return sum((stage_cost(stage, family) for stage in stages if stage.name not in planned), fifos)

    return price
