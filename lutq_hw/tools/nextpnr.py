"""Place and route for iCE40, and the bitstream."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ToolError
from .runner import Runner


@dataclass(frozen=True)
class Routing:
    """A placed and routed design."""

    asc: Path
    """The configuration as text, for `pack`."""

    log: Path
    clocks_hz: Mapping[str, float]
    """Highest frequency of each clock net, by nextpnr's name for it."""

    utilisation: Mapping[str, tuple[int, int]]
    """Used and available cells by nextpnr's names: ICESTORM_LC, ICESTORM_RAM, ICESTORM_DSP, ICESTORM_SPRAM, …"""

    seconds: float

    @property
    def clock_hz(self) -> float:
        """Highest frequency of the slowest clock."""
        return min(self.clocks_hz.values())


def place_and_route(netlist: Path, *, pcf: str, freq_hz: float, device: str = "up5k", package: str = "sg48",
                    seed: int = 1, name: str | None = None, runner: Runner | None = None) -> Routing:
    """Places and routes ``netlist`` in its own folder (``NAME.asc``, ``.pcf``, ``.report.json``, ``.nextpnr.log``).

    Missing the clock is no failure: `Routing.clock_hz` says what was reached.

    Parameters
    ----------
    pcf
        Pin constraints, as text; further ``set_frequency`` lines may name clocks.
    freq_hz
        Clock to aim at, for every clock that ``pcf`` does not name.
    name
        Of the files; that of the netlist if None. Runs in parallel need different names.

    Raises
    ------
    ToolError
        If nextpnr is missing or fails (a design that does not fit, for instance).
    """
    runner = runner or Runner()
    folder, name = netlist.parent, name or netlist.stem
    (folder / f"{name}.pcf").write_text(pcf)
    log = folder / f"{name}.nextpnr.log"
    arguments = [f"--{device}", "--package", package, "--json", netlist.name, "--pcf", f"{name}.pcf",
                 "--asc", f"{name}.asc", "--report", f"{name}.report.json", "--freq", f"{freq_hz / 1e6:.3f}",
                 "--seed", str(seed), "--timing-allow-fail", "--pcf-allow-unconstrained", "--quiet", "--log", log.name]
    seconds = runner.run("nextpnr-ice40", arguments, folder=folder, log=log,
                         stage=f"place and route (nextpnr, seed {seed})")
    clocks_hz, utilisation = parse_report(json.loads((folder / f"{name}.report.json").read_text()))
    if not clocks_hz:
        raise ToolError(f"place and route (nextpnr): the design has no clock left; its log is {log}")
    return Routing(asc=folder / f"{name}.asc", log=log, clocks_hz=clocks_hz, utilisation=utilisation, seconds=seconds)


def parse_report(report: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, tuple[int, int]]]:
    """Clocks in Hz and utilisation from nextpnr's ``--report`` file."""
    clocks = {name: float(entry["achieved"]) * 1e6 for name, entry in report.get("fmax", {}).items()}
    cells = report.get("utilization", {})
    cells = {name: (int(entry["used"]), int(entry["available"])) for name, entry in cells.items()}
    return clocks, cells


def overfull(log: Path) -> dict[str, tuple[float, float]]:
    """Cells of which ``log`` says that more are needed than there are: needed and available, by nextpnr's names."""
    lines = re.findall(r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%", log.read_text(errors="replace"), flags=re.MULTILINE)
    return {name: (int(used), int(available)) for name, used, available in lines if int(used) > int(available)}


def pack(routing: Routing, bitstream: Path, *, runner: Runner | None = None) -> None:
    """Writes ``bitstream`` (in the folder of ``routing``) from a routed design."""
    runner = runner or Runner()
    folder = routing.asc.parent
    runner.run("icepack", [routing.asc.name, bitstream.name], folder=folder,
               log=folder / f"{routing.asc.stem}.icepack.log", stage="bitstream (icepack)")
