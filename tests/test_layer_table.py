"""The table behind ``plan --explain LAYER``: every row is true of the plan with that row's candidate in it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lutq_hw.board import find_board
from lutq_hw.cli import main
from lutq_hw.modelfile import load
from lutq_hw.outputs import OUTPUTS
from lutq_hw.performance import Performance
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.planner import make_plan, shortage
from lutq_hw.planning.layer_table import explain_layer
from lutq_hw.units import UNITS

EXAMPLE = Path(__file__).parent.parent / "examples" / "mnist_cnn.npz"
DIGITS = EXAMPLE.with_name("digits.npz")
BOARD = find_board("icebreaker")


def test_rows_are_true():
    network = load(EXAMPLE)
    plan = make_plan(network, BOARD)
    found = explain_layer(network, plan, BOARD, "scores")
    cost = Performance(network, plan).cost
    assert [row.candidate.plan for row in found.rows if row.chosen] == [plan["scores"]]
    assert found.cycles == Performance(network, plan).slowest.cycles
    seen = set()
    common = ("too slow", "does not fit")
    some = [row for row in found.rows if row.reason.startswith(common)][::-5]
    for row in some + [row for row in found.rows if not row.reason.startswith(common)]:
        swapped = Plan(plan.digest, tuple(row.candidate.plan if e.node == "scores" else e for e in plan.layers))
        with_it = Performance(network, swapped).cost
        assert row.fits == (not shortage(with_it, BOARD.available))
        kind = next(kind for kind in ("chosen", "too slow", "does not fit", "dearer", "saves", "cheaper", "costs the same")
                    if row.reason.startswith(kind))
        seen.add(kind)
        assert (kind == "too slow") == (row.candidate.cycles > found.cycles)
        if kind in ("dearer", "saves"):
            for count, name in re.findall(r"([\d,]+) (logic cell|bram|dsp)", row.reason):
                resource = {"logic cell": "cells"}.get(name, name + "s")
                difference = abs(getattr(with_it, resource) - getattr(cost, resource))
                assert difference == pytest.approx(int(count.replace(",", "")), abs=0.51)
    assert seen >= {"chosen", "too slow", "does not fit"} and seen & {"dearer", "saves"}


def test_every_unit_and_stage_is_in_the_table_or_has_a_reason():
    network = load(EXAMPLE)
    found = explain_layer(network, make_plan(network, BOARD), BOARD, "scores")
    entries = [row.candidate.plan for row in found.rows]
    assert all(isinstance(entry, LayerPlan) for entry in entries)
    absent = {(kind, name): reason for kind, name, reason in found.absent}
    assert all(absent.values())
    assert {e.unit for e in entries} | {name for kind, name in absent if kind == "unit"} == set(UNITS)
    assert {e.output for e in entries} | {name for kind, name in absent if kind == "output stage"} == set(OUTPUTS)
    assert absent["output stage", "thresholds"] == "scores has no thresholds"


def test_an_edited_plan_is_told_what_is_better():
    network = load(EXAMPLE)
    plan = make_plan(network, BOARD)
    entry = plan["conv1"]
    assert isinstance(entry, LayerPlan)
    slow = Plan(plan.digest, (replace(entry, pe=1, output_lanes=1), *plan.layers[1:]))
    rows = explain_layer(network, slow, BOARD, "conv1").rows
    assert any(row.reason == "better; this plan is not the fastest" for row in rows)


def test_command(capsys):
    assert main(["plan", "--model", str(DIGITS), "--explain", "scores"]) == 0
    text = capsys.readouterr().out
    assert "chosen" in text and "too slow by" in text and "not among them" in text
    assert main(["plan", "--model", str(DIGITS), "--explain", "scores", "--json"]) == 0
    description = json.loads(capsys.readouterr().out)
    assert sum(c["chosen"] for c in description["candidates"]) == 1
    assert main(["plan", "--model", str(DIGITS), "--explain", "conv9"]) == 2
    assert capsys.readouterr().err == "lutq: --explain must name one of the layers conv1, conv2, scores, not 'conv9'\n"
