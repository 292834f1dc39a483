# amaranth: UnusedElaboratable=no
"""From a network to a bitstream: a tiny design for real, the search for the clock and the failures with stand-ins."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lutq_hw import build as building
from lutq_hw.board import find_board
from lutq_hw.build import Attempt, Builder, build, keep_divisor
from lutq_hw.cli import main
from lutq_hw.cost import Cost
from lutq_hw.errors import InputError, ToolError
from lutq_hw.link.rate import Baud, pick_baud
from lutq_hw.modelfile import save
from lutq_hw.network import Codebook, Conv2d, Dense, Flatten, Input, Network, Output, TensorType, Thresholds
from lutq_hw.performance import Performance
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.report import report_text
from lutq_hw.tools.nextpnr import Routing
from lutq_hw.tools.runner import Runner, failure
from lutq_hw.tools.yosys import Cells, Synthesis

BOARD = find_board("icebreaker")
TITLE = re.escape(BOARD.title)


def tiny() -> tuple[Network, Plan]:
    """A convolution and a dense layer, with one table in block RAM."""
    rng = np.random.default_rng(1)

    def codebook(*shape: int) -> Codebook:
        return Codebook(rng.integers(0, 4, shape), dictionary=[-2, 0, 1, 4])

    network = Network("tiny", (
        Input("input", TensorType((6, 6, 1), 2)),
        Conv2d("conv", "input", codebook(4, 3, 3, 1), step=Thresholds(np.sort(rng.integers(-10, 10, (4, 3))), 2),
               stride=(2, 2)),
        Flatten("flat", "conv"), Dense("dense", "flat", codebook(3, 16)), Output("output", "dense", kind="argmax")),
        {"accuracy": 0.875})
    layers = (LayerPlan(node="conv", unit="shift-add", pe=1, channels=1, index_memory="bram"),
              LayerPlan(node="dense", unit="shift-add", pe=1, channels=1, index_memory="luts", output="scores"))
    return network, Plan(network.digest, layers)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder and report of a build at a clock that is easy to reach."""
    folder = tmp_path_factory.mktemp("build") / "tiny"
    return folder, build(*tiny(), BOARD, folder, clock_hz=16e6, seeds=(1,))


def test_files(built):
    folder, report = built
    assert sorted(path.name for path in folder.iterdir()) == [
        "constraints.pcf", "design.bin", "logs", "netlist.json", "plan.json", "report.json", "report.txt"]
    assert sorted(path.name for path in (folder / "logs").iterdir()) == [
        "top.yosys.log", "top_seed1.icepack.log", "top_seed1.nextpnr.log"]
    assert (folder / "design.bin").stat().st_size > 100_000
    assert not folder.with_name("tiny.partial").exists()
    assert json.loads((folder / "report.json").read_text()) == report
    assert (folder / "report.txt").read_text() == report_text(report) + "\n"
    plan = Plan.load(folder / "plan.json")
    assert plan == replace(tiny()[1], board="icebreaker")


def test_report(built):
    _, report = built
    network, plan = tiny()
    performance = Performance(network, plan)
    assert list(report) == [
        "model", "board", "layers", "luts", "ffs", "brams", "sprams", "dsps", "clock_mhz", "cycles_per_frame",
        "frames_per_second", "lane_utilisation", "bits_per_weight", "index_entropy", "link", "bitstream", "tools",
        "seconds"]
    assert report["model"] == {"name": "tiny", "digest": network.digest, "accuracy": 0.875}
    assert report["board"] == "icebreaker" and report["bitstream"] == "design.bin"
    assert [layer["name"] for layer in report["layers"]] == [stage.name for stage in performance.stages]
    conv = report["layers"][0]
    assert (conv["unit"], conv["pe"], conv["simd"], conv["macs"]) == ("shift-add", 1, 1, 144)
    assert conv["cycles"] == performance.layers[0].cycles
    for layer in report["layers"]:
        assert all(layer["estimated"][kind] == layer["measured"][kind] for kind in ("brams", "sprams", "dsps"))
    assert report["brams"]["measured"] == report["brams"]["estimated"] and report["brams"]["capacity"] == 30
    for kind in ("luts", "ffs", "brams", "sprams", "dsps"):
        assert sum(layer["measured"][kind] for layer in report["layers"]) <= report[kind]["measured"]
    assert abs(report["luts"]["measured"] / report["luts"]["estimated"] - 1) < 0.25
    clock = report["clock_mhz"]
    assert clock["target"] == 15.938 <= clock["achieved"]  # 12 MHz x 85 / 64
    assert report["cycles_per_frame"] == performance.cycles_per_frame
    rate = report["frames_per_second"]
    assert rate["link"] < rate["accelerator"] == round(15.9375e6 / performance.cycles_per_frame, 1)
    assert report["bits_per_weight"] == 2.0 and 1.5 < report["index_entropy"] < 2.0
    assert report["link"]["divisor"] == pick_baud(15.9375e6, max_baud=BOARD.max_baud).divisor
    assert set(report["tools"]) == {"yosys", "nextpnr-ice40", "icepack"}
    assert set(report["seconds"]) == {"elaboration", "synthesis", "place_and_route", "bitstream", "total"}


