"""Fits the coefficients of ``lutq_hw.costing`` to the recorded points and prints the errors.

    python benchmarks/fit_costs.py        # reads lutq_hw/points/[FAMILY/]*.json, writes coefficients.json beside them

Points at even places are fitted, those at odd places only checked. On iCE40 whole layers are a further check
(``points/layer.json``).

Relative errors are minimised with coefficients that cannot be negative (more structure never costs less).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from recording import Point, folder_of, read
from scipy.optimize import nnls  # comes with scikit-learn (extra: train)
from stage_points import POINTS, random_reads, random_stage, reader_of, stream_adder

from lutq_hw.costing import (
    Features,
    argmax_features,
    gearbox_features,
    nonzero_features,
    output_table_features,
    top_k_features,
    window_features,
)
from lutq_hw.families import FAMILIES, ICE40
from lutq_hw.family import Family
from lutq_hw.graph_cost import adder_features, averager_features, fifo_features, fork_features
from lutq_hw.network import TensorType
from lutq_hw.unit_cost import weigh

FILES = ("window", "gap", "nonzero", "output", "gearbox", "argmax", "fork", "fifo", "adder", "averager", "top_k")

SMALL = 30.0
"""Cells below which errors count absolutely."""

ENOUGH = 6
"""Points without which a part is not fitted in a family."""


def samples(family: Family) -> dict[str, list[tuple[Features, Point]]]:
    """Features and recorded point, by part, in recorded order."""
    found: dict[str, list[tuple[Features, Point]]] = {}
    for file in FILES:
        for point in read(folder_of(POINTS, family) / f"{file}.json"):
            part, features = describe(file, dict(point["parameters"]), family)
            found.setdefault(part, []).append((features, point))
    return found


def describe(file: str, p: Point, family: Family) -> tuple[str, Features]:
    """Name of the fitted part and features of one point's parameters."""
    if file in ("window", "gap"):
        return "window", window_features(*reader_of(p), family)
    if file == "nonzero":
        reads, x = random_reads(np.random.default_rng(p["seed"]))
        return "nonzero", nonzero_features(reads, x.bits, family)
    if file == "output":
        s = random_stage(np.random.default_rng(p["seed"]), p["name"])
        return s.name, output_table_features(s, family)
    if file == "gearbox":
        return p["kind"], gearbox_features(p["width"], p["count"])
    if file == "fork":
        return "fork", fork_features(p["count"])
    if file == "fifo":
        return f"fifo {p['memory']}", fifo_features(p["width"], p["depth"], p["memory"], family.lut_inputs)
    if file == "adder":
        return "adder", adder_features(stream_adder(**p).types, p["shifts"], p["lanes"])
    if file == "averager":
        return "averager", averager_features(TensorType((p["lanes"],), p["x_bits"]), p["lanes"], p["bits"])
    if file == "top_k":
        return "top_k", top_k_features(p["bits"], p["words"], p["index_bits"], p["count"])
    return "argmax", argmax_features(p["bits"], p["lanes"], p["words"], p["index_bits"])


PRIOR = 1.0
"""How many points' worth coefficients are held to what they should be: few points do not tell many features apart. Of 1 to 4,
and with `HELD` of 0 to 0.4, errs little on fitted points that are left out one at a time, over all parts and families."""


HELD = 0.3
"""The least that a coefficient twice as large as it should be counts, as the error of a point: of what the fitted points have
little of they tell nothing."""

COUNTED = ("held", "offset", "fixed", "clamp", "lookup", "search", "bounds", "signs", "columns", "result", "table",
           "selectors", "row_starts", "row_adders", "row_select", "lane_address", "align", "tables", "padding", "column",
           "pixel", "group", "sum_bits", "compress")
"""Features that are luts of their own on iCE40, however many Yosys makes of them."""

NO_LUTS = ("held_ffs", "sum", "column_ffs", "word", "words", "merged", "inverted", "bound_cells",
           "bound_luts")
"""Features that are flip-flops only, or share luts, or are cells without a lut, on iCE40."""


