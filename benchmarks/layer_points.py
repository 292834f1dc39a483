"""Synthesises whole layers, much as the planner would build them, and records what they cost, to hold estimates against.

    python benchmarks/layer_points.py 40                    # writes lutq_hw/points/layer.json
    python benchmarks/layer_points.py 8 --depthwise         # writes lutq_hw/points/depthwise.json
    python benchmarks/layer_points.py --again shift-add     # measures the recorded layers of a unit again
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from amaranth.back import rtlil

from lutq_hw.gateware.layer import LayerEngine
from lutq_hw.network import Codebook, Conv2d, Dense, TensorType, Thresholds, WeightNode
from lutq_hw.pipeline import Layer
from lutq_hw.plan import LayerPlan
from lutq_hw.planner import MAX_TABLE, cheapest_output, divisors, unit_verdicts
from lutq_hw.sums import sums_of
from lutq_hw.tools.yosys import synthesize

POINTS = Path(__file__).parent.parent / "lutq_hw" / "points"

DICTIONARIES = (
    (-1, 1), (-1, 0, 1), (-2, -1, 0, 1), (-16, -8, -4, -2, 0, 2, 4, 8), (-8, -4, -2, -1, 0, 1, 2, 4),
    (-127, -81, -44, -13, 9, 37, 70, 120), (-12, -6, -3, -1, 0, 2, 5, 10),
)

UNITS_THEN = ("multiplier", "product-table", "shared-products", "shift-add")
"""Those that the recorded layers are drawn from: a new unit must not change what a seed means."""

MAX_LANES = 40
"""Larger arrays do not fit beside others on the FPGAs that this is for, and take long to synthesise."""


def random_layer(rng: np.random.Generator) -> Layer:
    """A convolution or dense layer with a plan."""
    dictionary = DICTIONARIES[int(rng.integers(len(DICTIONARIES)))]
    outputs, bits, x_bits = int(rng.choice([6, 8, 10, 12, 16, 24])), int(rng.choice([2, 4])), int(rng.choice([1, 2, 4, 4, 8]))
    conv = rng.random() < 0.65
    size, channels, kernel = int(rng.choice([7, 8, 14, 28])), int(rng.choice([1, 3, 4, 6, 8, 12])), int(rng.choice([3, 3, 5]))
    shape = (outputs, kernel, kernel, channels) if conv else (outputs, int(rng.choice([64, 100, 216, 384])))
    terms = int(np.prod(shape[1:]))
    limit = max(2, int(np.abs(dictionary).mean() * (1 << x_bits) * np.sqrt(terms) / 2))
    step = None if rng.random() < 0.2 and not conv else Thresholds(
        np.sort(rng.integers(-limit, limit, (outputs, (1 << bits) - 1))), bits)
    weights = Codebook(rng.integers(0, len(dictionary), shape), dictionary=list(dictionary))
    x = TensorType((size, size, channels) if conv else shape[1:], x_bits)
    stride, padding = (int(rng.integers(1, 3)), int(rng.integers(0, 2))) if conv else (1, 0)
    node: WeightNode = (Conv2d("layer", "x", weights, step=step, stride=stride, padding=padding) if conv
                        else Dense("layer", "x", weights, step=step))
    return random_plan(rng, node, x)


def random_plan(rng: np.random.Generator, node: WeightNode, x: TensorType) -> Layer:
    """The layer with a plan like the planner's, but not chosen by price: new prices would call for layers not recorded."""
    kernel = node.kernel[0] if isinstance(node, Conv2d) else 1
    verdicts = unit_verdicts(node, x)
    units = [name for name in UNITS_THEN if verdicts[name] is None]
    while True:
        pe = int(rng.choice(divisors(node.outputs)))
        channels, rows = int(rng.choice(divisors(x.channels, 16))), int(rng.choice([1, kernel]))
        if pe * channels * rows <= MAX_LANES:
            break
    plan = LayerPlan(node="layer", unit=str(rng.choice(units)), pe=pe, channels=channels, rows=rows,
                     output=cheapest_output(sums_of(node, x)), output_memory=str(rng.choice(["bram", "luts"])))
    return _with_memories(rng, Layer("layer", node, x, plan))


