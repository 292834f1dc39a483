"""List of units and stages: complete, true, and the command that prints it."""

import json
from pathlib import Path

import pytest

from lutq_hw.board import find_board
from lutq_hw.catalogue import entries, first_sentence, uses
from lutq_hw.cli import main
from lutq_hw.modelfile import load
from lutq_hw.outputs import OUTPUTS
from lutq_hw.planner import make_search
from lutq_hw.units import UNITS

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "mnist_cnn.npz"


def test_everything_is_listed_with_what_it_needs():
    found = entries()
    assert [(e.kind, e.name) for e in found] == [
        *(("unit", name) for name in sorted(UNITS)), *(("output stage", name) for name in sorted(OUTPUTS))]
    assert all(e.needs and e.summary.endswith(".") for e in found)
    assert [e.name for e in found if not e.default] == ["product-table"]


def test_points_are_those_of_the_files():
    points = {e.name: e.points for e in entries()}
    folder = ROOT / "lutq_hw" / "units" / "points"
    assert points["shift-add"]["ice40"] == (folder / "shift-add.json").read_text().count('"luts"')
    outputs = json.loads((ROOT / "lutq_hw" / "points" / "output.json").read_text())
    assert sum(points[name].get("ice40", 0) for name in OUTPUTS) == len(outputs)


def test_marks_agree_with_the_planner():
    network = load(EXAMPLE)
    marked = {(use.layer, use.name) for use in uses(network) if use.reason is None}
    assert {use.layer for use in uses(network)} == {node.name for node in network.weighted}
    for layer in make_search(network, find_board("icebreaker")).layers:
        for candidate in layer:
            assert (candidate.plan.node, candidate.plan.unit) in marked
            assert (candidate.plan.node, candidate.plan.output) in marked


def test_command(capsys):
    assert main(["units"]) == 0
    text = capsys.readouterr().out
    assert "shift-add" in text and "when asked" in text and "threshold-bank" in text
    assert main(["units", "--model", str(EXAMPLE)]) == 0
    assert "conv1 has a step" in capsys.readouterr().out
    assert main(["units", "--model", str(EXAMPLE), "--json"]) == 0
    description = json.loads(capsys.readouterr().out)
    assert {entry["name"] for entry in description["entries"]} == set(UNITS) | set(OUTPUTS)
    assert len(description["uses"]) == 4 * (len(UNITS) + len(OUTPUTS))


@pytest.mark.parametrize(("text", "sentence"), [
    ("One. Two.", "One."),
    ("One\nline of two. And more.\n\nRest.", "One line of two."),
    ("Without a stop", "Without a stop."),
])
def test_first_sentence(text, sentence):
    assert first_sentence(text) == sentence
