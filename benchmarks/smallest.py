"""How small an accelerator can be: one dense layer 64 x 10 at one lane, 8-bit activations, K = 16, on iCE40.

    python benchmarks/smallest.py                 # estimated and synthesised luts, part by part; without and with host link
    python benchmarks/smallest.py --unit multiplier --kind scores
    python benchmarks/smallest.py --plain         # the layer as one piece, optimised across its parts

Weights are random, the dictionary has no structure. Parts keep their borders during synthesis, so counts are exact.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from amaranth.back import rtlil

from lutq_hw.cost import Cost
from lutq_hw.costing import LayerParts, stage_cost
from lutq_hw.gateware.accelerator import Accelerator
from lutq_hw.gateware.system import System
from lutq_hw.network import Codebook, Dense, Input, Network, Output, TensorType
from lutq_hw.performance import Performance
from lutq_hw.pipeline import Layer
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.table import table
from lutq_hw.tools.yosys import Synthesis, synthesize

DICTIONARY = (-113, -81, -60, -44, -29, -17, -9, -3, 2, 7, 15, 26, 39, 58, 83, 120)

TOP = "top"


@dataclass(frozen=True)
class Row:
    """A part: estimated, and as synthesised."""

    name: str
    estimated: Cost | None
    measured: Cost


def network(kind: str) -> Network:
    """The layer, with scores or their argmax behind it."""
    rng = np.random.default_rng(1)
    weights = Codebook(rng.integers(0, len(DICTIONARY), (10, 64)), dictionary=list(DICTIONARY))
    return Network("smallest", (Input("image", TensorType((64,), 8)), Dense("fc", "image", weights),
                                Output("out", "fc", kind)))


def parts(layer: Layer) -> dict[str, Cost]:
    """Estimates of the parts of a layer, by the name of their submodule."""
    p, prices = layer.plan, LayerParts(layer.node, layer.x)
    size = p.pe, p.channels, p.rows
    return {"window": prices.window(layer.window), "unit": prices.unit(p.unit, *size, output=p.output),
            "output": prices.output(p.output, p.pe, p.output_lanes, p.output_memory, p.unit)}


def rows(performance: Performance, synthesis: Synthesis, prefix: str) -> Iterator[Row]:
    """Every kept module beside its estimate."""
    for stage in performance.stages:
        if isinstance(stage, Layer):
            for part, cost in parts(stage).items():
                yield Row(f"{stage.name}: {part}", cost, synthesis.modules[f"{prefix}.{stage.name}.{part}"].cost)
        else:
            yield Row(stage.name, stage_cost(stage), synthesis.modules[f"{prefix}.{stage.name}"].cost)


def show(found: Sequence[Row], rest: Row, estimated: Cost, total: Cost) -> str:
    """As a table."""
    lines = []
    for r in [*found, rest]:
        luts, ffs = (None, None) if r.estimated is None else (round(r.estimated.luts), round(r.estimated.ffs))
        lines.append([r.name, luts, round(r.measured.luts), ffs, round(r.measured.ffs), r.measured.brams, r.measured.dsps])
    return table(["part", "luts est.", "luts", "ffs est.", "ffs", "brams", "dsps"], lines,
                 ["all", round(estimated.luts), round(total.luts), round(estimated.ffs), round(total.ffs), total.brams,
                  total.dsps])


def measure(performance: Performance, *, link: bool, folder: Path, plain: bool) -> str:
    """Synthesises the accelerator alone, or with its host link."""
    net, plan = performance.network, performance.plan
    design = System(net, plan, divisor=14) if link else Accelerator(net, plan)
    prefix = f"{TOP}.accelerator" if link else TOP
    keep = [f"{prefix}.{s.name}.{part}" if isinstance(s, Layer) else f"{prefix}.{s.name}"
            for s in performance.stages for part in (parts(s) if isinstance(s, Layer) else [""])]
    keep += [f"{TOP}.link"] if link else []
    synthesis = synthesize(rtlil.convert(design, name=TOP), folder, top=TOP, keep=[] if plain else keep)
    estimated = performance.cost
    found = [] if plain else list(rows(performance, synthesis, prefix))
    if isinstance(design, System):
        estimated += design.link_cost
        if not plain:
            found.append(Row("host link", design.link_cost, synthesis.modules[f"{TOP}.link"].cost))
    rest = synthesis.total.cost
    for row in found:
        rest += row.measured * -1
    return show(found, Row("between", None, rest), estimated, synthesis.total.cost)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unit", action="append", help="MAC unit; repeat for more (default: multiplier, soft-multiplier)")
    parser.add_argument("--kind", choices=("scores", "argmax"), default="argmax", help="result (default: argmax)")
    parser.add_argument("--plain", action="store_true", help="no borders: what synthesis saves across parts, too")
    args = parser.parse_args()
    net = network(args.kind)
    for unit in args.unit or ["multiplier", "soft-multiplier"]:
        plan = Plan(net.digest, (LayerPlan(node="fc", unit=unit, pe=1, channels=1, output="scores"),))
        performance = Performance(net, plan)
        for link in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                print(f"\n{unit}, {performance.cycles_per_frame} cycles a frame, {'with' if link else 'without'} host link")
                print(measure(performance, link=link, folder=Path(folder), plain=args.plain), flush=True)


if __name__ == "__main__":
    main()
