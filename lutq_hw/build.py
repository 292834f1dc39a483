"""Network and plan to bitstream: synthesis, place and route, the fastest clock that closes, report."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .board import Board
from .cost import Cost
from .errors import ToolError
from .families import FAMILIES
from .flow import check_flow
from .folder import whole_folder
from .gateware.system import System
from .link.rate import FTDI_HZ, MAX_ERROR, STANDARD, Baud, pick_baud
from .network import Network
from .performance import Performance
from .plan import Plan
from .progress import SILENT
from .report import Measured, make_report, report_text
from .tools.nextpnr import Routing, overfull, pack, place_and_route
from .tools.runner import RunError, Runner, stop_running
from .tools.yosys import (
    Synthesis,
    change_parameters,
    check_contents,
    check_shrink,
    parameter_changes,
    synthesize,
)

TOP = "top"
ACCELERATOR = f"{TOP}.system.accelerator"
REPORT = "report.json"
BITSTREAM = "design.bin"

MAX_ROUNDS = 4
"""Attempts to find the clock; the third is the last if placing the same netlist gives the same result."""


PATIENCE = 3.0
"""How many times as long as the quickest placement another one may take: some never find room for their carry chains."""

SHORT_S = 30.0
"""Seconds that the quickest placement counts as having taken at least."""

WORTHWHILE = 0.01
"""Gain in clock for which a design that closes is placed once more."""

SACRIFICE = 0.06
"""Share of clock or of the link's rate that is given up for a netlist that is known to be fast: a new one may be slower."""


@dataclass(frozen=True)
class Attempt:
    """The design at one clock."""

    clock_hz: float
    baud: Baud
    synthesis: Synthesis
    routing: Routing
    """The fastest of all seeds."""

    @property
    def closes(self) -> bool:
        """Whether the routed design can take its clock."""
        return self.routing.clock_hz >= self.clock_hz


