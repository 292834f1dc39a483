# amaranth: UnusedElaboratable=no
"""The engines of random networks, each alone: small enough for proofs, and with pauses that a network would not make.

What golden puts on an engine's streams goes in and must come out, when the cycle model says so.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from random_cases import Drawn, draw

from lutq_hw.gateware.accelerator import component
from lutq_hw.geometry import WindowGeometry
from lutq_hw.joins import AveragePool, Fifo, Fork, Join, Requantizer
from lutq_hw.network import Codebook, Conv2d, Flatten, Input, Network, Output, Shift, TensorType
from lutq_hw.pipeline import Layer, Pool, Stage, TopK, pipeline
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.sim.stalls import Stalls
from lutq_hw.timing import timer

from .drive import Run

T = TypeVar("T")

COUNTS: dict[type, int] = {Layer: 40, Pool: 10, AveragePool: 8}
"""Engines of a kind, where they are not six."""

WORDS, MOST_WORDS = 12, 200
"""That pass through an engine at least, so that it fills up where it is held up; and from which on no more frames come."""

PAUSES = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.9), (0.3, 0.85))
"""How often nothing is offered, and nothing taken: an engine is slow, and so must be who holds it up."""


@functools.cache
def drawn_networks(count: int = 150) -> tuple[Drawn, ...]:
    """Small random networks."""
    return tuple(draw(seed) for seed in range(count))


def cheapest(pool: Sequence[tuple[T, set[str], float]], count: int) -> list[T]:
    """``count`` of what has features and a price: each next one is the cheapest with the most that is new."""
    left, chosen = list(pool), []
    seen: dict[str, int] = {}
    while left and len(chosen) < count:
        best = max(left, key=lambda entry: sum(1 / (1 + seen.get(f, 0)) ** 2 for f in entry[1]) / entry[2])
        left.remove(best)
        chosen.append(best[0])
        for feature in best[1]:
            seen[feature] = seen.get(feature, 0) + 1
    return chosen


@dataclass(frozen=True, eq=False)
class Engine:
    """A stage of a random network, and the words that pass through it."""

    stage: Stage
    words: Sequence[Sequence[int]]
    results: Sequence[Sequence[int]]

    def features(self) -> Iterator[str]:
        """What is special about it."""
        stage = self.stage
        kind = type(stage).__name__
        match stage:
            case Layer():
                about = [stage.plan.unit, stage.plan.output, stage.plan.terms, stage.plan.index_memory,
                         f"spread {stage.plan.spread > 1}", f"lanes {stage.plan.output_lanes < stage.plan.pe}"]
                about += [*windows(stage.window), *codes(stage.x)]
            case Pool() | AveragePool():
                about = [*windows(stage.window), *codes(stage.input.type), f"lanes {stage.input.lanes > 1}"]
            case Fifo():
                about = [stage.memory, f"depth {min(stage.depth, 5)}"]
            case Fork():
                about = [f"{stage.count}", f"width {stage.input.width}"]
            case Join():
                about = [f"{len(stage.types)}", f"shifts {any(stage.node.shifts)}", *codes(stage.types[0])]
            case Requantizer() | TopK():
                about = [*codes(stage.input.type), stage.output.lanes]
            case _:
                about = [f"{stage.input.lanes} {stage.output.lanes}"]
        yield from (f"{kind} {feature}" for feature in about)

    @property
    def price(self) -> float:
        """About how long a simulation takes."""
        lanes = self.stage.lanes if isinstance(self.stage, Layer) else self.stage.input.lanes
        return 100 + sum(map(len, self.words)) + sum(map(len, self.results)) + 10 * lanes

    def run(self, seed: int) -> Run:
        """A simulation of it; ``seed`` is that of the pauses."""
        stage, promised = self.stage, timer(self.stage)  # what it promises without the change
        # A copy for every build: what a layer has worked out once it remembers, and the change would not show.
        return Run(lambda: component(replace(stage)), lambda: copy.deepcopy(promised), self.words, self.results, seed,
                   pauses=PAUSES[seed % len(PAUSES)], warm=seed * 17 % 97)


def windows(g: WindowGeometry) -> Iterator[str]:
    """What is special about the reading of windows."""
    for axis in range(2):
        yield from (f"{name}{axis} {min(2, getattr(g, name)[axis])}" for name in ("kernel", "stride", "padding", "out_shape"))
    yield from (f"{name} {getattr(g, name) > 1}" for name in ("channels", "rows", "groups", "repeat", "group_words"))
    yield f"gap {g.gap > 0}"
    yield f"buffer {min(5, g.buffer_rows)}"


def codes(x: TensorType) -> Iterator[str]:
    """What is special about activations."""
    yield f"bits {min(3, x.bits)}"
    yield f"signed {x.signed}"


def engines(drawn: Drawn) -> Iterator[Engine]:
    """Those of a network."""
    parts, probes = pipeline(drawn.network, drawn.plan), drawn.case.probes
    for stage, inputs, outputs in zip(parts.stages, parts.inputs, parts.outputs, strict=True):
        words, results = ([probes[n].words for n in numbers] for numbers in (inputs, outputs))
        lengths = [*map(len, words + results)]
        again = max(1, min(-(-WORDS // min(lengths)), MOST_WORDS // max(lengths)))  # frames may come again
        yield Engine(stage, [[*w] * again for w in words], [[*r] * again for r in results])


@functools.cache
def engine_runs() -> tuple[Run, ...]:
    """Engines of all kinds, with all that is special about each."""
    pools: dict[type, list[tuple[Engine, set[str], float]]] = {}
    for drawn in drawn_networks():
        for engine in engines(drawn):
            pools.setdefault(type(engine.stage), []).append((engine, set(engine.features()), engine.price))
    chosen = [engine for kind, pool in pools.items() for engine in cheapest(pool, COUNTS.get(kind, 6))]
    return tuple(engine.run(seed) for seed, engine in enumerate(chosen))


SPARSE = (
    ((4, 3, 1), (3, 2), 1, (0, 0), 2, 1), ((4, 3, 2), (3, 1), 1, (1, 0), 2, 2), ((2, 4, 1), (1, 3), 1, (0, 1), 4, 2),
    ((3, 4, 2), (2, 3), 2, (1, 1), 2, 1), ((3, 3, 1), (3, 3), 1, (1, 1), 3, 3), ((1, 1, 9), (1, 1), 1, (0, 0), 4, 2),
    ((5, 2, 1), (4, 1), 1, (2, 0), 2, 1), ((4, 4, 1), (2, 2), 2, (0, 0), 2, 2),
)
"""Of convolutions that skip zeros: shape, kernel, stride, padding, channels, and those computed together."""


def sparse_runs() -> list[Run]:
    """Layers that read only weights that are not zero, with kernels of all forms; half of them are held up often."""
    runs = []
    for seed, (shape, kernel, stride, padding, outputs, pe) in enumerate(SPARSE):
        rng = np.random.default_rng(seed)
        index = rng.choice(3, (outputs, *kernel, shape[2]), p=(0.25, 0.5, 0.25))
        index[0, 0, 0, 0], index[-1, -1, -1, -1] = 1, 0
        weights = Codebook(index, dictionary=[-1, 0, 1])
        conv = Conv2d("conv", "x", weights, stride=stride, padding=padding, step=Shift(0, 3, True))
        network = Network("sparse", (Input("x", TensorType(shape, 2)), conv, Flatten("flat", "conv"), Output("out", "flat")))
        layer = LayerPlan(node="conv", unit="shift-add", pe=pe, channels=1, output="shift", terms="nonzero",
                          index_memory=("bram", "luts")[seed % 2])
        plan = Plan(network.digest, (layer,))
        codes = rng.integers(4, size=(3, *shape))
        runs += [engine.run(seed) for engine in engines(Drawn(network, plan, codes, Stalls()))
                 if isinstance(engine.stage, Layer)]
    return runs
