"""``plan --pareto``: table, JSON and pictures."""

import builtins
import json
from pathlib import Path

import pytest

from lutq_hw.board import find_board
from lutq_hw.cli import main
from lutq_hw.modelfile import load
from lutq_hw.performance import Performance
from lutq_hw.planner import find_plan

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits.npz"


def pareto(file, *more: str) -> int:
    return main(["plan", "--model", str(EXAMPLE), "--pareto", str(file), *more])


def test_figures_and_table(tmp_path, capsys):
    board, network = find_board("icebreaker"), load(EXAMPLE)
    planned = find_plan(network, board)
    assert pareto(tmp_path / "plans.json") == 0
    text = capsys.readouterr().out
    written = json.loads((tmp_path / "plans.json").read_text())
    assert pareto(tmp_path / "again.json", "--json") == 0
    assert json.loads(capsys.readouterr().out) == written
    performance = Performance(network, planned.plan)
    chosen = written["chosen"]
    assert chosen["cycles"] == performance.slowest.cycles
    assert chosen["luts"] == pytest.approx(performance.cost.luts)
    assert chosen["fits"] and "chosen" in text
    cycles = [p["cycles"] for p in written["plans"]]
    cells = [p["cells"] for p in written["plans"]]
    assert cycles == sorted(set(cycles)) and cells == sorted(set(cells), reverse=True)
    assert not any(p["cycles"] >= chosen["cycles"] and p["cells"] >= chosen["cells"] for p in written["plans"]
                   if p != chosen), "the plan beats none of the efficient ones"
    assert {p["fits"] for p in written["plans"]} == {True, False}
    assert all(p["frames_per_second"] == pytest.approx(board.plan_clock_hz / p["cycles"]) for p in written["plans"])


def test_pictures(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert pareto(tmp_path / "plans.svg") == 0
    picture = (tmp_path / "plans.svg").read_text()
    assert "frames per second" in picture and "available on the iCEBreaker" in picture and "the plan: " in picture
    assert pareto(tmp_path / "again.svg") == 0
    assert (tmp_path / "again.svg").read_text() == picture, "the same plans give the same file"
    assert pareto(tmp_path / "plans.png") == 0
    assert (tmp_path / "plans.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib(tmp_path, capsys, monkeypatch):
    original = builtins.__import__

    def no_matplotlib(name, *rest, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return original(name, *rest, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    assert pareto(tmp_path / "plans.svg") == 2
    assert capsys.readouterr().err == ("lutq: --pareto draws with the package matplotlib, which is not installed; install it "
                                       "with: pip install 'lutq[plot]', or name a file ending in .json\n")
    assert pareto(tmp_path / "plans.json") == 0


@pytest.mark.parametrize(("file", "sentence"), [
    ("plans.gif", "lutq: --pareto must name a file ending in .png, .svg, .json, not 'plans.gif'\n"),
    ("no/such/plans.json", "lutq: --pareto must name a file in a folder that exists, not 'no/such/plans.json'\n"),
])
def test_wrong_file(file, sentence, capsys):
    assert pareto(file) == 2
    assert capsys.readouterr().err == sentence


def test_one_thing_at_a_time(tmp_path, capsys):
    assert pareto(tmp_path / "plans.json", "--explain", "conv1") == 2
    assert capsys.readouterr().err == "lutq: --explain and --pareto must not be given together; each shows something else\n"
