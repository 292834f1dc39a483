"""Measures what every unit and part costs in every FPGA family and rewrites the recorded points: hours for all, resumable.

    python benchmarks/measure.py                                  # completes everything, measures what changed
    python benchmarks/measure.py --family ecp5 --unit shift-add   # one file of points
    python benchmarks/measure.py --part window --part output      # parts of stages
    python benchmarks/measure.py --count 30                       # more sizes of each
    python benchmarks/measure.py --again                          # everything again

One Yosys process runs at a time. A point whose circuit, Yosys command and Yosys version are as recorded is not measured
again; every point is written as soon as it is there. Fit the coefficients afterwards: ``python benchmarks/fit_units.py`` and
``python benchmarks/fit_costs.py``.
"""

from __future__ import annotations

import argparse
import sys

from stage_points import PARTS, measure_part
from unit_points import measure_unit

from lutq_hw.families import FAMILIES, ICE40
from lutq_hw.outputs import OUTPUTS
from lutq_hw.units import UNITS

COUNT = 20
"""Sizes of each unit in a family other than iCE40."""

PART_COUNT = {"window": 30, "gap": 10, "output": 20, "gearbox": 20, "nonzero": 20}
"""Sizes of a part in a family other than iCE40, of each stage for ``output``; others `OTHER_PARTS`."""

OTHER_PARTS = 24


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="repeat for more (default: all)")
    parser.add_argument("--unit", action="append", choices=list(UNITS), help="repeat for more (default: all, and all parts)")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="repeat for more")
    parser.add_argument("--count", type=int, help=f"sizes of each (default: those recorded on iCE40, {COUNT} elsewhere)")
    parser.add_argument("--again", action="store_true", help="measure recorded points again too")
    args = parser.parse_args()
    everything = not args.unit and not args.part
    total = 0
    for name in args.family or FAMILIES:
        family = FAMILIES[name]
        for unit in UNITS if everything else args.unit or ():
            count = args.count if args.count or family is ICE40 else COUNT
            total += measure_unit(unit, family, count, again=args.again)
        for part in PARTS if everything else args.part or ():
            stages = list(OUTPUTS) if part == "output" else [None]
            for stage in stages:
                count = args.count or PART_COUNT.get(part, OTHER_PARTS)
                total += measure_part(part, family, count, stage=stage, again=args.again)
    print(f"{total} points measured", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
