"""The price of every MAC unit against its recorded synthesis points (`benchmarks/unit_points.py`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lutq_hw.units
from benchmarks.unit_points import unit_of
from lutq_hw.logic_estimate import Logic
from lutq_hw.units import UNITS

POINTS = Path(lutq_hw.units.__file__).parent / "points"
TOLERANCE = 0.15
FLOOR = {"luts": 6, "ffs": 10}
"""Cells by which a tiny array may be off: a few of control; a product register that Yosys left outside a DSP block."""


def points(name: str) -> list[dict]:
    """Recorded points of a unit; a unit without any fails here."""
    return json.loads((POINTS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", UNITS)
def test_price_agrees_with_synthesis(name):
    recorded = points(name)
    assert len(recorded) >= 30
    wrong = []
    for point in recorded:
        cost = unit_of(name, point).cost()
        assert (cost.brams, cost.sprams, cost.dsps) == (point["brams"], 0, point["dsps"]), point
        for kind, floor in FLOOR.items():
            estimate, measured = getattr(cost, kind), point[kind]
            if abs(estimate - measured) > max(floor, TOLERANCE * measured):
                wrong.append(f"{kind} {estimate:.0f} for {measured}: {point}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", UNITS)
def test_price_is_unbiased(name):
    """Over all points the price is right within 5 %: a plan of many layers does not drift."""
    recorded = points(name)
    estimate = sum(unit_of(name, point).cost().luts for point in recorded)
    assert abs(estimate / sum(point["luts"] for point in recorded) - 1) < 0.05


def test_packing_of_known_logic():
    """Sizes that are known: a function of four inputs, a multiplexer of four, a multiplexer of eight."""
    logic = Logic()
    a, b, c, d, s, t, u = (logic.input(name) for name in "abcdstu")
    assert logic.luts([logic.xor(logic.mux(a, b, c), d)]) == 1
    assert logic.luts([logic.mux(a, b, 0), logic.mux(a, b, 0)]) == 1
    assert logic.luts([a]) == 0
    assert logic.luts([logic.mux(a, 0, 1)]) == 1
    assert logic.luts([logic.table([a, b, c, d], [s, t])]) == 3  # 2 with a trick that ABC knows too
    assert logic.luts([logic.tree([0, 1, 1, 0, 1, 0, 0, 1], [s, t, u])]) == 1
    assert logic.luts([logic.table([a, a, a, a], [s, t])]) == 0