def test_report_text(built):
    text = report_text(built[1])
    assert text.startswith("tiny on icebreaker, integer accuracy 87.50 %\n")
    assert re.search(r"^conv +shift-add +1 x 1 +\d+ +\d+\.\d % ", text, flags=re.MULTILINE)
    assert "frames/s accelerator" in text and "clock      15.938 MHz" in text


def routing(hz: float) -> Routing:
    return Routing(Path("x.asc"), Path("x.log"), {"clk": hz}, {}, 0.0)


SYNTHESIS = Synthesis(Path("x.json"), Path("x.log"), {}, Cells(Cost(), 0, {}), (), 0.0)


def search(monkeypatch, reached: list[float]) -> tuple[list[tuple[float, int | None]], Attempt]:
    """Clocks and divisors that are tried when the attempts reach these clocks, and what is chosen."""
    tried = []

    def attempt(self, clock_hz, divisor=None):
        tried.append((clock_hz / 1e6, divisor))
        baud = pick_baud(clock_hz) if divisor is None else Baud(1, divisor, 0.0)
        return Attempt(clock_hz, baud, SYNTHESIS, routing(reached[len(tried) - 1]))

    monkeypatch.setattr(Builder, "attempt", attempt)
    builder = Builder(Performance(*tiny()), SLOWER, Path("x"), seeds=(1,), runner=Runner())
    return tried, builder.fastest()


class Slower(type(BOARD)):
    """Begins at a clock from which rates and dividers differ upwards and downwards."""

    plan_clock_hz = 40.5e6


SLOWER = Slower()
FIRST = SLOWER.clock_at_most(SLOWER.plan_clock_hz)
DIVISOR = pick_baud(FIRST).divisor


def test_clock_is_raised_with_the_divisor_kept(monkeypatch):
    """42.75 MHz would need another divisor, hence another netlist; 42 MHz needs only another setting of the PLL."""
    assert (FIRST, DIVISOR) == (40.5e6, 14)
    assert keep_divisor(42.75e6, DIVISOR, BOARD) is None
    tried, chosen = search(monkeypatch, [43e6, 43e6])
    assert tried == [(40.5, None), (42, DIVISOR)] and chosen.clock_hz == 42e6


def test_clock_that_is_out_of_the_divisors_reach(monkeypatch):
    """Much faster or much slower: worth another netlist, after which the divisor stays."""
    tried, chosen = search(monkeypatch, [48.1e6, 47.3e6, 47.3e6])
    assert tried == [(40.5, None), (48, None), (46.5, pick_baud(48e6).divisor)]
    assert chosen.clock_hz == 46.5e6 and chosen.closes
    tried, chosen = search(monkeypatch, [20.1e6, 20.2e6])
    assert tried[1][1] is None and chosen.closes


def test_clock_is_lowered_with_the_divisor_kept(monkeypatch):
    tried, chosen = search(monkeypatch, [39.2e6, 39.2e6])
    assert tried == [(40.5, None), (39, DIVISOR)]
    assert chosen.clock_hz == 39e6 and chosen.closes


def test_clock_that_is_right_at_once(monkeypatch):
    tried, chosen = search(monkeypatch, [FIRST + 1e3])
    assert len(tried) == 1 and chosen.clock_hz == FIRST


def test_clock_that_never_closes(monkeypatch):
    with pytest.raises(ToolError, match=r"^place and route: the design reached 17\.0 MHz where 18 MHz were set, "
                                        r"after 4 rounds; try more --seeds or a lower --clock$"):
        search(monkeypatch, [20e6, 19e6, 18e6, 17e6])


def test_kept_divisor_has_a_rate():
    """Nearly always: steps between the adapter's fastest rates are 3.1 %, and 1.5 % to either side are tolerated."""
    kept = [(clock_hz, keep_divisor(clock_hz, pick_baud(clock_hz / share).divisor, BOARD))
            for clock_hz in np.linspace(12e6, 60e6, 25) for share in (1.0, 0.99, 0.95, 0.9)]
    good = [(clock_hz, baud) for clock_hz, baud in kept if baud is not None]
    assert len(good) >= 0.98 * len(kept)
    for clock_hz, baud in good:
        assert baud.baud <= BOARD.max_baud and abs(clock_hz / baud.divisor / baud.baud - 1) <= 0.015
    assert keep_divisor(60e6, 4, BOARD) is None


