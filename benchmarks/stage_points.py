# amaranth: UnusedElaboratable=no
"""Synthesises parts of an engine in many sizes and records what they cost: the points that ``lutq_hw.costing`` is fitted to.

    python benchmarks/stage_points.py window 60                          # completes lutq_hw/points/window.json
    python benchmarks/stage_points.py output 20 --stage threshold-bank   # the points of one stage
    python benchmarks/stage_points.py window 16 --family ecp5            # lutq_hw/points/ecp5/window.json

Every point holds the parameters (as the part's constructor takes them) and the cells that Yosys counted. Points
that are recorded with the same circuit are not measured again; `measure` does all parts and families.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.lib import wiring
from recording import Point, folder_of, record

from lutq_hw.families import FAMILIES, ICE40
from lutq_hw.family import Family
from lutq_hw.gateware.argmax import ArgmaxStage
from lutq_hw.gateware.average import WindowSums
from lutq_hw.gateware.fifo import StreamFifo
from lutq_hw.gateware.fork import StreamFork
from lutq_hw.gateware.gearbox import Collector, Splitter
from lutq_hw.gateware.join import StreamAdder
from lutq_hw.gateware.nonzero import NonzeroReader
from lutq_hw.gateware.rom import Rom
from lutq_hw.gateware.top_k import TopKStage
from lutq_hw.gateware.window import WindowReader
from lutq_hw.geometry import WindowGeometry
from lutq_hw.network import ActivationTable, Add, Codebook, Dense, Shift, TensorType, Thresholds
from lutq_hw.nonzero import NonzeroReads
from lutq_hw.output import OutputStage
from lutq_hw.outputs import OUTPUTS
from lutq_hw.sums import sums_of

POINTS = Path(__file__).parent.parent / "lutq_hw" / "points"


def divisors(n: int, limit: int) -> list[int]:
    """Divisors of ``n`` up to ``limit``."""
    return [d for d in range(1, min(n, limit) + 1) if n % d == 0]


def window(rng: np.random.Generator) -> tuple[dict[str, Any], wiring.Component]:
    """A window reader of a convolution, a dense layer or a pool."""
    bits = int(rng.choice([1, 2, 4, 4, 4, 8]))
    if rng.random() < 0.2:
        size = int(rng.choice([64, 100, 216, 384, 784]))
        g = WindowGeometry((1, 1, size), channels=int(rng.choice(divisors(size, 8))), repeat=int(rng.choice([1, 2, 5, 10])))
    else:
        size = int(rng.choice([5, 7, 8, 14, 16, 28]))
        c = int(rng.choice([1, 2, 3, 4, 6, 8, 12, 16, 24]))
        k = int(rng.choice([2, 3, 3, 5]))
        groups = c if rng.random() < 0.15 else 1
        channels = int(rng.choice(divisors(c // groups, 8)))
        s, p = int(rng.integers(1, 3)), int(rng.integers(0, k // 2 + 1))
        g = WindowGeometry((size, size, c), (k, k), (s, s), (p, p), channels, int(rng.choice([1, k])), groups,
                           int(rng.choice([1, 2, 4, 8])))
    return {**asdict(g), "bits": bits}, WindowReader(g, bits=bits)


def reader_of(p: Mapping[str, Any]) -> tuple[WindowGeometry, int]:
    """Geometry and bits of a point of `window`."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in p.items() if k != "bits"}
    return WindowGeometry(**fields), p["bits"]


def gap(rng: np.random.Generator) -> tuple[dict[str, Any], wiring.Component]:
    """A window reader for a unit that asks for a gap between dot products."""
    g, bits = reader_of(window(rng)[0])
    g = replace(g, gap=int(rng.integers(3, 40)))
    return {**asdict(g), "bits": bits}, WindowReader(g, bits=bits)


