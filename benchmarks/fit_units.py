"""Fits the coefficients of ``lutq_hw.unit_cost`` to half of the recorded points and prints the errors on the other half.

    python benchmarks/fit_units.py        # reads lutq_hw/units/points/FAMILY/*.json, writes coefficients.json beside them

Points at even places are fitted, those at odd places only checked. Relative errors are minimised with coefficients that
cannot be negative (more structure never costs less), and that stay near those of all units together (`PRIOR`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from recording import Point, folder_of, read
from scipy.optimize import nnls  # comes with scikit-learn (extra: train)
from unit_points import POINTS, unit_of

from lutq_hw.families import FAMILIES, ICE40
from lutq_hw.family import Family
from lutq_hw.unit_cost import ANY, unit_features, weigh
from lutq_hw.units import UNITS

USED = {
    "luts": ("base", "logic", "adder_bits", "adders", "dsp_adder_bits", "dsp_adders", "conditional", "loads", "lanes",
             "dsps"),
    "ffs": ("base", "ffs", "sums", "lanes", "dsps"),
}
"""Features of each fit."""

SMALL = {"luts": 30.0, "ffs": 60.0}
"""Cells below which errors count absolutely: a point's weight is that of one this large at least."""

Sample = tuple[Mapping[str, float], Point]


def samples(name: str, family: Family) -> list[Sample]:
    """Features and point, in recorded order."""
    points = read(folder_of(POINTS, family) / f"{name}.json")
    units = [unit_of(name, point, family) for point in points]
    return [(unit_features(unit, unit.cost()), point) for unit, point in zip(units, points, strict=True)]


PRIOR = 1.0
"""How many points' worth a unit's coefficients are held to those of all units together: ten points do not tell six apart."""


def fit(rows: Sequence[Sample], resource: str, prior: Mapping[str, float] | None = None) -> dict[str, float]:
    """Coefficients of one resource, near ``prior``; features that never occur, or do not help, are left out."""
    names = USED[resource]
    measured = np.array([max(SMALL[resource], point[resource]) for _, point in rows])
    target = np.array([point[resource] for _, point in rows])
    matrix = np.array([[features[name] for name in names] for features, _ in rows])
    matrix, target = matrix / measured[:, None], target / measured
    if prior is not None:
        share = np.sqrt(PRIOR) * matrix.mean(axis=0)  # what one coefficient more or less means for a usual point
        matrix = np.vstack([matrix, np.diag(share)])
        target = np.concatenate([target, share * [prior.get(name, 0.0) for name in names]])
    found, _ = nnls(matrix, target)
    return {name: round(float(c), 4) for name, c in zip(names, found, strict=True) if c > 5e-5}


def errors(rows: Sequence[Sample], coefficients: Mapping[str, float], resource: str) -> np.ndarray:
    """Relative errors; of small arrays relative to `SMALL`."""
    return np.array([(weigh(coefficients, features) - point[resource]) / max(SMALL[resource], point[resource])
                     for features, point in rows])


def main() -> int:
    """Fit and write."""
    for family in FAMILIES.values():
        if family is ICE40:
            continue
        known = {name: rows for name in UNITS if len(rows := samples(name, family)) >= 6}
        if not known:
            continue
        result: dict[str, dict] = {}
        halves = {name: (rows[::2], rows[1::2]) for name, rows in known.items()}
        halves[ANY] = tuple([row for half in halves.values() for row in half[place]] for place in (0, 1))
        prior = {resource: fit(halves[ANY][0], resource) for resource in USED}
        for name, (fitted, checked) in halves.items():
            # A flip-flop is one anywhere, except that DSP blocks take product registers in, or do not.
            blocks = any(features["dsps"] for features, _ in fitted)
            held = {"luts": prior["luts"], "ffs": None if blocks else {"ffs": 1.0}}
            entry: dict = prior if name == ANY else {kind: fit(fitted, kind, held[kind]) for kind in USED}
            found = {resource: errors(checked, entry[resource], resource) for resource in USED}
            worst = {resource: round(float(np.abs(error).max()), 3) for resource, error in found.items()}
            result[name] = {**entry, "points": len(fitted), "worst": worst}
            text = ", ".join(f"{resource} rms {100 * np.sqrt((error**2).mean()):4.1f} % worst {100 * worst[resource]:4.1f} %"
                             for resource, error in found.items())
            print(f"{family.name:8} {name:16} {len(fitted) + len(checked):3} points, not fitted: {text}")
        path = folder_of(POINTS, family) / "coefficients.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