def test_clock_out_of_range(tmp_path):
    with pytest.raises(InputError, match=rf"^clock must be 8\.438 to 60 MHz on the {TITLE}, not 5 MHz$"):
        build(*tiny(), BOARD, tmp_path / "x", clock_hz=5e6)
    assert not list(tmp_path.iterdir())


def fake_tools(tmp_path, monkeypatch, cells: dict[str, int], nextpnr: str) -> None:
    """Tools that are shell scripts: a synthesis with ``cells`` in total, a place and route that does ``nextpnr``."""
    monkeypatch.chdir(tmp_path)  # asked for their version, these scripts write files too
    network, plan = tiny()
    performance = Performance(network, plan)
    modules = {f"\\{building.ACCELERATOR}.{name}": {"num_cells_by_type": {
        "SB_LUT4": round(cost.luts), "SB_RAM40_4K": cost.brams}} for name, cost in performance.costs.items()}
    modules["\\top"] = {"num_cells_by_type": {}}
    total = {"modules": {"\\top": {"num_cells_by_type": cells}}}
    netlist = {"modules": {"top": {"cells": {"x": {"type": "SB_LUT4", "parameters": {}}}}}}
    for name, content in (("modules", {"modules": modules}), ("total", total), ("netlist", netlist)):
        (tmp_path / name).write_text(json.dumps(content))
    scripts = {"YOSYS": f"cp {tmp_path}/modules top.modules.json; cp {tmp_path}/total top.total.json; "
                        f"cp {tmp_path}/netlist top.json", "NEXTPNR_ICE40": nextpnr, "ICEPACK": "true"}
    for variable, script in scripts.items():
        path = tmp_path / variable.lower()
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv(variable, str(path))


def test_too_many_cells(tmp_path, monkeypatch):
    fake_tools(tmp_path, monkeypatch, {"SB_LUT4": 6000, "SB_RAM40_4K": 31}, "true")
    with pytest.raises(ToolError, match=rf"^the design does not fit the {TITLE}: it needs 6000 luts where there are "
                                        r"5280 and 31 brams where there are 30; make a smaller plan \(plan --fps, or"
                                        r" edit pe and channels in the plan's file\)$"):
        build(*tiny(), BOARD, tmp_path / "x", clock_hz=20e6, seeds=(1,))


def test_cells_that_cannot_be_packed(tmp_path, monkeypatch):
    fake_tools(tmp_path, monkeypatch, {"SB_LUT4": 5000},
               "echo 'Info:          ICESTORM_LC:    5400/   5280   102%' >top_seed1.nextpnr.log; exit 1")
    with pytest.raises(ToolError, match=rf"^the design does not fit the {TITLE}: it needs 5400 ICESTORM_LC where there "
                                        r"are 5280; make"):
        build(*tiny(), BOARD, tmp_path / "x", clock_hz=20e6, seeds=(1,))


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
def test_failure_keeps_logs_only(tmp_path, monkeypatch, seeds):
    fake_tools(tmp_path, monkeypatch, {"SB_LUT4": 100}, "echo 'ERROR: bad luck'; exit 1")
    output = tmp_path / "x"
    with pytest.raises(ToolError, match=r"^place and route \(nextpnr, seed 1\): nextpnr-ice40 --up5k .* failed with "
                                        rf"exit code 1; its log is {output}\.partial/top_seed1\.nextpnr\.log and ends "
                                        r"with\n  \| ERROR: bad luck$"):
        build(*tiny(), BOARD, output, clock_hz=20e6, seeds=seeds)
    assert not output.exists()
    left = {path.name for path in output.with_name("x.partial").iterdir()}
    assert {".lutq-work", "top.yosys.log", "top_seed1.nextpnr.log"} <= left
    assert all(name == ".lutq-work" or name.endswith(".log") for name in left)


