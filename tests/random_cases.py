# amaranth: UnusedElaboratable=no
"""A random network under a random plan with random frames and pauses, all of it from one seed, and what is wrong with it.

The networks are small on purpose: Amaranth needs most of the time to elaborate a design, so that a thousand small ones find
more than ten large ones.
"""

from __future__ import annotations

import gc
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from networks import Limits, random_codes, random_network
from plans import random_plan
from sim_cases import amaranth_verdict, case_of

from lutq_hw.network import Conv2d, MaxPool2d, Network
from lutq_hw.network.tensor import Ints
from lutq_hw.pipeline import pipeline
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.sim.case import Case
from lutq_hw.sim.stalls import Stalls

MAX_CYCLES = 500
MAX_WORK = 600
"""Largest run, and largest sum over the layers of lanes times dictionary entries; larger draws are drawn again."""

PAUSES = ((0.0, 0.0), (0.5, 0.5), (0.8, 0.0), (0.0, 0.8), (0.2, 0.3))

@dataclass(frozen=True)
class Drawn:
    """All that a simulation needs."""

    network: Network
    plan: Plan
    codes: Ints
    stalls: Stalls

    @cached_property
    def case(self) -> Case:
        """Design and expectations; golden and the cycle model run here."""
        return case_of("random", self.network, self.plan, self.codes, self.stalls)

    def differences(self) -> list[str]:
        """What Amaranth's simulator does differently from golden: sentences; an exception counts as one."""
        gc.disable()  # a design is full of cycles, and looking through a growing one again and again finds nothing
        try:
            with tempfile.TemporaryDirectory() as folder:
                return amaranth_verdict(self.case, Path(folder)).differences
        except Exception as error:
            return [f"raised {type(error).__name__}: {error}"]
        finally:
            gc.enable()
            gc.collect()

    def features(self) -> Iterator[str]:
        """What of the project this case uses, for a table of what a run has reached."""
        for node in self.network.nodes:
            yield f"node {type(node).__name__}"
            step = getattr(node, "step", None)
            if step is not None:
                yield f"step {type(step).__name__}"
            if isinstance(node, Conv2d | MaxPool2d):
                yield from (f"window {key}" for key in ("padding", "stride")
                            if getattr(node, key) != {"padding": (0, 0), "stride": (1, 1)}[key])
            if isinstance(node, Conv2d) and node.groups > 1:
                yield "depthwise" if node.groups == self.network.input_type(node).channels else "grouped"
        for layer in self.plan.layers:
            if isinstance(layer, LayerPlan):
                yield from (f"unit {layer.unit}", f"output {layer.output}", f"terms {layer.terms}",
                            f"index in {layer.index_memory}",
                            f"rows {'all' if layer.rows > 1 else '1'}")
        for stage in pipeline(self.network, self.plan).stages:
            yield f"stage {type(stage).__name__}"
        yield f"pauses {self.stalls.idle:g} {self.stalls.stall:g}"


def draw(seed: int) -> Drawn:
    """The case of ``seed``: drawn until it is small enough."""
    rng = np.random.default_rng(seed)
    limits = Limits(extent=5, channels=4, bits=4, entries=6, map_layers=2, dense_layers=2, graph=seed % 2 == 0,
                    activation_tables="monotone" if seed % 2 == 0 or seed % 3 == 0 else "")
    idle, stall = PAUSES[seed % len(PAUSES)]
    while True:
        network = random_network(rng, limits)
        frames = int(rng.integers(1, 4))
        plan = random_plan(rng, network)
        drawn = Drawn(network, plan, random_codes(rng, network, frames), Stalls(idle, stall, seed))
        work = sum(layer.pe * layer.simd * node.weights.flat.entries for layer in plan.layers
                   if isinstance(layer, LayerPlan) for node in network.weighted if node.name == layer.node)
        if work <= MAX_WORK and drawn.case.cycles <= MAX_CYCLES:
            return drawn


def check(seed: int) -> tuple[int, list[str], Counter[str]]:
    """Seed, differences and features of the case of ``seed``; for a pool of processes."""
    drawn = draw(seed)
    return seed, drawn.differences(), Counter(set(drawn.features()))