class Builder:
    """Builds one plan at one or more clocks.

    Parameters
    ----------
    work
        Folder for all files.
    seeds
        Placements to try at each clock, in parallel as far as there are cores.
    """

    def __init__(self, performance: Performance, board: Board, work: Path, *, seeds: Sequence[int], runner: Runner):
        self.performance, self.board, self.work = performance, board, work
        self.seeds, self.runner = seeds, runner
        self.seconds: dict[str, float] = {"elaboration": 0.0, "synthesis": 0.0, "place_and_route": 0.0}
        self.link_cost = Cost()
        self._last: tuple[str, Synthesis] | None = None
        self._best = seeds[0]

    def attempt(self, clock_hz: float, divisor: int | None = None) -> Attempt:
        """The design at ``clock_hz`` (which the board can make), routed; with ``divisor`` if a baud rate fits that."""
        baud = divisor and keep_divisor(clock_hz, divisor, self.board)
        baud = baud or pick_baud(clock_hz, max_baud=self.board.max_baud, ftdi=self.board.ftdi)
        begin = time.monotonic()
        with self.runner.progress.stage(f"elaboration for {clock_hz / 1e6:g} MHz, {baud.baud:,} baud"):
            system = System(self.performance.network, self.performance.plan, divisor=baud.divisor)
            self.link_cost = system.link_cost
            platform = self.board.platform()
            files = platform.prepare(self.board.create(system, clock_hz), TOP, emit_src=False).files
        rtlil, pcf = _text(files[f"{TOP}.il"]), _text(files[f"{TOP}.pcf"])
        self.seconds["elaboration"] += time.monotonic() - begin
        if self._last is not None and (changes := parameter_changes(self._last[0], rtlil)) is not None:
            synthesis, seeds = self._last[1], [self._best]  # the placements will be those of before
            change_parameters(synthesis.netlist, changes)
        else:
            synthesis, seeds = self._synthesize(rtlil), self.seeds
        self._last = rtlil, synthesis
        begin = time.monotonic()
        routing = self._route(synthesis, pcf, clock_hz, seeds)
        self.seconds["place_and_route"] += time.monotonic() - begin
        return Attempt(clock_hz, baud, synthesis, routing)

    def _synthesize(self, rtlil: str) -> Synthesis:
        keep = [f"{ACCELERATOR}.{stage.name}" for stage in self.performance.stages]
        synthesis = synthesize(rtlil, self.work, top=TOP, keep=keep, name=TOP, runner=self.runner)
        self.seconds["synthesis"] += synthesis.seconds
        check_shrink(self.performance.costs, stage_cells(synthesis))
        check_contents(rtlil, synthesis.netlist)
        excess = synthesis.total.cost.over(self.board.capacity)
        if excess:
            raise ToolError(_does_not_fit(self.board, {kind: (getattr(synthesis.total.cost, kind),
                                                              getattr(self.board.capacity, kind)) for kind in excess}))
        return synthesis

    def _route(self, synthesis: Synthesis, pcf: str, clock_hz: float, seeds: Sequence[int]) -> Routing:
        """The fastest of ``seeds``; those that run out of time or `PATIENCE` do not count while another one is routed."""
        limit_s = self.runner.timeout_s() if callable(self.runner.timeout_s) else self.runner.timeout_s
        quickest = limit_s / PATIENCE
        runner = replace(self.runner, progress=SILENT, timeout_s=lambda: PATIENCE * quickest)
        names = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"

        def one(seed: int) -> Routing:
            nonlocal quickest
            routing = place_and_route(synthesis.netlist, pcf=pcf, freq_hz=clock_hz, device=self.board.device,
                                      package=self.board.package, seed=seed, name=f"{TOP}_seed{seed}", runner=runner)
            quickest = min(quickest, max(routing.seconds, SHORT_S))
            return routing

        with self.runner.progress.stage(f"place and route (nextpnr), {names}") as stage:
            found: list[tuple[Routing, int]] = []
            late: list[RunError] = []
            with ThreadPoolExecutor(min(len(seeds), os.cpu_count() or 1)) as pool:
                try:
                    for seed, future in [(seed, pool.submit(one, seed)) for seed in seeds]:
                        try:
                            found.append((future.result(), seed))
                        except RunError as error:
                            if error.exit_code is not None:
                                raise
                            late.append(error)
                except RunError as error:
                    pool.shutdown(wait=False, cancel_futures=True)
                    stop_running()
                    used = overfull(error.log)
                    raise ToolError(_does_not_fit(self.board, used)) if used else error from error
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    stop_running()
                    raise
            if not found:
                raise late[0]
            best, self._best = max(found, key=lambda pair: pair[0].clock_hz)
            stage.note = f"{best.clock_hz / 1e6:.1f} MHz" + (f", {len(late)} out of time" if late else "")
        return best

    def fastest(self) -> Attempt:
        """The design at the fastest clock that was found to close.

        Raises
        ------
        ToolError
            If no clock closed in `MAX_ROUNDS` rounds.
        """
        attempt = self.attempt(self.board.clock_at_most(self.board.plan_clock_hz))
        for _ in range(MAX_ROUNDS - 1):
            reachable = self.board.clock_at_most(attempt.routing.clock_hz)
            # With the divisor kept, nothing but the PLL changes: the placement comes out the same, so the clock closes.
            same = self._clock_for(attempt.baud.divisor, reachable)
            if attempt.closes and (same or reachable) <= attempt.clock_hz * (1 + WORTHWHILE):
                break
            attempt = self.attempt(reachable) if same is None else self.attempt(same, attempt.baud.divisor)
        if not attempt.closes:
            raise ToolError(f"place and route: the design reached {attempt.routing.clock_hz / 1e6:.1f} MHz where "
                            f"{attempt.clock_hz / 1e6:g} MHz were set, after {MAX_ROUNDS} rounds; try more --seeds or "
                            "a lower --clock")
        return attempt

    def _clock_for(self, divisor: int, reachable: float) -> float | None:
        """The fastest clock not much below ``reachable`` at which ``divisor`` still gives a good rate, or None."""
        clock_hz = reachable
        while clock_hz >= reachable * (1 - SACRIFICE):
            baud = keep_divisor(clock_hz, divisor, self.board)
            best = pick_baud(clock_hz, max_baud=self.board.max_baud, ftdi=self.board.ftdi)
            if baud is not None and baud.baud >= best.baud * (1 - SACRIFICE):
                return clock_hz
            slower = self.board.clock_at_most(clock_hz - 1)
            if slower >= clock_hz:
                break
            clock_hz = slower
        return None


def keep_divisor(clock_hz: float, divisor: int, board: Board) -> Baud | None:
    """The host's rate that is closest to this clock with this divisor, or None if none is close enough."""
    device = clock_hz / divisor
    rates = [rate for rate in STANDARD if rate <= board.max_baud]
    if board.ftdi:
        eighths = max(round(8 * FTDI_HZ / device), math.ceil(8 * FTDI_HZ / board.max_baud))
        rates.append(round(8 * FTDI_HZ / eighths))
    rate = min(rates, key=lambda rate: abs(device / rate - 1))
    error = device / rate - 1
    return Baud(rate, divisor, error) if abs(error) <= MAX_ERROR else None


