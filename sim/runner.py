"""Cases to verdicts: Verilog, simulator, comparison."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lutq_hw.emit import write_verilog
from lutq_hw.errors import ToolError
from lutq_hw.network.tensor import Ints
from lutq_hw.progress import SILENT, Progress, Stage

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

    seconds: float

    @property
    def equal(self) -> bool:
        """Whether all values and all cycles equal golden."""
        return not any(verdict.differences for verdict in self.verdicts.values())


class Bench:
    """The designs of some cases, built side by side; can be run more than once.

    Parameters
    ----------
    cases
        Each with a component, or with a module ``NAME_dut`` in ``sources``.
    folder
        Work folder: Verilog, logs and recordings stay there. The ROMs' ``.hex`` files are read when a run begins.
    simulator
        ``verilator`` or ``icarus``.
    sources, options
        More Verilog and more options for the simulator's compiler.
    waves
        ``fst`` or ``vcd`` if a run shall write a waveform.

    Raises
    ------
    ToolError
        If a tool is missing or fails.
    """

    def __init__(self, cases: Sequence[Case], folder: Path, *, simulator: str = "verilator",
                 sources: Sequence[Path] = (), options: Sequence[str] = (), waves: str | None = None,
                 progress: Progress = SILENT):
        self.folder, self.simulator, self.progress = folder, simulator, progress
        folder.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        self._engine = Simulator(simulator, folder / "build", waves=waves)
        with progress.stage(f"building the simulation with {simulator}"):
            files = [Path(__file__).with_name("bench.sv"), *sources]
            files += [emit(case, folder) for case in cases if case.component is not None]
            shell = folder / "shell.sv"
            shell.write_text(top_module(cases))
            self._engine.build([*files, shell], TOP, options, cycles=max(case.cycles for case in cases))
        self.seconds = time.monotonic() - begin
        """Time that the build took."""

    def run(self, cases: Sequence[Case], *, waves: Path | None = None) -> Outcome:
        """Simulate: the cases of the build, perhaps with other frames, stalls or expectations.

        Raises
        ------
        ToolError
            If the simulator dies.
        """
        cycles = max(case.cycles for case in cases) + MARGIN_CYCLES
        for case in cases:
            case.write(self.folder)
        about = [{"name": case.name, "probes": [probe.about() for probe in case.probes]} for case in cases]
        (self.folder / "job.json").write_text(json.dumps({"cycles": cycles, "cases": about}))
        verdict_file = self.folder / "verdict.json"
        verdict_file.unlink(missing_ok=True)
        begin = time.monotonic()
        with self.progress.stage("simulating", total=cycles, unit="clock cycles") as stage:
            with watched(self.folder / "progress", stage):
                self._engine.run("lutq_hw.sim.bench", self.folder, waves_file=waves)
        if not verdict_file.exists():
            log = self.folder / "run.log"
            raise ToolError(f"{self.simulator} stopped without a result; its log is {log} and ends with{tail(log)}")
        verdicts = {name: Verdict(**fields) for name, fields in json.loads(verdict_file.read_text()).items()}
        return Outcome(verdicts, cycles, time.monotonic() - begin)

    def recorded(self, case: Case, stream: str) -> Ints:
        """``(N, ...)`` complete frames that the last run carried over ``stream``; undefined words are 0."""
        probe = next(probe for probe in case.probes if probe.name == stream)
        transfers = parse((self.folder / f"{case.name}.{stream}.recorded").read_text()).transfers
        words = [word or 0 for _, word in transfers]
        return probe.format.unpack(words[:len(words) // probe.format.words * probe.format.words])


def emit(case: Case, folder: Path) -> Path:
    """Verilog of the case's component, with its ``.hex`` files in a folder of its own."""
    assert case.component is not None
    name = f"{case.name}_dut"
    path = write_verilog(case.component, folder / name, name=name)[0]
    # The simulator runs in `folder`, and cases may have layers of the same name.
    path.write_text(path.read_text().replace('$readmemh("', f'$readmemh("{name}/'))
    return path


@contextmanager
def watched(path: Path, stage: Stage) -> Iterator[None]:
    """Hands the number that the bench writes to ``path`` to ``stage`` while the body runs."""
    path.unlink(missing_ok=True)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            text = path.read_text() if path.exists() else ""
            if text:
                stage.update(int(text))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