def random_depthwise(rng: np.random.Generator) -> Layer:
    """A depthwise convolution that computes several channels at once."""
    dictionary = DICTIONARIES[int(rng.integers(len(DICTIONARIES)))]
    channels, kernel, multiplier = int(rng.choice([4, 6, 8, 12])), int(rng.choice([3, 3, 5])), int(rng.choice([1, 1, 2]))
    bits, x_bits, size = int(rng.choice([2, 4])), int(rng.choice([1, 2, 4])), int(rng.choice([7, 8, 14]))
    outputs = channels * multiplier
    limit = max(2, int(np.abs(dictionary).mean() * (1 << x_bits) * kernel / 2))
    node = Conv2d("layer", "x", Codebook(rng.integers(0, len(dictionary), (outputs, kernel, kernel, 1)), list(dictionary)),
                  step=Thresholds(np.sort(rng.integers(-limit, limit, (outputs, (1 << bits) - 1))), bits),
                  stride=int(rng.integers(1, 3)), padding=int(rng.integers(0, 2)), groups=channels)
    x = TensorType((size, size, channels), x_bits)
    units = [name for name in UNITS_THEN if unit_verdicts(node, x)[name] is None]
    rows = int(rng.choice([1, kernel]))
    spread = int(rng.choice([s for s in divisors(channels)[1:] if s * multiplier * rows <= MAX_LANES // 2]))
    plan = LayerPlan(node="layer", unit=str(rng.choice(units)), pe=spread * multiplier, channels=1, rows=rows, spread=spread,
                     output=cheapest_output(sums_of(node, x)), output_memory=str(rng.choice(["bram", "luts"])))
    return _with_memories(rng, Layer("layer", node, x, plan))


def _with_memories(rng: np.random.Generator, layer: Layer) -> Layer:
    """``layer`` with as many output lanes as keep up with it, and one of the memories that suit its indices."""
    plan, pe = layer.plan, layer.plan.pe
    words = layer.window.repeat * layer.window.fold * (layer.window.groups if plan.spread > 1 else 1)
    stages = [replace(layer, plan=replace(plan, output_lanes=lanes)) for lanes in divisors(pe)]
    lanes = next((s.plan.output_lanes for s in stages if s.stage.interval <= layer.window.fold), pe)
    memory = "luts" if words <= MAX_TABLE and rng.random() < 0.5 else "bram"
    return replace(layer, plan=replace(plan, output_lanes=lanes, index_memory=memory))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=0, help="how many to record from --seed on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", metavar="UNIT", choices=UNITS_THEN, help="measure the recorded layers of a unit again")
    parser.add_argument("--depthwise", action="store_true", help="depthwise convolutions, several channels at once")
    args = parser.parse_args()
    make, path = (random_depthwise, POINTS / "depthwise.json") if args.depthwise else (random_layer, POINTS / "layer.json")
    rows = {row["seed"]: row for row in json.loads(path.read_text())} if args.again else {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in list(rows) or range(args.seed, args.seed + args.count):
            layer = make(np.random.default_rng(seed))
            if args.again not in (None, layer.plan.unit):
                continue
            cost = synthesize(rtlil.convert(LayerEngine(layer)), Path(folder), top="top").total.cost
            print(f"seed {seed}: {layer.plan.unit} {layer.plan.pe} x {layer.plan.simd}: {cost.luts} luts",
                  file=sys.stderr, flush=True)
            rows[seed] = {"seed": seed, "luts": cost.luts, "ffs": cost.ffs, "brams": cost.brams, "dsps": cost.dsps}
    text = ",\n".join(json.dumps(row) for row in rows.values())
    path.write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
