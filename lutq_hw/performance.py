"""Figures of a plan before anything is built: cycles from the cycle model, prices from the cost models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .cost import Cost
from .costing import stage_cost
from .families import ICE40
from .family import Family
from .flow import rate
from .network import Network
from .pipeline import Layer, Pipeline, Stage, frame_cycles, pipeline
from .plan import Plan


@dataclass(frozen=True, eq=False)
class LayerFigures:
    """One weight layer under a plan."""

    layer: Layer
    macs: int
    """Terms summed for one frame."""

    cycles: int
    """Cycles that the layer needs for one frame when its neighbours never hold it up."""

    lane_utilisation: float
    """Share of lanes x cycles of a frame in which a term is summed."""


@dataclass(frozen=True, eq=False)
class Performance:
    """A network under a plan, priced for an FPGA family."""

    network: Network
    plan: Plan
    family: Family = ICE40

    @cached_property
    def pipeline(self) -> Pipeline:
        """Stages and streams."""
        return pipeline(self.network, self.plan)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Stages in order."""
        return self.pipeline.stages

    @cached_property
    def _times(self) -> tuple[int, int]:
        return rate(self.network, self.plan)

    @property
    def latency(self) -> int:
        """Cycles from a frame's first input word to its last result, in an empty pipeline."""
        return self._times[0]

    @property
    def cycles_per_frame(self) -> int:
        """Cycles between the results of two frames in steady state, from the cycle model."""
        return self._times[1]

    @cached_property
    def layers(self) -> tuple[LayerFigures, ...]:
        """Weight layers in order."""
        found = []
        for stage in self.stages:
            if isinstance(stage, Layer):
                macs = self.network.macs(stage.node)
                found.append(LayerFigures(stage, macs, frame_cycles(stage), macs / (stage.lanes * self.cycles_per_frame)))
        return tuple(found)

    @property
    def slowest(self) -> LayerFigures:
        """The layer that decides the rate."""
        return max(self.layers, key=lambda figures: figures.cycles)

    @property
    def slowest_stage(self) -> str:
        """Name of the stage, with weights or without, that decides the rate."""
        return max(self.stages, key=frame_cycles).name

    @property
    def lane_utilisation(self) -> float:
        """Share of all lanes x cycles in which a term is summed; 0 without weights."""
        lanes = sum(figures.layer.lanes for figures in self.layers)
        if not lanes:
            return 0.0
        return sum(figures.macs for figures in self.layers) / (lanes * self.cycles_per_frame)

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """Estimated price of every stage, by its name."""
        return {stage.name: stage_cost(stage, self.family) for stage in self.stages}

    @property
    def cost(self) -> Cost:
        """Estimated price of the accelerator."""
        return sum(self.costs.values(), Cost())
