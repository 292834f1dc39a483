"""Plans for a family and a clock: what candidates cost and promise, and what is left out when a clock is asked for."""

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lutq_hw.board import find_board
from lutq_hw.cli import main
from lutq_hw.clock import FULL_SLOWDOWN, Period, delays, promise
from lutq_hw.cost import Cost
from lutq_hw.costing import stage_cost
from lutq_hw.errors import PlanError
from lutq_hw.families import FAMILIES, ICE40
from lutq_hw.modelfile import load
from lutq_hw.performance import Performance
from lutq_hw.pipeline import pipeline
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.planner import find_plan, make_search
from lutq_hw.planning import candidates
from lutq_hw.planning.layer_table import explain_layer
from lutq_hw.planning.parts import STEP, Target

DIGITS = Path(__file__).parent.parent / "examples" / "digits.npz"
NETWORK = load(DIGITS)


ROOM = Cost(luts=4000, brams=26, dsps=8)


@dataclass(frozen=True)
class Board:
    """Just what the planner asks of a board."""

    family: str = "ice40"
    available: Cost = ROOM
    name: str = "bench"
    title: str = "Bench"
    plan_clock_hz: float = 40e6


def test_periods_are_told_apart_in_steps():
    target = Target(ICE40, 25.0)
    periods = [target.period(None, Period(0.5 * n, True), Period(1.0, False)) for n in range(1, 100)]
    for number, period in enumerate(periods, 1):
        full = max(1.0, 0.5 * number) * (1 + FULL_SLOWDOWN)
        assert period == 0 if full <= 25 else full <= period * (1 + 1e-12) and period < full * STEP
    assert len(set(periods)) <= 1 + math.ceil(math.log(0.5 * 99 * (1 + FULL_SLOWDOWN) / 25, STEP))
    assert target.period() == target.period(None) == Target().period(Period(1e6, True)) == 0


@pytest.mark.parametrize(("family", "clock_hz"), [("ice40", 60e6), ("ecp5", 150e6), ("series7", 60e6)])
def test_candidates_cost_and_promise_what_their_stages_do(family, clock_hz):
    """Every 40th candidate of every layer, built."""
    search = make_search(NETWORK, Board(family, plan_clock_hz=clock_hz))
    target = Target(FAMILIES[family], search.period_ns)
    everywhere = [layer[0].plan for layer in search.layers]
    seen = set()
    for place, layer in enumerate(search.layers):
        for candidate in layer[::40]:
            layers = (*everywhere[:place], candidate.plan, *everywhere[place + 1:])
            stages = {stage.name: stage for stage in pipeline(NETWORK, Plan(NETWORK.digest, layers)).stages}
            stage = stages[candidate.plan.node]
            assert candidate.cost == stage_cost(stage, target.family)
            assert candidate.cost.luts != stage_cost(stage, FAMILIES["gowin"]).luts
            assert candidate.period_ns == target.stage_period(stage)
            seen.add(candidate.period_ns)
    assert (len(seen) > 1) == bool(delays(target.family))


def test_the_plan_is_priced_for_the_family_of_the_board():
    board = Board("ecp5")
    planned = find_plan(NETWORK, board)
    ours, ice40 = (Performance(NETWORK, planned.plan, family).cost for family in (FAMILIES["ecp5"], ICE40))
    assert planned.search.total(planned.chosen).luts == pytest.approx(ours.luts)
    assert ours.luts != pytest.approx(ice40.luts, rel=0.01)


def test_slower_parts_count_with_their_own_clock():
    """A clock that nothing reaches: every plan is worth what its parts promise, and the best of them is taken."""
    board = Board(plan_clock_hz=100e6)
    planned = find_plan(NETWORK, board)
    cycles, period_ns = planned.search.pace(planned.chosen)
    assert period_ns > 10
    found = promise(Performance(NETWORK, planned.plan).stages, ICE40, 1.0)
    assert found is not None and period_ns / STEP <= 1e9 / found.hz <= period_ns * (1 + 1e-12)
    assert planned.search.time_of(planned.chosen) <= cycles * period_ns * (1 + FULL_SLOWDOWN * 1.2)
    easy = find_plan(NETWORK, replace(board, plan_clock_hz=1e6))
    assert {c.period_ns for layer in easy.search.layers for c in layer} == {0}
    assert max(c.cycles for c in easy.chosen) <= cycles


