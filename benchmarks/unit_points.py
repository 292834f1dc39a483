"""Synthesises MAC units in many sizes and records what they cost: what every unit's ``cost`` is held against.

    python benchmarks/unit_points.py shift-add 36                   # completes lutq_hw/units/points/shift-add.json
    python benchmarks/unit_points.py shift-add 12 --family ecp5     # lutq_hw/units/points/ecp5/shift-add.json
    python benchmarks/unit_points.py shift-add --again              # measures the recorded points again

A point holds the parameters of the unit and the cells that Yosys counted. On iCE40 ``luts`` are SB_LUT4 cells: a LUT4
with or without its carry. Not counted are logic cells that hold nothing but a register or the start of a carry chain.
Other families take the sizes that iCE40 has, in the same order. `measure` does all units and families.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from amaranth import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from recording import Point, folder_of, parameters, read, record

from lutq_hw.families import FAMILIES, ICE40
from lutq_hw.family import Family
from lutq_hw.mac import MacUnit
from lutq_hw.network import Codebook, TensorType
from lutq_hw.network.tensor import signed_bits
from lutq_hw.units import UNITS
from lutq_hw.units.bucket import Bucket

POINTS = Path(__file__).parent.parent / "lutq_hw" / "units" / "points"

DICTIONARIES = (
    (-16, -8, -4, -1, 0, 2, 4, 16), (-8, -4, -2, 0, 1, 2, 4, 8), (-4, -2, -1, 0, 1, 2, 4, 8),
    (-32, -16, -4, -2, -1, 0, 4, 16), (-2, -1, 0, 1, 2), (-8, -1, 0, 4), (-4, -1, 1, 4), (-1, 0, 1), (-1, 1),
    (-32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 32, 64), (-24, -10, -3, 0, 2, 5, 12, 20),
    (-7, -5, -2, -1, 0, 1, 3, 6), (-12, -6, -5, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 10, 12),
)
"""Powers of two and sums of two powers, as LUT-Q makes them."""

SUITED = {
    "add-subtract": ((-1, 1), (-1, 1), (-1, 0, 1), (-8, 8), (-3, 3), (-37, 0, 37), (-91, 91), (-1, 0, 1), (-5, 0, 5)),
    "signed-digits": ((-8, -4, -2, 0, 1, 2, 4, 8), (-16, -8, -4, -1, 0, 2, 4, 16), (-4, -1, 1, 4), (-8, -1, 0, 4),
                      (-88, -44, -22, 0, 11, 22, 44, 88), (-11, 0, 11, 22), (-43, -21, 0, 11, 13, 26), (-37, -9, 3, 21),
                      (-20, -7, -3, 0, 5, 12), (-7, -5, -2, -1, 0, 1, 3, 6), (-1, 0, 1), (-2, -1, 0, 1, 2), (0, 45, 90, -23)),
    "merged-tables": ((-1, 1), (0, 1), (-7, 11), (-90, 33), (-1, 0, 1), (-5, 0, 9), (-7, -2, 3, 11), (-3, -1, 1, 3)),
    "merged-triples": ((-1, 1), (0, 1), (-7, 11), (-90, 33), (-5, 0), (3, 4)),
    "split-tables": ((-7, -2, 3, 11), (-107, -29, 38, 115), (-43, -22, 0, 53), (-5, 0, 9), (-7, 12), (-90, 33),
                     (-8, -4, -2, 0, 1, 2, 4, 8), (-43, -22, -11, 0, 7, 19, 29, 53), (-9, -3, 1, 4, 6)),
}
"""Dictionaries with the structure that a unit needs and a random one would hardly have."""


class Flat(wiring.Component):
    """A unit behind ports without layouts, which Yosys likes better at a top (YosysHQ/yosys#4349)."""

    def __init__(self, unit: MacUnit):
        self.unit = unit
        super().__init__({
            "i_payload": In(unit.input_layout.size), "i_valid": In(1), "i_ready": Out(1),
            "o_payload": Out(unit.output_layout.size), "o_valid": Out(1), "o_ready": In(1),
        })

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.unit = unit = self.unit.create()
        m.d.comb += [
            Value.cast(unit.i.payload).eq(self.i_payload), unit.i.valid.eq(self.i_valid), self.i_ready.eq(unit.i.ready),
            self.o_payload.eq(Value.cast(unit.o.payload)), self.o_valid.eq(unit.o.valid), unit.o.ready.eq(self.o_ready),
        ]
        return m


def free_dictionary(rng: np.random.Generator) -> list[int]:
    """K values without structure, 0 among them as often as not."""
    count, scale = int(rng.choice([3, 4, 6, 8, 8, 12, 16])), float(rng.choice([4, 10, 30]))
    values = {0} if rng.random() < 0.5 else set()
    while len(values) < count:
        values.add(round(rng.normal(0, scale)))
    return sorted(values)


def codebook(point: Point) -> Codebook:
    """The codebook of a point; with ``scales`` it has that many subgroups of ``run`` words, and the largest sums possible."""
    if "scales" in point:
        words, entries = point["run"] * point["simd"], len(point["dictionary"])
        index = np.repeat([[entries - 1], [0]], len(point["scales"]) * words, axis=1)
        return Codebook(index, dictionary=np.outer(point["scales"], point["dictionary"]),
                        subgroups=np.repeat(np.arange(len(point["scales"])), words))
    entries = np.arange(len(point["dictionary"] if "dictionary" in point else point["table"][0]))
    return Codebook(assignments=entries[None, :], dictionary=point.get("dictionary"), table=point.get("table"))


def unit_of(name: str, point: Point, family: Family = ICE40) -> MacUnit:
    """The unit of a point."""
    sizes = {key: point[key] for key in ("x_bits", "x_signed", "pe", "simd", "acc_bits")}
    book = codebook(point)
    if "scales" in point:
        order = np.arange(book.assignments.shape[1]).reshape(-1, point["simd"])
        return UNITS[name](codebook=book, order=order, **sizes, family=family)
    return UNITS[name](codebook=book if book.dictionary is None else UNITS[name].view(book), **sizes, family=family,
                       offset=point.get("offset", False))


def random_subgroups(rng: np.random.Generator) -> Point:
    """Parameters of a `subgroup-scale` unit: scales of kernel rows or pixels."""
    point: Point = {"x_bits": int(rng.choice([1, 2, 4, 4, 8])), "x_signed": bool(rng.random() < 0.2),
                    "dictionary": [[-1, 1], [-1, 0, 1]][rng.integers(2)],
                    "scales": rng.integers(1, 128, int(rng.choice([3, 3, 5, 9]))).tolist(),
                    "run": int(rng.choice([1, 2, 4, 8])), "pe": int(rng.choice([1, 2, 4, 6])),
                    "simd": int(rng.choice([1, 2, 3, 4, 8]))}
    low, high = codebook(point).sum_range(TensorType((1,), point["x_bits"], point["x_signed"]))
    return {**point, "acc_bits": signed_bits(min(0, int(low.min())), max(0, int(high.max())))}


def random_point(name: str, rng: np.random.Generator) -> Point:
    """Parameters of a unit that ``name`` accepts, as a planner could ask for."""
    if name == "subgroup-scale":
        return random_subgroups(rng)
    while True:
        x_bits = int(rng.choice([1, 2, 3, 4, 4, 4, 4, 5, 8]))
        point: Point = {"x_bits": x_bits, "x_signed": bool(rng.random() < 0.2)}
        kind = rng.random()
        if name in SUITED:
            point["dictionary"] = list(SUITED[name][rng.integers(len(SUITED[name]))])
        elif kind < (0.7 if name == "product-table" else 0.15) and point["x_bits"] <= 4:
            scale, entries = float(rng.choice([3, 20, 100])), int(rng.choice([2, 4, 6, 8, 16]))
            point["table"] = np.round(rng.normal(0, scale, (1 << point["x_bits"], entries))).astype(int).tolist()
        elif kind < (0.4 if name in ("shared-products", "multiplier", "soft-multiplier") else 0.8):
            point["dictionary"] = list(DICTIONARIES[rng.integers(len(DICTIONARIES))])
        else:
            point["dictionary"] = free_dictionary(rng)
        if UNITS[name].reject(codebook(point), point["x_bits"], point["x_signed"]) is not None:
            continue
        point["pe"] = int(rng.choice([1, 2, 3, 4, 6, 8, 12]))
        point["simd"] = int(rng.choice([1, 2, 3, 4, 5, 6, 8, 9, 12]))
        point["acc_bits"] = 0
        if unit_of(name, point).excess.any():
            point["offset"] = True
        terms = unit_of(name, point).summed * min(getattr(UNITS[name], "group", 1), point["simd"])
        point["acc_bits"] = signed_bits(min(0, int(terms.min())), int(terms.max())) + int(rng.integers(0, 7))
        kind = UNITS[name]
        in_registers = issubclass(kind, Bucket) and not kind.block_ram
        held = len(point["dictionary"]) if in_registers else 0  # sums in a lane
        if point["pe"] * point["simd"] <= 36 and point["pe"] * point["simd"] * held <= 24:
            return point


def wanted_points(name: str, count: int | None) -> list[Point]:
    """Parameters of the first ``count`` sizes of a unit, those recorded for iCE40 first; None means just these."""
    recorded = [json.loads(parameters(point)) for point in read(POINTS / f"{name}.json")]
    known = {parameters(point) for point in recorded}
    rng = np.random.default_rng(1)
    while count is not None and len(recorded) < count:
        point = random_point(name, rng)
        if parameters(point) not in known:
            known.add(parameters(point))
            recorded.append(point)
    return recorded[:count]


def measure_unit(name: str, family: Family, count: int | None, *, again: bool = False) -> int:
    """Records points of one unit and family; how many were measured."""
    wanted = [(point, lambda point=point: Flat(unit_of(name, point, family))) for point in wanted_points(name, count)]
    return record(folder_of(POINTS, family) / f"{name}.json", family, wanted, again=again)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("unit", choices=list(UNITS), help="unit to make points for")
    parser.add_argument("count", nargs="?", type=int, help="number of points (default: as many as iCE40 has)")
    parser.add_argument("--family", choices=list(FAMILIES), default=ICE40.name)
    parser.add_argument("--again", action="store_true", help="measure recorded points again too")
    args = parser.parse_args()
    measure_unit(args.unit, FAMILIES[args.family], args.count, again=args.again)
    return 0


if __name__ == "__main__":
    sys.exit(main())
