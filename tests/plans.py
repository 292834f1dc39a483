"""Random plans for random networks: every valid choice of array, memories, unit and output stage can come out."""

from __future__ import annotations

import numpy as np

from lutq_hw.flow import with_fifos
from lutq_hw.geometry import term_order
from lutq_hw.network import Add, AvgPool2d, Conv2d, Dense, MaxPool2d, Network, Requantize, WeightNode
from lutq_hw.nonzero import reject
from lutq_hw.outputs import OUTPUTS
from lutq_hw.pipeline import hardware_nodes
from lutq_hw.plan import Entry, LayerPlan, Plan, PoolPlan, SumPlan
from lutq_hw.sums import sums_of
from lutq_hw.units import UNITS

MEMORIES = ("bram", "luts")

MAX_LANES = 24
"""Products at once in one layer; more only makes simulations slow."""


def divisors(n: int) -> list[int]:
    """Divisors of ``n``."""
    return [d for d in range(1, n + 1) if n % d == 0]


def random_plan(rng: np.random.Generator, network: Network) -> Plan:
    """A valid plan for ``network``."""
    layers: list[Entry] = []
    for node in hardware_nodes(network):
        if isinstance(node, Dense | Conv2d):
            layers.append(random_layer(rng, network, node))
        elif isinstance(node, MaxPool2d):
            layers.append(PoolPlan(node=node.name, channels=int(rng.choice(divisors(network.types[node.name].channels)))))
        elif isinstance(node, Add | AvgPool2d | Requantize):
            layers.append(random_sums(rng, network, node))
    return with_fifos(network, Plan(network.digest, tuple(layers)))


def random_sums(rng: np.random.Generator, network: Network, node: Add | AvgPool2d | Requantize) -> SumPlan:
    """A valid plan of a node without weights."""
    channels = int(rng.choice(divisors(network.types[node.name].channels)))
    original = next(n for n in network.nodes if n.name == node.name)  # whose activation table may stay one
    assert isinstance(original, Add | AvgPool2d | Requantize)
    sums = [sums_of(each, *network.input_types(node)) for each in (node, original)]
    outputs = [name for name, output in OUTPUTS.items() if any(output.reject(each) is None for each in sums)]
    return SumPlan(node=node.name, channels=channels, output=str(rng.choice(outputs)),
                   output_lanes=int(rng.choice(divisors(channels))), output_memory=str(rng.choice(MEMORIES)))


def random_layer(rng: np.random.Generator, network: Network, node: WeightNode) -> LayerPlan:
    """A valid plan of one weight layer."""
    x = network.input_type(node)
    groups = node.groups if isinstance(node, Conv2d) else 1
    kernel = node.kernel[0] if isinstance(node, Conv2d) else 1
    rows = int(rng.choice([1, kernel]))
    channels = int(rng.choice([d for d in divisors(x.channels // groups) if d * rows <= MAX_LANES]))
    pe = int(rng.choice([d for d in divisors(node.outputs // groups) if d * channels * rows <= MAX_LANES]))
    terms, spread = "all", 1
    spreads = [s for s in divisors(groups)[1:] if node.outputs // groups * s * (x.channels // groups) * rows <= MAX_LANES]
    if spreads and rng.random() < 0.5:
        spread, channels = int(rng.choice(spreads)), x.channels // groups
        pe = node.outputs // groups * spread
    if reject(node.weights.flat, groups) is None and rng.random() < 0.5:
        terms, rows, channels = "nonzero", 1, 1
    units = [name for name, unit in UNITS.items() if unit.refusal(node.weights, x) is None
             and unit.reject_order(node.weights, term_order(node, channels=channels, rows=rows)) is None
             and (terms == "all" or unit.any_length) and (spread == 1 or unit.spreads)]
    original = next(n for n in network.nodes if n.name == node.name)  # whose activation table may stay one
    assert isinstance(original, WeightNode)
    outputs = [name for name, output in OUTPUTS.items()
               if output.reject(sums_of(node, x)) is None or output.reject(sums_of(original, x)) is None]
    return LayerPlan(node=node.name, unit=str(rng.choice(units)), pe=pe, channels=channels, rows=rows,
                     index_memory=str(rng.choice(MEMORIES)), output=str(rng.choice(outputs)),
                     output_lanes=int(rng.choice(divisors(pe))), output_memory=str(rng.choice(MEMORIES)), terms=terms,
                     spread=spread)
