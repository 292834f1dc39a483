"""Luts for each lane of every MAC unit, adder tree and accumulator included, registers free.

    python benchmarks/lane_luts.py                                    # iCE40 and ECP5, every unit and dictionary
    python benchmarks/lane_luts.py --family ice40 --unit shift-add --dictionary powers8

A lane is one of 16: as pe 1 x simd 16, 2 x 8 and 4 x 4. Accumulators are wide enough for 64 words of any content; a unit
that is made for one layer gets one whose indices are equally frequent, and one whose sums may be off by constants makes use
of it, as in front of thresholds. Luts are what ``lutq_hw/families`` counts: SB_LUT4
with or without a carry on iCE40; LUT4, two for each CCU2C and six for each 16 x 4 of distributed RAM on ECP5. ``target`` is
75 % of what an untuned sketch of one dot product took on iCE40; it is for the best unit without DSP and RAM blocks.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from amaranth.back import rtlil
from unit_points import Flat

from lutq_hw.cost import Cost
from lutq_hw.families import FAMILIES
from lutq_hw.mac import MacUnit
from lutq_hw.network import Codebook, TensorType
from lutq_hw.network.tensor import signed_bits
from lutq_hw.tools.cells import cells_of
from lutq_hw.units import UNITS

LANES = ((1, 16), (2, 8), (4, 4))
"""``(pe, simd)``."""

FOLD = 64
"""Words of a sum."""


@dataclass(frozen=True)
class Kind:
    """A representative dictionary."""

    values: tuple[int, ...]
    x_bits: int = 4
    target: float | None = None
    """Luts for each lane on iCE40 to stay below."""


KINDS = {
    "binary": Kind((-1, 1)),
    "binary-x1": Kind((-1, 1), x_bits=1),
    "two-x1": Kind((-7, 11), x_bits=1),
    "ternary": Kind((-1, 0, 1), target=15.7),
    "ternary-x1": Kind((-1, 0, 1), x_bits=1),
    "ternary-x2": Kind((-1, 0, 1), x_bits=2),
    "powers8": Kind((-8, -4, -2, 0, 1, 2, 4, 8), target=23.2),
    "free4": Kind((-7, -2, 3, 11), target=39.7),
    "free4-wide": Kind((-107, -29, 38, 115), target=51),
    "free4-x2": Kind((-7, -2, 3, 11), x_bits=2),
    "free4-x8": Kind((-107, -29, 38, 115), x_bits=8),
    "free8": Kind((-43, -22, -11, 0, 7, 19, 29, 53)),
    "free16": Kind((-97, -71, -53, -41, -29, -19, -11, -5, 0, 7, 13, 23, 37, 52, 73, 101)),
}


def unit_of(name: str, kind: Kind, pe: int, simd: int) -> MacUnit:
    """The unit, with an accumulator for `FOLD` words."""
    if not UNITS[name].any_length:
        # Made for one layer: one whose indices are all equally frequent, in any order.
        index = np.random.default_rng(1).integers(0, len(kind.values), (16, FOLD * simd))
        book, x = Codebook(index, dictionary=kind.values), TensorType((FOLD * simd,), kind.x_bits)
        low, high = book.sum_range(x)
        return UNITS[name].for_layer(book, x, pe=pe, simd=simd, order=np.arange(FOLD * simd).reshape(FOLD, simd),
                                     acc_bits=signed_bits(min(0, int(low.min())), max(0, int(high.max()))))
    book = Codebook(np.arange(len(kind.values))[None, :], dictionary=kind.values)
    largest = FOLD * simd * ((1 << kind.x_bits) - 1)
    acc_bits = signed_bits(min(0, largest * kind.values[0]), max(0, largest * kind.values[-1]))
    unit = UNITS[name](codebook=UNITS[name].view(book), x_bits=kind.x_bits, x_signed=False, pe=pe, simd=simd,
                       acc_bits=acc_bits)
    if unit.refusal(book, TensorType((1,), kind.x_bits)) is not None or not unit.excess.any():
        return unit
    unit = replace(unit, offset=True)
    low, high = (FOLD * simd * int(end) for end in (unit.summed.min(), unit.summed.max()))
    return replace(unit, acc_bits=signed_bits(min(0, low), max(0, high)))


def measure(family: str, unit: MacUnit) -> Cost:
    """Cells of a unit by itself."""
    with tempfile.TemporaryDirectory() as folder:
        return cells_of(rtlil.convert(Flat(unit), name="top"), Path(folder), FAMILIES[family]).cost


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", action="append", choices=list(FAMILIES))
    parser.add_argument("--unit", action="append", choices=list(UNITS))
    parser.add_argument("--dictionary", action="append", choices=list(KINDS))
    args = parser.parse_args()
    for family in args.family or ["ice40", "ecp5"]:
        for key in args.dictionary or KINDS:
            kind = KINDS[key]
            target = f"; target {kind.target}" if kind.target and family == "ice40" else ""
            print(f"{family} {key}: {list(kind.values)}, {kind.x_bits}-bit activations{target}", flush=True)
            best = dict.fromkeys(LANES, np.inf)
            for name in args.unit or UNITS:
                cells = []
                for pe, simd in LANES:
                    unit = unit_of(name, kind, pe, simd)
                    if unit.reject(unit.codebook, unit.x_bits, unit.x_signed) is not None:
                        break
                    cost = measure(family, unit)
                    blocks = f" {cost.dsps} dsps" if cost.dsps else f" {cost.brams} brams" if cost.brams else ""
                    cells.append(f"{pe} x {simd}: {cost.luts / (pe * simd):6.2f}{blocks}")
                    if not blocks:
                        best[pe, simd] = min(best[pe, simd], cost.luts / (pe * simd))
                if cells:
                    print(f"    {name:20} " + "   ".join(cells), flush=True)
            print(f"    {'best in logic':20} "
                  + "   ".join(f"{pe} x {simd}: {luts:6.2f}" for (pe, simd), luts in best.items()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
