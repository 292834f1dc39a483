"""Clock estimates against parts that were placed and routed alone (`benchmarks/clock_points.py`)."""

import json

import numpy as np
import pytest

from benchmarks.fit_clocks import estimate, part_samples, unit_samples
from benchmarks.recording import read
from benchmarks.unit_points import POINTS, unit_of
from lutq_hw.clock import (
    delays,
    layer_periods,
    output_paths,
    path_ns,
    promise,
    slowest_ns,
    table_levels,
    unit_paths,
    unit_period,
)
from lutq_hw.families import FAMILIES, ICE40
from lutq_hw.gateware.lane_cost import table_logic
from lutq_hw.logic_estimate import Logic
from lutq_hw.outputs import OUTPUTS
from lutq_hw.paths import DELAYS, Path, counted_paths, note_paths
from lutq_hw.pipeline import Layer
from lutq_hw.units import UNITS

TOLERANCE = 0.17
"""Of the period, on fitted and other points: placements of one netlist differ by up to 20 %, medians by half of that."""

RMS = 0.09
"""The same of all parts together."""

MEASURED = [name for name in FAMILIES if delays(FAMILIES[name])]


def samples(family):
    return {name: unit_samples(name, FAMILIES[family]) for name in UNITS} | {
        name: part_samples(name, FAMILIES[family]) for name in (*OUTPUTS, "window")}


def test_ice40_is_measured():
    assert "ice40" in MEASURED
    assert {"shift-add", "shared-products", "multiplier", "product-table", "thresholds"} <= set(delays(ICE40)["parts"])


@pytest.mark.parametrize("family", MEASURED)
def test_periods_agree_with_placement(family):
    found = delays(FAMILIES[family])
    errors = {}
    for name, rows in samples(family).items():
        if name in found["parts"]:
            errors[name] = [estimate(row, found["shared"], found["offset"]) / row[2] - 1 for row in rows]
            assert np.abs(errors[name]).max() <= TOLERANCE, (name, np.round(errors[name], 3))
            assert found["worst"][name] <= TOLERANCE
    every = np.concatenate(list(errors.values()))
    assert np.sqrt((every**2).mean()) <= RMS


def test_period_of_a_unit_is_that_of_its_slowest_path():
    unit = unit_of("shift-add", read(POINTS / "shift-add.json")[0])
    period = unit_period(unit)
    assert period is not None and period.measured
    assert period.ns == slowest_ns(unit_paths(unit), delays(ICE40)["shared"])
    assert period.hz == 1e9 / period.ns
    assert Path(adders=1, bits=unit.acc_bits) in unit_paths(unit)


def test_counting_twice_finds_the_same_paths():
    """Also what was remembered, not counted again."""
    point = read(POINTS / "shared-products.json")[0]
    unit = unit_of("shared-products", point)
    assert unit_paths(unit) == unit_paths(unit) != []


def test_paths_are_collected_only_inside():
    note_paths([Path(levels=1)])
    with counted_paths() as found:
        logic = Logic()
        a, b, c, d, s, t = (logic.input(name) for name in "abcdst")
        logic.luts([logic.table([a, b, c, d], [s, t])])
        table_logic([0, 1] * 8, 2, 2, 1)
    logic.luts([logic.xor(a, b)])
    assert found[0] == Path(levels=2)
    assert all(path.levels <= 1 for path in found[1:])


def test_an_adder_carries_from_where_the_logic_ends():
    """Bits that are ready late are slow only as far as the carry has still to run."""
    logic = Logic()
    a, b, c, d, e, f, s, t = (logic.input(name) for name in "abcdefst")
    with counted_paths() as found:
        deep, other = (logic.table(entries, [s, t]) for entries in ([a, b, c, d], [c, d, e, f]))
        logic.luts([a, logic.xor(a, b), deep, logic.xor(a, b), other])
    assert [(path.levels, path.entry) for path in found] == [(0, 0), (1, 1), (2, 2)]
    shared = dict.fromkeys(("base", *DELAYS), 1.0)
    assert path_ns(Path(levels=2, adders=1, bits=3, entry=7), shared) == 1 + 2 + 1 + 3


def test_deeper_tables_are_slower():
    assert [table_levels(depth, 4) for depth in (2, 16, 17, 64, 65, 256)] == [1, 1, 2, 2, 3, 3]
    assert table_levels(64, 6) == 1


def test_no_promise_without_measurements(monkeypatch):
    unit = unit_of("shift-add", read(POINTS / "shift-add.json")[0])
    monkeypatch.setattr("lutq_hw.clock.delays", lambda family: {})
    assert unit_period(unit, FAMILIES["series7"]) is None


def _layers():
    from lutq_hw.modelfile import load
    from lutq_hw.performance import Performance
    from lutq_hw.plan import Plan
    from lutq_hw.planner import make_plan
    from tests.test_planner import ROOMY

    network = load("examples/digits.npz")
    plan = make_plan(network, ROOMY)
    assert isinstance(plan, Plan)
    return Performance(network, plan).stages


def test_a_plan_promises_the_clock_of_its_slowest_part():
    stages = _layers()
    empty, full = promise(stages, ICE40, 0.0), promise(stages, ICE40, 1.0)
    assert empty is not None and full is not None
    periods = {(layer.name, name): period.ns for layer in stages if isinstance(layer, Layer)
               for name, period in layer_periods(layer).items()}
    assert empty.hz == pytest.approx(1e9 / max(periods.values()))
    assert periods[empty.stage, empty.part] == max(periods.values())
    assert full.hz == pytest.approx(empty.hz / 1.25)
    assert set(empty.unmeasured) == {name for _, name in periods if name not in delays(ICE40)["parts"]}


def test_plan_shows_the_promise(capsys):
    from lutq_hw.cli import main

    assert main(["plan", "--model", "examples/digits.npz", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["promised_clock"]
    assert 10 < shown["mhz"] < 100
    assert main(["plan", "--model", "examples/digits.npz"]) == 0
    sentence = f"Its parts promise {shown['mhz']:.1f} MHz (slowest: {shown['part']} of {shown['stage']})"
    assert sentence in capsys.readouterr().out


def test_stage_paths_follow_the_table():
    from benchmarks.stage_points import random_stage

    for seed in range(20):
        stage = random_stage(np.random.default_rng(seed), "thresholds")
        (search, held) = output_paths(stage)
        assert search.brams == (stage.memory == "bram")
        assert held.levels == 2
