# amaranth: UnusedElaboratable=no
"""Boards: every file of the folder is complete and elaborates; the iCEBreaker's PLL, display and reset by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from amaranth.sim import Simulator

from lutq_hw.board import Board, board_names, find_board
from lutq_hw.boards.icebreaker import POWER_ON_CYCLES, SEGMENTS, Pll, SevenSegment, StartUp, all_plls, pll_at_most
from lutq_hw.cost import Cost
from lutq_hw.errors import InputError, ToolError
from lutq_hw.gateware.system import System
from lutq_hw.link.rate import pick_baud
from lutq_hw.network import Codebook, Dense, Input, Network, Output, TensorType
from lutq_hw.plan import LayerPlan, Plan
from lutq_hw.program import program

BOARDS = pytest.mark.parametrize("name", board_names())


def tiny() -> tuple[Network, Plan]:
    """One dense layer."""
    rng = np.random.default_rng(1)
    network = Network("tiny", (Input("input", TensorType((8,), 2)),
                               Dense("dense", "input", Codebook(rng.integers(0, 4, (3, 8)), dictionary=[-2, 0, 1, 4])),
                               Output("output", "dense", kind="argmax")))
    layer = LayerPlan(node="dense", unit="shift-add", pe=1, channels=2, output="scores")
    return network, Plan(network.digest, (layer,), "icebreaker")


@BOARDS
def test_board_is_complete(name):
    board = find_board(name)
    assert isinstance(board, Board) and board.name == name and board.title
    assert board.family == "ice40"
    low, high = board.clock_range_hz
    assert low <= board.plan_clock_hz <= high
    for hz in np.linspace(low, high, 50):
        assert low <= board.clock_at_most(hz) <= hz
        assert pick_baud(board.clock_at_most(hz), max_baud=board.max_baud, ftdi=board.ftdi)
    assert board.clock_at_most(1e12) <= high
    assert not (board.available + board.reserved).over(board.capacity)
    assert not board.around.over(board.reserved)


@BOARDS
def test_board_elaborates(name):
    board = find_board(name)
    clock_hz = board.clock_at_most(board.plan_clock_hz)
    system = System(*tiny(), divisor=16)
    files = board.platform().prepare(board.create(system, clock_hz), "top").files
    assert "module \\top.system.accelerator.dense\n" in files["top.il"]
    assert "uart_0__rx__io" in files["top.pcf"] and "set_frequency" in files["top.pcf"]


def test_unknown_board():
    with pytest.raises(InputError, match=f"^board must be one of {', '.join(board_names())}, not 'nexys'$"):
        find_board("nexys")


def test_available_counts_logic_cells():
    board = find_board("icebreaker")
    assert board.capacity == Cost(luts=5280, ffs=5280, brams=30, sprams=4, dsps=8)
    assert board.available.cells == board.capacity.luts - board.reserved.cells
    assert (board.available.brams, board.available.dsps) == (26, 8)


@pytest.mark.parametrize("hz, divf, divq", [
    # 12 MHz x (DIVF + 1) / 2^DIVQ, with the oscillator inside at 533 to 1066 MHz; worked out by hand.
    (24e6, 63, 5),           # 12 x 64 / 32
    (30e6, 79, 5),           # 12 x 80 / 32
    (40e6, 52, 4),           # 12 x 53 / 16 = 39.75; 12 x 106 / 32 is beyond the oscillator
    (48e6, 63, 4),           # 12 x 64 / 16
    (60e6, 79, 4),           # 12 x 80 / 16
    (17e6, 44, 5),           # 12 x 45 / 32 = 16.875
    (1e6, 44, 6),            # slower than it can: 12 x 45 / 64 = 8.4375
])
def test_pll(hz, divf, divq):
    assert pll_at_most(hz) == Pll(0, divf, divq)


def test_pll_is_the_fastest_within_its_limits():
    plls = all_plls()
    assert plls[0].hz == 8.4375e6 and all(pll.divr == 0 and pll.filter_range == 1 for pll in plls)
    assert all(533e6 <= pll.hz * 2 ** pll.divq <= 1066e6 for pll in plls)
    for hz in np.linspace(9e6, 60e6, 200):
        chosen = pll_at_most(hz).hz
        assert chosen <= hz and not any(chosen < pll.hz <= hz for pll in plls)


def test_digits():
    """Both digits of every number in turn, lit when low, the common line telling which."""
    dut = SevenSegment(8)
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    seen = {}

    async def bench(ctx):
        ctx.set(dut.number, 0xA3)
        for _ in range(3000):
            await ctx.tick()
            seen.setdefault(ctx.get(dut.low_digit), set()).add(~ctx.get(dut.segments) & 0x7F)
        ctx.set(dut.blank, 1)
        await ctx.tick().repeat(2)
        assert ctx.get(dut.segments) == 0x7F

    sim.add_testbench(bench)
    sim.run()
    assert seen == {1: {SEGMENTS[3]}, 0: {SEGMENTS[10]}}


@pytest.mark.parametrize("digit, lit", [(0, "abcdef"), (1, "bc"), (7, "abc"), (8, "abcdefg"), (10, "abcefg"),
                                        (15, "aefg")])
def test_segments(digit, lit):
    assert {"abcdefg"[i] for i in range(7) if SEGMENTS[digit] >> i & 1} == set(lit)


def test_reset_waits_for_the_lock():
    """Released 15 µs after the lock at the fastest clock, held again when the lock is lost."""
    dut = StartUp()
    sim = Simulator(dut)
    sim.add_clock(1e-6, domain="start")
    assert 15e-6 * find_board("icebreaker").clock_range_hz[1] <= POWER_ON_CYCLES

    async def bench(ctx):
        await ctx.tick("start").repeat(2 * POWER_ON_CYCLES)
        assert ctx.get(dut.reset)
        for _ in range(2):
            ctx.set(dut.locked, 1)
            cycles = 0
            while ctx.get(dut.reset):
                await ctx.tick("start")
                cycles += 1
            assert cycles == POWER_ON_CYCLES + 3
            ctx.set(dut.locked, 0)
            await ctx.tick("start").repeat(3)
            assert ctx.get(dut.reset)

    sim.add_testbench(bench)
    sim.run()


@pytest.fixture
def bin_folder(tmp_path, monkeypatch) -> Path:
    """The only folder on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def fake(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_program(tmp_path, bin_folder, capfd):
    bitstream, board = tmp_path / "design.bin", find_board("icebreaker")
    with pytest.raises(InputError, match=rf"^bitstream {bitstream} must be a file; the build command makes one$"):
        program(bitstream, board)
    bitstream.touch()
    with pytest.raises(ToolError, match=r"^no programmer for the iCEBreaker \(iCE40UP5K\) is on PATH \(iceprog or "
                                        r"openFPGALoader\); run: apt-get install fpga-icestorm \(or: apt-get install "
                                        r"openfpgaloader\)$"):
        program(bitstream, board)
    fake(bin_folder / "openFPGALoader", 'echo "$@"')
    assert program(bitstream, board) == "openFPGALoader"
    assert capfd.readouterr().out == f"-b ice40_generic {bitstream}\n"
    fake(bin_folder / "iceprog", "exit 3")
    with pytest.raises(ToolError, match=rf"^iceprog {bitstream} failed with exit code 3; check that the iCEBreaker "
                                        r"\(iCE40UP5K\) is plugged in and that you may access its USB device$"):
        program(bitstream, board)