def _text(content: str | bytes) -> str:
    return content.decode() if isinstance(content, bytes) else content


def stage_cells(synthesis: Synthesis) -> dict[str, Cost]:
    """Measured price of every stage, by its name."""
    return {name.removeprefix(f"{ACCELERATOR}."): cells.cost for name, cells in synthesis.modules.items()
            if name.startswith(f"{ACCELERATOR}.")}


def _does_not_fit(board: Board, used: dict[str, tuple[float, float]]) -> str:
    needs = " and ".join(f"{count:.0f} {kind} where there are {limit:.0f}" for kind, (count, limit) in used.items())
    return (f"the design does not fit the {board.title}: it needs {needs}; make a smaller plan (plan --fps, or edit pe "
            "and channels in the plan's file)")


def build(network: Network, plan: Plan, board: Board, output: Path, *, clock_hz: float | None = None,
          seeds: Sequence[int] = (1, 2), runner: Runner | None = None) -> dict[str, Any]:
    """Builds ``plan`` for ``board`` into the folder ``output``; returns what `report.make_report` says about it.

    The folder appears only when all went well: ``design.bin``, ``report.json``, ``report.txt``, ``plan.json``,
    ``netlist.json`` (iCE40 cells, before placement), ``constraints.pcf`` and ``logs/``.

    Parameters
    ----------
    clock_hz
        Clock to build for, rounded down to one that the board can make; None finds the fastest that closes.
    seeds
        Placements to try.

    Raises
    ------
    ToolError
        If a tool fails, the design does not fit or does not reach its clock, or synthesis lost part of it. Logs stay in
        ``OUTPUT.partial``.
    InputError
        If the clock cannot be made or ``output`` holds other files.
    """
    runner = runner or Runner()
    begin = time.monotonic()
    if clock_hz is not None:
        board.require_clock(clock_hz)
    check_flow(network, plan)
    performance = Performance(network, plan, FAMILIES[board.family])
    with whole_folder(output, marker=REPORT) as work:
        builder = Builder(performance, board, work, seeds=seeds, runner=runner)
        if clock_hz is None:
            attempt = builder.fastest()
        else:
            attempt = builder.attempt(board.clock_at_most(clock_hz))
            if not attempt.closes:
                raise ToolError(f"place and route: the design reaches {attempt.routing.clock_hz / 1e6:.1f} MHz, not "
                                f"the {attempt.clock_hz / 1e6:g} MHz asked for; leave out --clock to get the fastest "
                                "clock, or try more --seeds")
        packing = time.monotonic()
        pack(attempt.routing, work / BITSTREAM, runner=runner)
        seconds = {**builder.seconds, "bitstream": time.monotonic() - packing, "total": time.monotonic() - begin}
        tools = {tool: runner.version(tool) for tool in ("yosys", "nextpnr-ice40", "icepack")}
        measured = Measured(stages=stage_cells(attempt.synthesis), total=attempt.synthesis.total.cost,
                            target_hz=attempt.clock_hz, achieved_hz=attempt.routing.clock_hz, baud=attempt.baud,
                            bitstream=BITSTREAM, tools=tools, seconds=seconds)
        report = make_report(performance, board, builder.link_cost + board.around, measured)
        _tidy(work, attempt)
        (work / REPORT).write_text(json.dumps(report, indent=2) + "\n")
        (work / "report.txt").write_text(report_text(report) + "\n")
        (work / "plan.json").write_text(replace(plan, board=board.name).to_json())
    return report


def _tidy(work: Path, attempt: Attempt) -> None:
    """Leaves what later steps use, and the logs in a folder of their own."""
    (work / "logs").mkdir()
    keep = {BITSTREAM: BITSTREAM, attempt.synthesis.netlist.name: "netlist.json",
            attempt.routing.asc.with_suffix(".pcf").name: "constraints.pcf"}
    for path in sorted(work.iterdir()):
        if path.suffix == ".log":
            path.rename(work / "logs" / path.name)
        elif path.name in keep:
            path.rename(work / keep[path.name])
        elif path.is_file() and not path.name.startswith("."):
            path.unlink()
