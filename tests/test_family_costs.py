"""Prices in families other than iCE40 against their recorded points, above all those that were not fitted."""

import json
import tempfile
from pathlib import Path

import pytest

import lutq_hw.units
from benchmarks.fit_costs import SMALL as SMALL_PART
from benchmarks.fit_costs import samples as part_samples
from benchmarks.fit_units import SMALL
from benchmarks.recording import folder_of, read, text_of
from benchmarks.unit_points import POINTS, Flat, unit_of
from lutq_hw.costing import coefficients, fitted
from lutq_hw.families import FAMILIES, ICE40
from lutq_hw.mac import MacUnit
from lutq_hw.tools.cells import cells_of
from lutq_hw.unit_cost import ANY, unit_coefficients, unit_cost
from lutq_hw.units import UNITS

OTHERS = [name for name in FAMILIES if name != ICE40.name and unit_coefficients(name)]

TOLERANCE = 0.15
"""Of luts, on points that the coefficients were not fitted to; arrays of less than 30 luts may be 4 or 5 off."""

EXCEPTIONS = {("gowin", ANY): 0.17, ("series7", "product-table"): 0.31, ("series7", "signed-digits"): 0.23,
              ("series7", "merged-triples"): 0.38,
              ("series7", ANY): 0.49}
"""On 7 series lut6 take in logic of the lanes that the structure has in luts of its own; and sums of nothing but 0 and 5, in
one array of triples, need less than their adders."""

TOLERANCE_FFS = 0.25
"""Whether a product register ends up in a block is what Yosys sees at the moment."""

STRUCTURE_ONLY = 0.35
"""The same of a unit with too few points for coefficients of its own."""

PART_TOLERANCE = 0.3
"""Of a part's luts: a layer is the sum of four, whose errors partly cancel."""


def recorded(family: str, unit: str) -> list[dict]:
    return read(folder_of(POINTS, FAMILIES[family]) / f"{unit}.json")


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("family", OTHERS)
def test_price_of_a_unit(family, unit):
    points = recorded(family, unit)
    wrong = []
    for place, point in enumerate(points):
        found = unit_cost(unit_of(unit, point), FAMILIES[family])
        cost = found.cost
        assert found.measured == (unit in unit_coefficients(family))
        assert (cost.brams, cost.sprams, cost.dsps) == (point["brams"], 0, point["dsps"]), point
        luts = EXCEPTIONS.get((family, unit), TOLERANCE) if found.measured else STRUCTURE_ONLY
        for kind, tolerance in (("luts", luts), ("ffs", TOLERANCE_FFS if found.measured else STRUCTURE_ONLY)):
            estimate, measured = getattr(cost, kind), point[kind]
            if abs(estimate - measured) > tolerance * max(SMALL[kind], measured):
                wrong.append(f"{kind} {estimate:.0f} for {measured}, {'checked' if place % 2 else 'fitted'}: {point}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("family", OTHERS)
def test_first_units_have_points(family):
    for unit in ("multiplier", "product-table", "shared-products", "shift-add"):
        assert len(recorded(family, unit)) >= 6
        assert unit in unit_coefficients(family)


@pytest.mark.parametrize("family", OTHERS)
def test_parts_are_priced(family):
    wrong = []
    for part, rows in part_samples(FAMILIES[family]).items():
        for place, (features, point) in enumerate(rows):
            luts = fitted(part, features, family=FAMILIES[family]).luts
            if part in coefficients(FAMILIES[family]) and \
                    abs(luts - point["luts"]) > PART_TOLERANCE * max(SMALL_PART, point["luts"]):
                wrong.append(f"{part} {luts:.0f} for {point['luts']}, {'checked' if place % 2 else 'fitted'}: "
                             f"{point['parameters']}")
    assert not wrong, "\n".join(wrong)


class _Newcomer(UNITS["shift-add"]):
    """A unit that nobody measured."""

    name = "newcomer"


def _newcomer() -> MacUnit:
    point = recorded("ice40", "shift-add")[0]
    known = unit_of("shift-add", point)
    return _Newcomer(codebook=known.codebook, **{key: point[key] for key in ("x_bits", "x_signed", "pe", "simd", "acc_bits")})


def test_unit_without_points_says_so():
    unit = _newcomer()
    assert unit_cost(unit).measured
    found = unit_cost(unit, FAMILIES["ecp5"])
    assert not found.measured
    assert found.basis == "estimated from structure only: no points of newcomer on Lattice ECP5"
    # The coefficients of all units together are near those of the unit that it really is.
    known = unit_cost(unit_of("shift-add", recorded("ice40", "shift-add")[0]), FAMILIES["ecp5"])
    assert found.cost.luts == pytest.approx(known.cost.luts, rel=0.2)


def test_family_without_points_says_so(monkeypatch):
    monkeypatch.setattr("lutq_hw.unit_cost.unit_coefficients", lambda family: {})
    found = unit_cost(_newcomer(), FAMILIES["ecp5"])
    assert not found.measured
    assert found.basis == "estimated from structure only: no points of any unit on Lattice ECP5"
    assert found.cost.luts > 0


def test_every_fit_is_recorded_with_its_error():
    assert set(OTHERS) == set(FAMILIES) - {ICE40.name}
    for family in OTHERS:
        for unit, entry in unit_coefficients(family).items():
            assert unit == ANY or unit in UNITS
            assert entry["points"] >= 3
            assert entry["worst"]["luts"] <= EXCEPTIONS.get((family, unit), TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_points_are_what_synthesis_says(family):
    """A small point of each unit measured again."""
    for unit in UNITS:
        for point in [point for point in recorded(family, unit) if point["luts"] <= 300][:1]:
            text = text_of(Flat(unit_of(unit, point, FAMILIES[family])))
            with tempfile.TemporaryDirectory() as folder:
                cost = cells_of(text, Path(folder), FAMILIES[family]).cost
            assert cost.luts == pytest.approx(point["luts"], rel=0.03, abs=3), json.dumps(point)
            assert (cost.brams, cost.dsps) == (point["brams"], point["dsps"])
    assert Path(lutq_hw.units.__file__).parent / "points" == POINTS
