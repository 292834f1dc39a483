"""What a MAC unit costs in any FPGA family.

A unit counts itself by structure (`mac.MacUnit.cost`): bits of adders, and logic packed into luts of the family's size. On
iCE40 that count is the price. In another family a bit of an adder, of an accumulator or of packed logic is worth another
number of cells, unit by unit: coefficients fitted to half of the points that ``benchmarks/measure.py`` recorded
(``units/points/FAMILY/``), and checked on the other half, by ``benchmarks/fit_units.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from .cost import Cost
from .families import ICE40
from .family import Family
from .mac import MacUnit

ANY = "*"
"""Where the coefficients stand that were fitted to the points of all units together."""


@dataclass(frozen=True)
class UnitCost:
    """A price and where it comes from."""

    cost: Cost
    measured: bool
    """Whether points of this unit and family stand behind it."""

    basis: str
    """The same as half a sentence for tables."""


@cache
def unit_coefficients(family: str) -> dict[str, dict[str, Any]]:
    """Unit (or `ANY`) → ``luts`` and ``ffs`` (feature → coefficient), ``points``, ``worst`` error; empty without points."""
    path = resources.files("lutq_hw") / "units" / "points" / family / "coefficients.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def unit_features(unit: MacUnit, structure: Cost) -> dict[str, float]:
    """What the cells of a family are fitted to; ``structure`` is ``unit.cost()``.

    Adders behind DSP blocks are apart: some of these blocks add too.
    """
    blocks = structure.dsps > 0
    return {
        "base": 1.0,
        "logic": structure.luts - structure.adder_bits,
        "adder_bits": 0.0 if blocks else structure.adder_bits,
        "adders": 0.0 if blocks else structure.adders,
        "dsp_adder_bits": structure.adder_bits if blocks else 0.0,
        "dsp_adders": structure.adders if blocks else 0.0,
        "conditional": float(unit.conditional_bits),
        "sums": float(unit.pe * unit.acc_bits),
        "loads": float(unit.pe * loaded_bits(unit)),
        "lanes": float(unit.pe * unit.simd),
        "dsps": float(structure.dsps),
        "ffs": structure.ffs,
    }


def loaded_bits(unit: MacUnit) -> int:
    """Bits of an accumulator that may be other than 0 when a sum begins; the others are reset then."""
    term = getattr(unit, "term", None)
    if term is None:
        return unit.acc_bits
    bits = max(1, unit.acc_bits - term.zeros)
    terms = getattr(unit, "terms", unit.simd)
    return bits if term.low < 0 else min(bits, term.sum_bits(terms))


def weigh(coefficients: Mapping[str, float], features: Mapping[str, float]) -> float:
    """Sum of the features, each times its coefficient."""
    return sum(coefficient * features[name] for name, coefficient in coefficients.items())


def unit_cost(unit: MacUnit, family: Family = ICE40) -> UnitCost:
    """The price of ``unit`` in ``family``. Blocks (brams, dsps) are as structure counts them.

    Without points of the unit the coefficients of all other units are taken, and without any the bare count; the basis
    says so.
    """
    if unit.family is not family:
        unit = replace(unit, family=family)
    structure, _ = unit.counted
    if family is ICE40:
        return UnitCost(structure, True, "recorded on iCE40")
    fits = unit_coefficients(family.name)
    fit = fits.get(unit.name, fits.get(ANY))
    if fit is None:
        return UnitCost(structure, False, f"estimated from structure only: no points of any unit on {family.title}")
    features = unit_features(unit, structure)
    luts, ffs = (weigh(fit[resource], features) for resource in ("luts", "ffs"))
    cost = structure._replace(luts=luts, ffs=ffs)
    if unit.name in fits:
        return UnitCost(cost, True, f"fitted to {fit['points']} points on {family.title}")
    return UnitCost(cost, False, f"estimated from structure only: no points of {unit.name} on {family.title}")
