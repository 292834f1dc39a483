"""Clock estimates against parts that were placed and routed alone (`benchmarks/clock_points.py`)."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.fit_clocks import estimate, part_samples, unit_samples
from benchmarks.recording import read
from benchmarks.unit_points import POINTS, unit_of
from lutq_hw.clock import (
    accumulator_path,
    delays,
    enable_path,
    layer_periods,
    output_paths,
    path_ns,
    promise,
    slowest_ns,
    table_levels,
    unit_paths,
    unit_period,
    window_paths,
)
from lutq_hw.families import FAMILIES, ICE40
from lutq_hw.gateware.lane_cost import table_logic
from lutq_hw.geometry import WindowGeometry
from lutq_hw.logic_estimate import Logic
from lutq_hw.outputs import OUTPUTS
from lutq_hw.paths import DELAYS, Path, counted_paths, note_paths
from lutq_hw.pipeline import Layer
from lutq_hw.units import UNITS

TOLERANCE = 0.26
"""Of the period of any point, fitted or not: synthesis now and then makes a shorter or longer path than structure shows."""

RMS = 0.08
"""The same of all parts together."""

MEASURED = [name for name in FAMILIES if delays(FAMILIES[name])]


def samples(family):
    return {name: unit_samples(name, FAMILIES[family]) for name in UNITS} | {
        name: part_samples(name, FAMILIES[family]) for name in (*OUTPUTS, "window")}


def test_ice40_is_measured():
    assert "ice40" in MEASURED
    assert {"add-subtract", "bucket", "bucket-ram", "merged-tables", "multiplier", "product-table", "shared-products",
            "shift-add", "signed-digits", "soft-multiplier", "split-tables", "subgroup-scale"} <= set(delays(ICE40)["parts"])
    assert {"thresholds", "scores", "activation-table", "window"} <= set(delays(ICE40)["parts"])


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
    assert accumulator_path(unit, unit.term) in unit_paths(unit)
    assert enable_path([], 0) not in unit_paths(unit)


def test_carries_of_accumulators_leave_their_chains_on_ice40():
    """Above 15 bits, unless the enable is global; and next to bits that a new sum has no say in."""
    unit = unit_of("shift-add", read(POINTS / "shift-add.json")[0])
    assert (unit.pe, unit.acc_bits, unit.term.zeros) == (1, 20, 0)

    def path(**changes):
        other = replace(unit, **changes)
        return accumulator_path(other, other.term)

    assert path() == Path(adders=2, bits=20)
    assert path(acc_bits=15) == Path(adders=1, bits=15) and path(acc_bits=40) == Path(adders=3, bits=40)
    assert path(pe=3) == Path(adders=1, bits=20)
    assert path(family=FAMILIES["ecp5"]) == Path(levels=1, adders=1, bits=20)
    odd = unit_of("merged-tables", {"dictionary": [-5, 0, 9], "x_bits": 1, "x_signed": True, "pe": 4, "simd": 1,
                                    "acc_bits": 9})
    assert accumulator_path(odd, odd.term) == Path(adders=3, bits=9)  # 5, 0 and -9: bit 3 is never set


def test_enables_are_made_short_where_they_are_the_slowest():
    quick = [Path(levels=2), Path(adders=1, bits=8)]
    assert enable_path(quick, 8) == Path(levels=2, enables=1)
    for slow in (Path(levels=3), Path(adders=1, bits=9), Path(levels=1, adders=1, bits=8)):
        assert enable_path([*quick, slow], 8) == Path(levels=3, enables=1)
    assert enable_path(quick, 41).levels == 3  # through the buffer of a global net


@pytest.mark.parametrize("name", UNITS)
def test_counting_twice_finds_the_same_paths(name):
    """Also what was remembered, not counted again."""
    first, again = (unit_paths(unit_of(name, read(POINTS / f"{name}.json")[1])) for _ in range(2))
    assert first == again != []


def test_paths_are_collected_only_inside():
    note_paths([Path(levels=1)])
    with counted_paths() as found:
        logic = Logic()
        a, b, c, d, s, t = (logic.input(name) for name in "abcdst")
        logic.luts([logic.table([a, b, c, d], [s, t])])
        table_logic([0, 1] * 8, 2, 2, 1)
    logic.luts([logic.xor(a, b)])
    assert found[0] == Path(levels=2, fanout=math.log2(3))
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


def test_depth_is_that_of_the_shallowest_cover():
    """Packing for few luts would put the last of five gates behind two others."""
    logic = Logic()
    a, b, c, d, e, f = (logic.input(name) for name in "abcdef")
    chain = a
    for bit in (b, c, d, e, f):
        chain = logic.xor(chain, bit)
    with counted_paths() as found:
        logic.luts([chain])
    assert found[0].levels == 2
    for inputs, levels in ((4, 2), (6, 1)):
        logic = Logic(inputs)
        bits = [logic.input(n) for n in range(6)]
        with counted_paths() as found:
            logic.luts([logic.mux(bits[0], logic.mux(bits[1], bits[2], bits[3]), logic.xor(bits[4], bits[5]))])
        assert found[0].levels == levels


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
    assert full.slowdown_seen
    assert set(empty.unmeasured) == {name for _, name in periods if name not in delays(ICE40)["parts"]}


def test_what_a_full_fpga_takes_away_is_ice40s_figure():
    from lutq_hw.cli.plan import _promise_sentence

    stages = _layers()
    found = promise(stages, FAMILIES["ecp5"], 1.0)
    assert found is not None and not found.slowdown_seen
    assert found.hz > 1.9 * promise(stages, ICE40, 1.0).hz  # pyright: ignore
    said = {"mhz": 120.0, "stage": "conv1", "part": "thresholds", "unmeasured": [], "frames_per_second": 3e6}
    assert _promise_sentence({**said, "slowdown_seen": False}, "ULX3S") == (
        "Its parts promise 120.0 MHz (slowest: thresholds of conv1), 3,000,000 frames/s; "
        "how much slower a full FPGA is was seen on iCE40 only.")
    assert _promise_sentence({**said, "slowdown_seen": True}, "ULX3S").endswith("3,000,000 frames/s.")


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
        assert search.brams == search.stores == (stage.memory == "bram")
        assert held == Path(levels=2, enables=1)
    bank = random_stage(np.random.default_rng(3), "threshold-bank")
    assert replace(bank, memory="bram").table[1] > 1
    assert output_paths(replace(bank, memory="bram"))[0].stores == 0
    looked_up = random_stage(np.random.default_rng(1), "activation-table")
    (deep, _), (shallow, _) = (output_paths(replace(looked_up, memory=memory)) for memory in ("luts", "bram"))
    assert deep.levels > shallow.levels and (deep.stores, shallow.stores) == (0, 1)


def test_rows_of_a_window_are_selected_behind_their_memory():
    one = WindowGeometry(shape=(8, 8, 4), kernel=(3, 3), stride=(1, 1), padding=(1, 1), channels=4, rows=1, groups=1,
                         repeat=2)
    assert [path.levels for path in window_paths(one)] == [2, 0]
    assert [path.levels for path in window_paths(replace(one, rows=3))] == [2, 3]