def random_reads(rng: np.random.Generator) -> tuple[NonzeroReads, TensorType]:
    """What a layer with pruned weights reads."""
    bits = int(rng.choice([1, 2, 4, 4, 8]))
    outputs = int(rng.choice([4, 8, 10, 12, 16]))
    pe = int(rng.choice(divisors(outputs, 6)))
    if rng.random() < 0.4:
        g, shape = WindowGeometry((1, 1, int(rng.choice([64, 100, 216, 384, 784])))), ()
    else:
        size, k = int(rng.choice([5, 8, 14, 28])), int(rng.choice([2, 3, 3, 5]))
        s, p = int(rng.integers(1, 3)), int(rng.integers(0, k // 2 + 1))
        g, shape = WindowGeometry((size, size, int(rng.choice([1, 3, 6, 8, 16]))), (k, k), (s, s), (p, p)), (k, k)
    entries = int(rng.choice([4, 8, 16]))
    kept = rng.random((outputs, *shape, g.shape[2])) < rng.uniform(0.03, 0.3)
    index = np.where(kept, rng.integers(1, entries, kept.shape), 0)
    index.reshape(-1)[0] = 0
    return NonzeroReads(g, Codebook(index, dictionary=np.arange(entries)), pe), TensorType(g.shape, bits)


def nonzero(rng: np.random.Generator) -> tuple[dict[str, Any], wiring.Component]:
    """A reader of non-zero terms; the point keeps the seed. The cells hold no table in logic: indices are in block RAM."""
    seed = int(rng.integers(1 << 31))
    reads, x = random_reads(np.random.default_rng(seed))
    return {"seed": seed}, NonzeroReader(reads, x, style="bram")


def rom(rng: np.random.Generator) -> tuple[dict[str, Any], wiring.Component]:
    """A random table, like indices."""
    depth, width = int(rng.integers(2, 700)), int(rng.integers(2, 64))
    style = "bram" if rng.random() < 0.5 else "luts"
    if style == "luts":
        depth, width = int(rng.integers(2, 130)), int(rng.integers(2, 20))
    words = [int.from_bytes(rng.bytes(8), "little") & ((1 << width) - 1) for _ in range(depth)]
    return {"words": words, "width": width, "style": style}, Rom(words, width=width, style=style)


def random_table(rng: np.random.Generator, size: int, bits: int) -> ActivationTable:
    """A table that covers sums of about ``size``: any values, or those of a smooth function with noise."""
    count = int(rng.choice([8, 16, 30, 64, 100, 200]))
    levels = rng.integers(0, 1 << bits, count)
    if rng.random() < 0.7:
        smooth = np.sin(np.arange(count) * rng.uniform(1, 4) / count) + rng.normal(0, 0.02, count)
        levels = np.clip(smooth * (1 << bits), 0, (1 << bits) - 1).astype(int)
    return ActivationTable(levels, max(0, (size // count).bit_length()), bits)


def random_stage(rng: np.random.Generator, name: str) -> OutputStage:
    """The output stage ``name`` with random thresholds or biases."""
    rng.integers(3)  # the recorded seeds begin with the choice among the first three stages
    outputs = int(rng.choice([4, 6, 8, 10, 12, 16, 24, 32]))
    terms, bits = int(rng.choice([9, 25, 54, 108, 216])), int(rng.choice([1, 2, 4, 4]))
    pe = int(rng.choice(divisors(outputs, 12)))
    lanes = int(rng.choice(divisors(pe, 6)))
    if name == "thresholds-pipelined":
        bits = max(bits, 2)
    size = int(np.sqrt(terms) * 40)
    shared = name == "threshold-bank" and rng.random() < 0.35
    if name == "threshold-bank" and not shared:
        bits = min(bits, 3)
    thresholds = np.sort(rng.integers(-size, size, (1 if shared else outputs, (1 << bits) - 1)))
    descending = rng.integers(0, 2, outputs) if name == "threshold-bank" and not shared and rng.random() < 0.3 else None
    bank = Thresholds(np.tile(thresholds, (outputs // len(thresholds), 1)), bits, descending=descending)
    step = {"shift": Shift(int(rng.integers(2, 6)), bits), "scores": None}.get(name, bank)
    if name == "activation-table":
        step = random_table(rng, size, bits)
    weights = Codebook(rng.integers(0, 8, (outputs, terms)), dictionary=[-16, -8, -4, -1, 0, 2, 4, 16])
    bias = rng.integers(-100, 100, outputs)
    if shared and rng.random() < 0.5:
        bias[:] = bias[0]
    node = Dense("layer", "x", weights, bias=bias, step=step)
    memory = "bram" if rng.random() < 0.3 and name not in ("scores", "shift") else "luts"
    return OUTPUTS[name](sums=sums_of(node, TensorType((terms,), 4)), pe=pe, lanes=lanes, memory=memory)


def output(rng: np.random.Generator, name: str | None = None) -> tuple[dict[str, Any], wiring.Component]:
    """An output stage; the point keeps the seed, from which the test makes the same stage again."""
    name = str(rng.choice(list(OUTPUTS))) if name is None else name
    seed = int(rng.integers(1 << 31))
    stage = random_stage(np.random.default_rng(seed), name)
    return {"seed": seed, "name": stage.name}, stage.create()


def gearbox(rng: np.random.Generator) -> tuple[dict[str, Any], wiring.Component]:
    """A collector or a splitter."""
    kind = Collector if rng.random() < 0.5 else Splitter
    width, count = int(rng.integers(1, 25)), int(rng.integers(2, 9))
    return {"kind": kind.__name__, "width": width, "count": count}, kind(width, count)


def argmax(rng: np.random.Generator) -> tuple[dict[str, Any], wiring.Component]:
    """An argmax."""
    lanes, words = int(rng.choice([1, 1, 2])), int(rng.integers(2, 30))
    p = {"bits": int(rng.integers(4, 20)), "is_signed": bool(rng.random() < 0.8), "lanes": lanes, "words": words,
         "index_bits": max(1, (lanes * words - 1).bit_length())}
    return p, ArgmaxStage(**p)


def fork(rng: np.random.Generator) -> tuple[dict[str, Any], wiring.Component]:
    """A fork."""
    p = {"width": int(rng.integers(1, 33)), "count": int(rng.integers(2, 6))}
    return p, StreamFork(**p)


def fifo(rng: np.random.Generator) -> tuple[dict[str, Any], wiring.Component]:
    """A FIFO: a few words in registers, or up to thousands in block RAM."""
    p: dict[str, Any] = {"width": int(rng.integers(1, 33))}
    if rng.random() < 0.5:
        p |= {"depth": int(rng.integers(1, 13)), "memory": "luts"}
    else:
        p |= {"depth": int(2 ** rng.uniform(2, 12.5)), "memory": "bram"}
    return p, StreamFifo(**p)


def adder(rng: np.random.Generator) -> tuple[dict[str, Any], wiring.Component]:
    """The adders of a join."""
    count, lanes = int(rng.choice([2, 2, 2, 3, 4])), int(rng.choice([1, 2, 4, 8]))
    inputs = [{"bits": int(rng.integers(2, 9)), "signed": bool(rng.random() < 0.4)} for _ in range(count)]
    shifts = [int(s) for s in rng.integers(0, 3, count)]
    return {"inputs": inputs, "shifts": shifts, "lanes": lanes}, stream_adder(inputs, shifts, lanes)


def stream_adder(inputs: list[dict[str, Any]], shifts: list[int], lanes: int) -> StreamAdder:
    """The adders for inputs of these types, as wide as an add has them."""
    types = [TensorType((lanes,), x["bits"], x["signed"]) for x in inputs]
    sums = sums_of(Add("add", tuple("abcdefgh"[:len(types)]), tuple(shifts)), *types)
    return StreamAdder(types, shifts, lanes, sums.bits)


def averager(rng: np.random.Generator) -> tuple[dict[str, Any], wiring.Component]:
    """The running sums of an average pool."""
    p = {"x_bits": int(rng.integers(1, 9)), "lanes": int(rng.choice([1, 2, 4, 8])), "bits": 0}
    p["bits"] = p["x_bits"] + int(rng.integers(2, 8))
    return p, WindowSums(TensorType((p["lanes"],), p["x_bits"]), p["lanes"], p["bits"])


def top_k(rng: np.random.Generator) -> tuple[dict[str, Any], wiring.Component]:
    """A sorted list of the largest."""
    count = int(rng.integers(1, 7))
    words = int(rng.integers(count, 40))
    p = {"bits": int(rng.integers(4, 20)), "is_signed": bool(rng.random() < 0.8), "words": words,
         "index_bits": max(1, (words - 1).bit_length()), "count": count}
    return p, TopKStage(**p)


PARTS = {f.__name__: f for f in (window, gap, nonzero, rom, output, gearbox, argmax, fork, fifo, adder, averager, top_k)}


def wanted_parts(part: str, count: int, stage: str | None = None,
                 seed: int = 1) -> list[tuple[Point, Callable[[], wiring.Component]]]:
    """``count`` random sizes of ``part``; with ``stage`` of that output stage only."""
    make = partial(output, name=stage) if stage else PARTS[part]
    rng = np.random.default_rng(seed)
    made = [make(rng) for _ in range(count)]
    return [(json.loads(json.dumps(parameters)), lambda component=component: component) for parameters, component in made]


def measure_part(part: str, family: Family, count: int, *, stage: str | None = None, seed: int = 1,
                 again: bool = False) -> int:
    """Records points of one part and family; how many were measured."""
    path = folder_of(POINTS, family) / f"{part}.json"
    return record(path, family, wanted_parts(part, count, stage, seed), nested=True, again=again)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stage", choices=OUTPUTS, help="with output: measure this stage only")
    parser.add_argument("--family", choices=list(FAMILIES), default=ICE40.name)
    parser.add_argument("--again", action="store_true", help="measure recorded points again too")
    args = parser.parse_args()
    measure_part(args.part, FAMILIES[args.family], args.count, stage=args.stage, seed=args.seed, again=args.again)


if __name__ == "__main__":
    main()
