"""Fits the coefficients of ``lutq_hw.costing`` to the recorded points and prints the errors.

    python benchmarks/fit_costs.py        # reads lutq_hw/points/*.json, writes lutq_hw/points/coefficients.json

Relative errors are minimised with coefficients that cannot be negative (more structure never costs less).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from scipy.optimize import nnls  # comes with scikit-learn (extra: train)
from stage_points import POINTS, random_stage

from lutq_hw.costing import Features, argmax_features, gearbox_features, output_features, table_luts, window_features
from lutq_hw.geometry import WindowGeometry


def samples() -> dict[str, list[tuple[Features, dict[str, Any]]]]:
    """Features and recorded point, by part."""
    found: dict[str, list[tuple[Features, dict[str, Any]]]] = {}
    for file in ("window", "output", "gearbox", "argmax"):
        for point in json.loads((POINTS / f"{file}.json").read_text()):
            part, features = describe(file, dict(point["parameters"]))
            found.setdefault(part, []).append((features, point))
    return found


def describe(file: str, p: dict[str, Any]) -> tuple[str, Features]:
    """Name of the fitted part and features of one point's parameters."""
    if file == "window":
        bits = p.pop("bits")
        g = WindowGeometry(**{k: tuple(v) if isinstance(v, list) else v for k, v in p.items()})
        return "window", window_features(g, bits)
    if file == "output":
        s = random_stage(np.random.default_rng(p["seed"]), p["name"])
        width, depth = s.table
        logic = s.lanes * width * table_luts(depth) if s.memory == "luts" and depth > 1 else 0
        return s.name, {**output_features(s), "table": logic}
    if file == "gearbox":
        return p["kind"], gearbox_features(p["width"], p["count"])
    return "argmax", argmax_features(p["bits"], p["lanes"], p["words"], p["index_bits"])


def main() -> None:
    """Fit and write."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for part, rows in samples().items():
        names = list(rows[0][0])
        matrix = np.array([[f[name] for name in names] for f, _ in rows], float)
        result[part] = {}
        for resource in ("luts", "ffs"):
            measured = np.array([max(1.0, point[resource]) for _, point in rows])
            found, _ = nnls(matrix / measured[:, None], np.ones(len(measured)))
            result[part][resource] = {n: round(float(c), 3) for n, c in zip(names, found, strict=True) if c > 5e-4}
            error = matrix @ found / measured - 1
            print(f"{part:12} {resource:5} {len(rows):3} points, error rms {100 * np.sqrt((error**2).mean()):4.1f} %, "
                  f"worst {100 * np.abs(error).max():4.1f} %")
    (POINTS / "coefficients.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