def test_a_clock_asked_for_is_promised():
    asked, board = 42e6, Board(plan_clock_hz=20e6)
    usual, fast = find_plan(NETWORK, board), find_plan(NETWORK, board, clock_hz=asked)
    promises = [promise(Performance(NETWORK, planned.plan).stages, ICE40, 1.0) for planned in (usual, fast)]
    assert promises[0] is not None and promises[1] is not None
    assert promises[0].hz < asked <= promises[1].hz
    assert {c.plan for c in usual.search.layers[1]} - {c.plan for c in fast.search.layers[1]}
    assert fast.search.periods == [0]


def test_a_cut_loop_reaches_clocks_that_others_do_not(monkeypatch):
    """And is taken without a clock asked for, where that makes more frames a second at the promised clock."""
    def rate(planned):
        performance = Performance(NETWORK, planned.plan)
        found = promise(performance.stages, ICE40, performance.cost.cells / ROOM.luts)
        assert found is not None
        return found.hz, found.hz / performance.cycles_per_frame

    name, board = "thresholds-pipelined", Board(plan_clock_hz=50e6)
    for clock in (44e6, 48e6):
        planned = find_plan(NETWORK, board, clock_hz=clock)
        assert {entry.output for entry in planned.plan.layers[:2] if isinstance(entry, LayerPlan)} == {name}
        assert rate(planned)[0] >= clock
    free = find_plan(NETWORK, board)
    assert name in {entry.output for entry in free.plan.layers if isinstance(entry, LayerPlan)}
    every = candidates.usable_outputs
    monkeypatch.setattr(candidates, "usable_outputs", lambda sums: [output for output in every(sums) if output != name])
    with pytest.raises(PlanError, match=r"^layer conv1: nothing that can build it promises 44 MHz"):
        find_plan(NETWORK, board, clock_hz=44e6)
    assert rate(free)[1] > 1.1 * rate(find_plan(NETWORK, board))[1]


def test_a_clock_out_of_reach():
    sentence = (r"^layer \w+: nothing that can build it promises 59 MHz on a full FPGA, the fastest \d+\.\d MHz; "
                r"ask for a lower --clock$")
    with pytest.raises(PlanError, match=sentence) as error:
        find_plan(NETWORK, Board(), clock_hz=59e6)
    match = re.search(r"fastest (\d+\.\d)", str(error.value))
    assert match is not None and 20 < float(match[1]) < 59
    with pytest.raises(PlanError, match=r"^no clock can be promised on the Bench: nothing was placed and routed on AMD "
                                        r"7 series; leave out --clock$"):
        find_plan(NETWORK, Board("series7"), clock_hz=20e6)


def test_the_layer_table_names_the_clock():
    board, units = Board(plan_clock_hz=45e6), ["shift-add", "shared-products"]  # some of their arrays are slow
    planned = find_plan(NETWORK, board, units=units)
    reasons = [row.reason for row in explain_layer(NETWORK, planned.plan, board, "conv2", units).rows]
    period = planned.search.pace(planned.chosen)[1]
    held = [reason for reason in reasons if reason.startswith("holds the clock down")]
    assert held
    for reason in held:
        match = re.fullmatch(r"holds the clock down to (\d+\.\d) MHz, where the plan is made for (\d+\.\d)", reason)
        assert match is not None and float(match[1]) < float(match[2]) == pytest.approx(1e3 / period, abs=0.05)


def test_command(tmp_path, capsys):
    command = ["plan", "--model", str(DIGITS), "--clock", "38"]
    assert main([*command, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["plan_clock_mhz"] == 38 and shown["promised_clock"]["mhz"] >= 38
    assert shown["frames_per_second"] == pytest.approx(38e6 / shown["cycles_per_frame"])
    rate = shown["promised_clock"]["mhz"] * 1e6 / shown["cycles_per_frame"]
    assert shown["promised_clock"]["frames_per_second"] == pytest.approx(rate)
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "frames/s at 38 MHz" in text and f"{rate:,.0f} frames/s" in text


@pytest.mark.parametrize(("more", "sentence"), [
    (["--clock", "500"], (f"clock must be {find_board('icebreaker').clock_range_hz[0] / 1e6:.4g} to 60 MHz on the "
                          "iCEBreaker (iCE40UP5K), not 500 MHz")),
    (["--clock", "40", "--plan", "some.json"], "--clock must not be given together with --plan, which fixes the hardware"),
])
def test_wrong_clocks(more, sentence, capsys):
    assert main(["plan", "--model", str(DIGITS), *more]) == 2
    assert capsys.readouterr().err == f"lutq: {sentence}\n"
