"""Parts of a layer for one board: priced for its FPGA family, and timed against the clock that plans are made for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..clock import FULL_SLOWDOWN, Period, delays, output_period, stage_periods, unit_period, window_period
from ..costing import LayerParts
from ..errors import PlanError
from ..families import FAMILIES, ICE40
from ..family import Family
from ..geometry import WindowGeometry
from ..mac import MacUnit
from ..network import TensorType, WeightNode
from ..output import OutputStage
from ..pipeline import Stage
from .budget import Budget

STEP = 1.03
"""Ratio of neighbouring periods that are told apart: estimates are no better, and few periods keep the search short."""


@dataclass(frozen=True)
class Target:
    """What candidates are priced and timed for.

    Parameters
    ----------
    family
        FPGA family.
    period_ns
        Period of the clock that rates are planned with. Parts that keep up with it on a full FPGA are not told apart: what
        boards were seen to reach is less than the fastest parts promise.
    strict
        Whether parts that do not keep up are left out.
    """

    family: Family = ICE40
    period_ns: float = math.inf
    strict: bool = False

    @classmethod
    def of(cls, board: Budget, clock_hz: float | None = None) -> Target:
        """For ``board``; with ``clock_hz``, which every part must then reach.

        Raises
        ------
        PlanError
            If a clock is asked for and the family has no recorded ones.
        """
        family = FAMILIES[board.family]
        if clock_hz is not None and not delays(family):
            raise PlanError(f"no clock can be promised on the {board.title}: nothing was placed and routed on "
                            f"{family.title}; leave out --clock")
        return cls(family, 1e9 / (clock_hz or board.plan_clock_hz), clock_hz is not None)

    def period(self, *parts: Period | None) -> float:
        """Period of these parts together on a full FPGA in ns, rounded up by less than `STEP`; 0 if they keep up."""
        full = max((part.ns for part in parts if part is not None), default=0.0) * (1 + FULL_SLOWDOWN)
        if full <= self.period_ns:
            return 0.0
        return self.period_ns * STEP ** math.ceil(math.log(full / self.period_ns, STEP))

    def stage_period(self, stage: Stage) -> float:
        """`period` of a whole stage."""
        return self.period(*stage_periods(stage, self.family).values())


class TimedParts(LayerParts):
    """`LayerParts` with the periods of the parts, as `Target.period` has them."""

    def __init__(self, node: WeightNode, x: TensorType, target: Target):
        super().__init__(node, x, target.family)
        self.target = target
        self._periods: dict[OutputStage, float] = {}
        self.finishers: dict[tuple[object, ...], Any] = {}
        """For whoever combines the parts: what was found for output stages of a size."""

    def reader_period(self, unit: MacUnit, window: WindowGeometry) -> float:
        """Of a window reader and the MAC unit behind it."""
        return self.target.period(unit_period(unit, self.family), window_period(window, self.family))

    def output_period(self, name: str, pe: int, lanes: int, memory: str, unit: str = "") -> float:
        """Of an output stage, behind ``unit`` if it is named."""
        stage = self.stage(name, pe, lanes, memory, unit)
        if stage not in self._periods:
            self._periods[stage] = self.target.period(output_period(stage, self.family))
        return self._periods[stage]