CARRY_CELLS = {
    "ecp5": {"carries": 1.0, "fixed_carries": 1.0, "bound_cells": 1.0, "fixed": 1.0, "any": 1.0, "merged": 1.0},
    "gowin": {"carries": 1.0, "fixed_carries": 1.0, "bound_cells": 1.0, "fixed": 1.0, "any": 1.0, "merged": 1.0},
    "series7": {"carries": 1.0, "bound_luts": 1.0, "any": 1.0, "merged": 1.0, "fixed": 0.0, "inverted": 1.0, "sum_bits": 0.0,
                "pairs": 1.0, "first": 1.0},
}
"""Luts where nothing is known yet, of what depends on the cell that holds a carry. On iCE40 it is beside the lut that adds: a
bit of which only the carry is used is no lut, and a lut that adds a constant has room for what reads it. ECP5 and Gowin
add in the cell of the carry, 7 series behind it, where a bit with one operand is no lut."""

KEPT = 0.35
"""Worst error in luts, on points not fitted, up to which a fit is used; with a worse one the part is priced as on iCE40."""


def fit(rows: Sequence[tuple[Features, Point]], resource: str,
        prior: Mapping[str, float] | None = None) -> dict[str, float]:
    """Coefficients of one resource, near ``prior``; a part below `SMALL` cells counts as if it had that many.

    A feature that no point has keeps its ``prior`` coefficient.
    """
    names = list(rows[0][0])
    matrix = np.array([[f[name] for name in names] for f, _ in rows], float)
    if not any(point[resource] for _, point in rows):
        return {}
    wanted = np.array([max(1.0, point[resource]) for _, point in rows])
    weight = np.maximum(SMALL, wanted)
    matrix, wanted = matrix / weight[:, None], wanted / weight
    if prior is not None:
        # What one coefficient more or less means for a usual point that has the feature.
        share = np.sqrt(PRIOR) * matrix.sum(axis=0) / np.maximum(1, (matrix != 0).sum(axis=0))
        share = np.maximum(share, [HELD / max(1.0, prior.get(name, 0.0)) for name in names])
        share[[name not in prior for name in names]] = 0.0
        matrix = np.vstack([matrix, np.diag(share)])
        wanted = np.concatenate([wanted, share * [prior.get(name, 0.0) for name in names]])
    found, _ = nnls(matrix, wanted)
    never = {n: (prior or {}).get(n, 0.0) for n, column in zip(names, matrix.T, strict=True) if not column.any()}
    kept = {**dict(zip(names, found, strict=True)), **never}
    return {n: round(float(c), 3) for n, c in kept.items() if c > 5e-4}


def prior(ice40: Mapping[str, float] | None, resource: str, features: Features, family: Family) -> Mapping[str, float]:
    """What a part's coefficients are held to: on iCE40 those of luts that are counted, to 1, and of what
    is none, to 0; elsewhere those of iCE40, but for what the family's carry cells do."""
    if ice40 is None:
        known = dict.fromkeys(COUNTED, 1.0) | dict.fromkeys(NO_LUTS, 0.0)
        return {name: value for name, value in known.items() if name in features and resource == "luts"}
    held: dict[str, float] = dict.fromkeys(features, 0.0) | dict(ice40)
    if resource == "luts":
        held |= {name: value for name, value in CARRY_CELLS.get(family.name, {}).items() if name in features}
    return held


def errors(rows: Sequence[tuple[Features, Point]], coefficients: Mapping[str, float], resource: str) -> np.ndarray:
    """Relative errors; of small parts relative to `SMALL`."""
    return np.array([(weigh(coefficients, f) - point[resource]) / max(SMALL, point[resource]) for f, point in rows])


def main() -> None:
    """Fit and write."""
    first: dict[str, dict[str, dict[str, float]]] = {}
    for family in sorted(FAMILIES.values(), key=lambda family: family is not ICE40):
        result: dict[str, dict[str, dict[str, float]]] = {}
        for part, rows in samples(family).items():
            if len(rows) < ENOUGH:
                continue
            fitted, checked = rows[::2], rows[1::2]
            result[part] = {resource: fit(fitted, resource, prior(first.get(part, {}).get(resource), resource, rows[0][0],
                                                  family))
                            for resource in ("luts", "ffs")}
            for resource, found in result[part].items():
                error = errors(checked, found, resource)
                print(f"{family.name:8} {part:18} {resource:5} {len(rows):3} points, error rms "
                      f"{100 * np.sqrt((error**2).mean()):4.1f} %, worst {100 * np.abs(error).max():4.1f} %")
            if family is not ICE40 and np.abs(errors(checked, result[part]["luts"], "luts")).max() > KEPT:
                print(f"{family.name:8} {part:18} not used: more points are needed")
                del result[part]
        first = first or result
        if result:
            (folder_of(POINTS, family) / "coefficients.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
