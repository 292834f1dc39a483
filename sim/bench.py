"""Runs inside the simulator, started by cocotb: resets the design, lets the clock run, compares what was recorded.

The job is ``job.json`` in the simulator's working folder (written by ``runner.py``), the outcome ``verdict.json``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import Timer

from .scoreboard import compare

PERIOD_NS = 10
RESET_CYCLES = 4
CHUNK_CYCLES = 20_000
"""Cycles between two lines of progress."""


async def run_clock(dut: Any, cycles: int) -> None:
    """Reset, then ``cycles`` clock cycles; the files on disk are complete afterwards."""
    dut.flush.value = 0
    dut.rst.value = 1
    # The first edge rises after half a period, so whole periods end at a falling edge: signals change away from it.
    Clock(dut.clk, PERIOD_NS, unit="ns").start(start_high=False)
    await Timer(RESET_CYCLES * PERIOD_NS, unit="ns")
    dut.rst.value = 0
    done = 0
    while done < cycles:
        step = min(CHUNK_CYCLES, cycles - done)
        await Timer(step * PERIOD_NS, unit="ns")
        done += step
        Path("progress").write_text(str(done))
    dut.flush.value = 1
    await Timer(PERIOD_NS, unit="ns")


@cocotb.test()
async def every_word_equals_golden(dut: Any) -> None:
    """Values and cycles of all streams of all designs."""
    job = json.loads(Path("job.json").read_text())
    await run_clock(dut, job["cycles"])
    verdicts = {case["name"]: compare(case["name"], case["probes"], Path()) for case in job["cases"]}
    Path("verdict.json").write_text(json.dumps({name: asdict(verdict) for name, verdict in verdicts.items()}))
    different = {name: verdict.differences for name, verdict in verdicts.items() if verdict.differences}
    assert not different, different
