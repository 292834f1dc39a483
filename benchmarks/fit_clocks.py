"""Fits the delays of ``lutq_hw.clock`` to half of the recorded clocks and prints the errors on the other half.

    python benchmarks/fit_clocks.py     # reads points/clock/[FAMILY/]*.json of units and parts, writes coefficients.json

The period of a point is the median of its three placements. Points at even places are fitted, those at odd places only
checked. Units decide the coefficients, every other kind of part its offset.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from clock_points import CLOCKS, PLACERS, STAGE_CLOCKS
from recording import Point, folder_of, parameters, read
from scipy.optimize import least_squares  # comes with scikit-learn (extra: train)
from stage_points import random_stage, reader_of
from unit_points import unit_of

from lutq_hw.clock import SHARED, output_paths, slowest_ns, unit_paths, window_paths
from lutq_hw.families import FAMILIES
from lutq_hw.family import Family
from lutq_hw.outputs import OUTPUTS
from lutq_hw.paths import Path
from lutq_hw.units import UNITS

REPORTED = {
    "ice40": {"base": 1.4, "levels": 2.8, "adders": 3.9, "bits": 0.31, "fanout": 0.5, "enables": 3.1, "dsps": 5.0,
              "brams": 2.0, "stores": 1.0},
    "ecp5": {"base": 0.5, "levels": 0.9, "adders": 2.0, "bits": 0.05, "fanout": 0.2, "enables": 1.0, "dsps": 6.0,
             "brams": 5.5, "stores": 1.5},
}
"""About what nextpnr reports for a register, a lut with the wire to it, a carry's two ends, a bit of it, and so on."""

HELD = 0.2
"""Weight of the relative distance from `REPORTED` beside the relative errors: twice as slow counts as a point 20 % off."""

ENOUGH = 4
"""Points without which a part is not fitted."""

Sample = tuple[str, list[Path], float]


def period_ns(point: Point) -> float:
    """Median of the placements."""
    return float(np.median(point["ns"]))


def unit_samples(name: str, family: Family) -> list[Sample]:
    """Kind, paths and period of a unit's points."""
    points = read(folder_of(CLOCKS, family) / f"{name}.json")
    return [("", unit_paths(unit_of(name, point, family)), period_ns(point)) for point in points]


def part_samples(name: str, family: Family) -> list[Sample]:
    """The same of an output stage or a window reader."""
    points = read(folder_of(STAGE_CLOCKS, family) / f"{name}.json")
    if name == "window":
        return [(name, window_paths(reader_of(json.loads(parameters(point)))[0]), period_ns(point)) for point in points]
    return [(name, output_paths(random_stage(np.random.default_rng(point["seed"]), name), family), period_ns(point))
            for point in points]


def estimate(sample: Sample, shared: Mapping[str, float], offset: Mapping[str, float]) -> float:
    """Period by formula."""
    return slowest_ns(sample[1], shared) + offset.get(sample[0], 0.0)


def fit(samples: Sequence[Sample], reported: Mapping[str, float]) -> dict[str, float]:
    """Shared coefficients, none negative, from units."""
    start = [reported[name] for name in SHARED]

    def residuals(values: np.ndarray) -> list[float]:
        shared = dict(zip(SHARED, values, strict=True))
        return [estimate(sample, shared, {}) / sample[2] - 1 for sample in samples] + [
            HELD * (value / usual - 1) for value, usual in zip(values, start, strict=True)]

    # Placements that came out badly, and paths that synthesis makes shorter than structure shows, count no more than others.
    found = least_squares(residuals, start, bounds=(0.0, np.inf), diff_step=1e-3, loss="soft_l1", f_scale=0.05).x
    return {name: round(float(value), 3) for name, value in zip(SHARED, found, strict=True)}


def fit_offset(samples: Sequence[Sample], shared: Mapping[str, float]) -> float:
    """What another kind of part takes besides its paths: least squares of the relative errors."""
    weight = np.array([1 / sample[2] for sample in samples])
    missing = np.array([1 - estimate(sample, shared, {}) / sample[2] for sample in samples])
    return round(float((missing * weight).sum() / (weight**2).sum()), 3)


def main() -> int:
    """Fit and write."""
    for name in PLACERS:
        family = FAMILIES[name]
        known = {unit: unit_samples(unit, family) for unit in UNITS}
        known |= {part: part_samples(part, family) for part in (*OUTPUTS, "window")}
        known = {part: rows for part, rows in known.items() if len(rows) >= ENOUGH}
        if not known:
            continue
        shared = fit([sample for name in UNITS for sample in known.get(name, ())[::2]], REPORTED[name])
        offset = {part: fit_offset(rows[::2], shared) for part, rows in known.items() if part not in UNITS}
        worst = {}
        for part, rows in known.items():
            error = np.array([estimate(sample, shared, offset) / sample[2] - 1 for sample in rows[1::2]])
            worst[part] = round(float(np.abs(error).max()), 3)
            rms = 100 * np.sqrt((error**2).mean())
            print(f"{family.name:8} {part:18} {len(rows):3} points, not fitted: rms {rms:4.1f} % "
                  f"worst {100 * worst[part]:4.1f} %")
        print(shared, offset)
        path = folder_of(STAGE_CLOCKS, family) / "coefficients.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = {part: len(rows[::2]) for part, rows in known.items()}
        path.write_text(json.dumps({"shared": shared, "offset": offset, "parts": parts, "worst": worst}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
