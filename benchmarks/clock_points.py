"""Places and routes units, output stages and window readers alone between registers: how long is the slowest path?

    python benchmarks/clock_points.py                                # completes everything on iCE40 UP5K
    python benchmarks/clock_points.py --unit shift-add --count 12
    python benchmarks/clock_points.py --stage thresholds --stage window --family ecp5

Several placements of each (seeds from 1, `SEEDS`); ``ns`` are their slowest paths in nanoseconds, as nextpnr reports
them after routing. Sizes are those recorded for cells, in the same order, up to `LARGEST` luts. Resumable as `measure`
is: a point is measured again only when its circuit, the command or a tool's version changed, and one with fewer
placements gets the rest. Fit afterwards: ``python benchmarks/fit_clocks.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from alone import Alone
from amaranth.hdl import Elaboratable
from recording import Point, folder_of, key_of, parameters, read, text_of, write
from stage_points import random_stage, reader_of
from unit_points import POINTS as UNIT_POINTS
from unit_points import unit_of

from lutq_hw.errors import ToolError
from lutq_hw.families import FAMILIES, ICE40
from lutq_hw.family import Family
from lutq_hw.gateware.window import WindowReader
from lutq_hw.outputs import OUTPUTS
from lutq_hw.tools.cells import cells_of
from lutq_hw.tools.nextpnr import parse_report
from lutq_hw.tools.runner import Runner
from lutq_hw.units import UNITS

SEEDS = {"ice40": 7, "ecp5": 3}
"""Placements of each point: those of one netlist differ by up to 30 % on iCE40, by a few percent on ECP5."""

LARGEST = 450
"""Luts on iCE40 up to which parts are placed: larger ones take minutes."""

COUNT = 10

PLACERS = {
    "ice40": ("nextpnr-ice40", ("--up5k", "--package", "sg48", "--pcf-allow-unconstrained")),
    "ecp5": ("nextpnr-ecp5", ("--25k", "--package", "CABGA381", "--speed", "6", "--lpf-allow-unconstrained")),
}
"""Program and device of the families whose clock is measured.

For 7 series no open place and route comes as a wheel; nextpnr 0.11 for Gowin leaves block RAM out of its timing.
"""

CLOCKS = UNIT_POINTS / "clock"
STAGE_CLOCKS = UNIT_POINTS.parent.parent / "points" / "clock"


def slowest_paths(text: str, family: Family, seeds: Iterable[int], folder: Path, runner: Runner) -> tuple[float, list[float]]:
    """Luts of a design and nanoseconds of its slowest path in each placement."""
    luts = cells_of(text, folder, family, runner=runner).cost.luts
    tool, device = PLACERS[family.name]
    found = []
    for seed in seeds:
        log = folder / "part.nextpnr.log"
        arguments = [*device, "--json", "part.json", "--report", "part.report.json", "--freq", "100", "--seed", str(seed),
                     "--timing-allow-fail", "--quiet", "--log", log.name]
        runner.run(tool, arguments, folder=folder, log=log, stage=f"place and route ({tool}, seed {seed})")
        clocks, _ = parse_report(json.loads((folder / "part.report.json").read_text()))
        found.append(round(1e9 / min(clocks.values()), 2))
    return luts, found


def record_clocks(path: Path, family: Family, wanted: Iterable[tuple[Point, Callable[[], Elaboratable]]], *,
                  again: bool = False) -> int:
    """As `recording.record`, of clocks; how many were measured."""
    runner = Runner(timeout_s=600.0)
    tool, device = PLACERS[family.name]
    versions = [runner.version(name) for name in ("yosys", tool)]
    known = {parameters(point): point for point in read(path)}
    count = 0
    for bare, create in wanted:
        name = parameters(bare)
        text = text_of(Alone(create()))
        key = key_of(text, family.synth, *device, *versions)
        old = known.get(name, {})
        before = old["ns"] if old.get("key") == key and not again else []
        if len(before) >= SEEDS[family.name]:
            continue
        begin = time.monotonic()
        try:
            with tempfile.TemporaryDirectory() as folder:
                seeds = range(1 + len(before), 1 + SEEDS[family.name])
                luts, ns = slowest_paths(text, family, seeds, Path(folder), runner)
        except ToolError as error:
            print(f"{family.name} {path.stem}: {name}: left out, {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
            continue
        known[name] = {**bare, "ns": [*before, *ns], "key": key}
        count += 1
        write(path, known.values())
        print(f"{family.name} {path.stem} {count}: {luts:.0f} luts, {ns} ns, {time.monotonic() - begin:.0f} s",
              file=sys.stderr, flush=True)
    return count


def unit_clocks(name: str, family: Family, count: int, *, again: bool = False) -> int:
    """Records clocks of a unit."""
    small = [point for point in read(UNIT_POINTS / f"{name}.json") if point["luts"] <= LARGEST][:count]
    wanted = [(json.loads(parameters(point)), lambda point=point: unit_of(name, point, family).create()) for point in small]
    return record_clocks(folder_of(CLOCKS, family) / f"{name}.json", family, wanted, again=again)


def stage_clocks(name: str, family: Family, count: int, *, again: bool = False) -> int:
    """Records clocks of an output stage."""
    import numpy as np

    recorded = [point for point in read(STAGE_CLOCKS.parent / "output.json")
                if point["parameters"]["name"] == name and point["luts"] <= LARGEST][:count]
    wanted = [(point["parameters"],
               lambda p=point["parameters"]: random_stage(np.random.default_rng(p["seed"]), p["name"]).create())
              for point in recorded]
    return record_clocks(folder_of(STAGE_CLOCKS, family) / f"{name}.json", family, wanted, again=again)


def window_clocks(family: Family, count: int, *, again: bool = False) -> int:
    """Records clocks of window readers."""
    recorded = [point["parameters"] for point in read(STAGE_CLOCKS.parent / "window.json")
                if point["luts"] <= LARGEST]

    def create(p: Point) -> WindowReader:
        geometry, bits = reader_of(p)
        return WindowReader(geometry, bits=bits)

    wanted = [(p, lambda p=p: create(p)) for p in recorded[:count]]
    return record_clocks(folder_of(STAGE_CLOCKS, family) / "window.json", family, wanted, again=again)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", action="append", choices=list(PLACERS), help=f"repeat for more (default: {ICE40.name})")
    parser.add_argument("--unit", action="append", choices=list(UNITS), help="repeat for more (default: all, and all stages)")
    parser.add_argument("--stage", action="append", choices=[*OUTPUTS, "window"], help="repeat for more")
    parser.add_argument("--count", type=int, default=COUNT, help="sizes of each (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="measure recorded points again too")
    args = parser.parse_args()
    everything = not args.unit and not args.stage
    total = 0
    for name in args.family or [ICE40.name]:
        for unit in UNITS if everything else args.unit or ():
            total += unit_clocks(unit, FAMILIES[name], args.count, again=args.again)
        for stage in (*OUTPUTS, "window") if everything else args.stage or ():
            record_stage = window_clocks if stage == "window" else partial(stage_clocks, stage)
            total += record_stage(FAMILIES[name], args.count, again=args.again)
    print(f"{total} points measured", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