def test_placements_that_run_out_of_time_do_not_count(tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.write_text("")

    def route(netlist: Path, *, seed: int, **options) -> Routing:
        if seed in late:
            raise failure(f"place and route (nextpnr, seed {seed})", ["nextpnr-ice40"], None, 1200, log)
        return Routing(tmp_path, log, {"clk": seed * 1e6}, {}, 1.0)

    monkeypatch.setattr(building, "place_and_route", route)
    builder = Builder(Performance(*tiny()), BOARD, tmp_path, seeds=(1, 2, 3), runner=Runner())
    late = {1, 3}
    assert builder._route(SYNTHESIS, "", 20e6, (1, 2, 3)).clock_hz == 2e6
    late = {1, 2, 3}
    with pytest.raises(ToolError, match=r"^place and route \(nextpnr, seed 1\): nextpnr-ice40 did not end within 1200 s "
                                        r"and was stopped"):
        builder._route(SYNTHESIS, "", 20e6, (1, 2, 3))


def test_placements_that_take_much_longer_than_the_quickest_are_stopped(tmp_path, monkeypatch):
    """One that would never end, beside two that are done at once."""
    monkeypatch.setattr(building, "SHORT_S", 0.5)
    report = '{"fmax": {"clk": {"achieved": 22.5, "constraint": 30}}, "utilization": {}}'
    fake_tools(tmp_path, monkeypatch, {"SB_LUT4": 100},
               'case "$*" in *"--seed 2 "*) exec sleep 1000;; esac\n'
               f"for seed in 1 3; do echo '{report}' >top_seed$seed.report.json; done")
    with pytest.raises(ToolError, match=r"^place and route: the design reaches 22\.5 MHz, not the 30 MHz asked for;"):
        build(*tiny(), BOARD, tmp_path / "x", clock_hz=30e6, seeds=(1, 2, 3))


def test_clock_that_was_asked_for_is_not_reached(tmp_path, monkeypatch):
    report = '{"fmax": {"clk": {"achieved": 22.5, "constraint": 30}}, "utilization": {}}'
    fake_tools(tmp_path, monkeypatch, {"SB_LUT4": 100}, f"echo '{report}' >top_seed1.report.json")
    with pytest.raises(ToolError, match=r"^place and route: the design reaches 22\.5 MHz, not the 30 MHz asked for; "
                                        r"leave out --clock to get the fastest clock, or try more --seeds$"):
        build(*tiny(), BOARD, tmp_path / "x", clock_hz=30e6, seeds=(1,))


def test_layer_that_shrank(tmp_path, monkeypatch):
    fake_tools(tmp_path, monkeypatch, {"SB_LUT4": 100}, "true")
    modules = json.loads((tmp_path / "modules").read_text())
    modules["modules"][f"\\{building.ACCELERATOR}.conv"]["num_cells_by_type"]["SB_RAM40_4K"] = 0
    (tmp_path / "modules").write_text(json.dumps(modules))
    with pytest.raises(ToolError, match=r"^layer conv: synthesis left 0 brams where \d were planned; "):
        build(*tiny(), BOARD, tmp_path / "x", clock_hz=30e6, seeds=(1,))


@pytest.fixture
def model(tmp_path) -> Path:
    """The network and its plan as files."""
    network, plan = tiny()
    save(network, tmp_path / "tiny.npz")
    (tmp_path / "tiny.json").write_text(plan.to_json())
    return tmp_path / "tiny.npz"


def test_command_line(model, tmp_path, capsys):
    common = ["--model", str(model), "--plan", str(model.with_suffix(".json")), "--output", str(tmp_path / "out")]
    assert main(["verilog", *common, "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["top"] == "lutq_accelerator" and (tmp_path / "out" / manifest["tables"][0]).exists()
    assert main(["verilog", *common]) == 0  # replaces its own folder
    assert re.fullmatch(rf"{tmp_path}/out: lutq_accelerator\.v and \d+ tables\n", capsys.readouterr().out)
    assert main(["build", *common]) == 2
    assert capsys.readouterr().err.startswith(f"lutq: output folder {tmp_path}/out must be new, empty or from an ear")
    assert main(["build", *common, "--fps", "3"]) == 2
    assert capsys.readouterr().err == "lutq: --fps must not be given together with --plan, which fixes the rate\n"
    assert main(["build", *common, "--board", "nexys"]) == 2
    assert main(["program", "--build", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.endswith(f"lutq: build folder {tmp_path}/out must hold the report.json of a "
                                            "finished build; run the build command first\n")


def test_build_command(model, tmp_path, monkeypatch, capsys):
    report = '{"fmax": {"clk": {"achieved": 31.5, "constraint": 30}}, "utilization": {}}'
    packs = "for file; do true; done; touch $file"
    fake_tools(tmp_path, monkeypatch, {"SB_LUT4": 100, "SB_RAM40_4K": 3},
               f"while [ $# -gt 1 ]; do [ $1 != --report ] || echo '{report}' >$2; shift; done")  # four run at once
    (tmp_path / "icepack").write_text(f"#!/bin/sh\n{packs}\n")
    arguments = ["build", "--model", str(model), "--plan", str(model.with_suffix(".json")), "--output",
                 str(tmp_path / "out"), "--clock", "30"]
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["clock_mhz"] == {"target": 30.0, "achieved": 31.5}
    assert "synthesis (yosys): done" in captured.err
    assert "place and route (nextpnr), seeds 1, 2, 3, 4: 31.5 MHz" in captured.err
    assert main(arguments) == 0
    assert capsys.readouterr().out == (tmp_path / "out" / "report.txt").read_text()
