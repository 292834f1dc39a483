"""Synthesis for iCE40, with exact cell counts of the modules that are named."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cost import Cost
from ..errors import ToolError
from ..families import ICE40
from ..family import Family
from .runner import RunError, Runner

SHRUNK = 0.6
"""A layer with fewer than this share of its estimated luts has lost logic: estimates are within 15 % otherwise."""

SLACK_LUTS = 16
"""What an estimate may be off besides: gearboxes of a dozen luts are priced coarsely."""


@dataclass(frozen=True)
class Cells:
    """Cells of one module, those of its kept submodules not included."""

    cost: Cost
    carries: int
    types: Mapping[str, int]
    """Number of cells of each type, as Yosys names it."""


@dataclass(frozen=True)
class Synthesis:
    """A netlist of iCE40 cells."""

    netlist: Path
    """One flat module as Yosys JSON: what nextpnr reads."""

    log: Path
    modules: Mapping[str, Cells]
    """The kept modules and the top, by name; the top holds what is in no kept module."""

    total: Cells
    options: tuple[str, ...]
    """Options of ``synth_ice40`` that went through in the end."""

    seconds: float


def synthesize(rtlil: str, folder: Path, *, top: str, keep: Sequence[str] = (), dsp: bool = True, dff: bool = False,
               device: str = "u", name: str = "design", runner: Runner | None = None) -> Synthesis:
    """Turns RTLIL text into a flat netlist of iCE40 cells in ``folder`` (``NAME.il``, ``.json``, ``.yosys.log``, …).

    When Yosys dies it is run again the plainer ways of `LADDER`, and the progress says so.

    Parameters
    ----------
    top
        Name of the top module.
    keep
        Modules whose cells are counted apart. Each keeps its border while everything inside is flattened and
        optimised; the borders are dissolved afterwards. Nothing is optimised across them, so counts are exact and add
        up to the total.
    dsp
        Multiplications become SB_MAC16.
    dff
        Option of ``synth_ice40``: optimise across registers. About 10 % fewer luts, for 10 to 20 % of the clock and
        twice the time, and ABC recurses deeply.
    device
        Whose delays ABC optimises for: ``hx``, ``lp`` or ``u`` (UltraPlus).

    Raises
    ------
    ToolError
        If Yosys is missing, or fails in the plainest way too.
    """
    runner = runner or Runner()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.il").write_text(_keep_hierarchy(rtlil, keep))
    log = folder / f"{name}.yosys.log"
    common = (*(["-dsp"] if dsp else []), "-device", device)
    stage, seconds = "synthesis (yosys)", 0.0
    ways = list(LADDER if dff else LADDER[1:])
    while True:
        way = ways.pop(0)
        (folder / f"{name}.ys").write_text(_script(name, top, common, way))
        try:
            seconds += runner.run("yosys", ["-q", "-L", log.name, f"{name}.ys"], folder=folder, log=log, stage=stage)
            break
        except RunError as error:
            if not ways or error.exit_code is None:
                raise
            log.replace(folder / f"{name}.yosys.failed{way}.log")
            what = f"synth_ice40 {way}".strip()
            stage = f"synthesis (yosys) again, since {what} failed with exit code {error.exit_code}"
    modules, flat = (_read_cells(folder / f"{name}.{what}.json") for what in ("modules", "total"))
    return Synthesis(netlist=folder / f"{name}.json", log=log, modules={key: modules[key] for key in (*keep, top)},
                     total=flat[top], options=(*common, way), seconds=seconds)


LADDER = ("-dff", "", "-abc")
"""Options from the most ambitious to the plainest: across registers; ABC9; the older ABC, which knows no delays."""


BEFORE = (
    # Alias wires such as \o__payload[0] make ABC9 fail on an assertion (YosysHQ/yosys#4349).
    "rename -hide */w:*[*]*",
    # Rule of every memory here: an address is never read in the cycle that writes it. Without this line Yosys would
    # build the bypass that Amaranth's "old data" asks for, about 1.5 luts for each bit of the memory word.
    "setparam -set COLLISION_X_MASK 1'1 */t:$memrd_v2 */r:CLK_ENABLE=1 %i",
)
"""Yosys commands between reading and mapping, in every family."""


def _script(name: str, top: str, options: Sequence[str], way: str) -> str:
    """Yosys commands. Statistics go to files: YoWASP's standard output is lost once ABC has run."""
    synth = f"synth_ice40 -top {top} {' '.join(options)}"
    older = [  # what synth_ice40 did before it had ABC9
        f"{synth} -run begin:map_luts",
        "techmap -map +/ice40/latches_map.v",
        "abc -dress -lut 4",
        "ice40_wrapcarry -unwrap",
        "techmap -map +/ice40/ff_map.v",
        "clean",
        "opt_lut -tech ice40",
        f"{synth} -run map_cells:",
    ]
    return "\n".join([
        f"read_rtlil {name}.il",
        *BEFORE,
        *(older if way == "-abc" else [f"{synth} {way}"]),
        f"tee -q -o {name}.modules.json stat -json",
        "setattr -mod -unset keep_hierarchy *",
        "flatten",
        "opt_clean -purge",
        f"tee -q -o {name}.total.json stat -json",
        f"write_json {name}.json",
        "",
    ])


def _keep_hierarchy(rtlil: str, keep: Sequence[str]) -> str:
    """``rtlil`` with the attribute in front of each module of ``keep``.

    Done in the text because names then need no escaping for Yosys' patterns.
    """
    for module in keep:
        line = rf"^module \\{re.escape(module)}$"
        marked = "attribute \\\\keep_hierarchy 1\n\\g<0>"
        rtlil, count = re.subn(line, marked, rtlil, flags=re.MULTILINE)
        if count != 1:
            raise ValueError(f"Module to keep must exist, not {module!r}")
    return rtlil


def _read_cells(path: Path) -> dict[str, Cells]:
    """Cells of every module in a file of ``stat -json``."""
    modules: dict[str, Any] = json.loads(path.read_text())["modules"]
    return {key.removeprefix("\\"): count_cells(value["num_cells_by_type"]) for key, value in modules.items()}


def count_cells(types: Mapping[str, int], family: Family = ICE40) -> Cells:
    """Price of cells of ``family``, given how many there are of each type."""
    return Cells(cost=Cost(**family.count(types)), carries=family.carries(types), types=dict(types))


def check_shrink(estimated: Mapping[str, Cost], measured: Mapping[str, Cost]) -> None:
    """Refuses a netlist that lost something on the way: a ROM read as zero, logic found constant.

    Parameters
    ----------
    estimated, measured
        Cost of each layer, by the same names.

    Raises
    ------
    ToolError
        If blocks (brams, sprams, dsps) differ from the estimate at all, or luts fall below `SHRUNK` of it.
    """
    for layer, expected in estimated.items():
        found = measured[layer]
        for kind in ("brams", "sprams", "dsps"):
            planned, left = getattr(expected, kind), getattr(found, kind)
            if left != planned:
                raise ToolError(f"layer {layer}: synthesis left {left} {kind} where {planned} were planned; a memory "
                                "or a multiplier was optimised away or mapped differently, see the log of Yosys")
        if found.luts + SLACK_LUTS < SHRUNK * expected.luts:
            raise ToolError(f"layer {layer}: synthesis left {found.luts:.0f} luts where about {expected.luts:.0f} were "
                            "planned; logic was optimised away (a table read as zero, an output unused), see the log "
                            "of Yosys")


def check_contents(rtlil: str, netlist: Path) -> None:
    """Refuses a netlist in which a memory in block RAM lost its contents.

    Parameters
    ----------
    rtlil, netlist
        What went into `synthesize`, and what came out.

    Raises
    ------
    ToolError
        If a memory has bits set in ``rtlil`` while its block RAMs hold nothing but zeros.
    """
    left: dict[str, int] = {}
    (module,) = (m for m in json.loads(netlist.read_text())["modules"].values() if "cells" in m and m["cells"]
                 and not m.get("attributes", {}).get("blackbox"))
    for name, cell in module["cells"].items():
        if cell["type"].startswith("SB_RAM40_4K"):
            memory = re.sub(r"\.\d+\.\d+$", "", name)
            inits = (value for key, value in cell["parameters"].items() if key.startswith("INIT_"))
            left[memory] = left.get(memory, 0) + sum(value.count("1") for value in inits)
    for memory, ones in _initial_ones(rtlil).items():
        if ones and left.get(memory) == 0:
            raise ToolError(f"memory {memory}: synthesis left only zeros where {ones} bits were set; "
                            "its contents were lost, see the log of Yosys")


def _initial_ones(rtlil: str) -> dict[str, int]:
    """Bits set in the initial contents of every memory, by its name in the flat netlist."""
    ones: dict[str, int] = {}
    path = memory = ""
    for line in rtlil.splitlines():
        if line.startswith("module "):
            path = line[8:].partition(".")[2]
        elif line.startswith("    parameter \\MEMID"):
            memory = line.split('"')[1].lstrip("\\")
        elif line.startswith("    connect \\DATA ") and "'" in line:
            ones[f"{path}.{memory}".lstrip(".")] = line.partition("'")[2].count("1")
    return ones


def parameter_changes(old: str, new: str) -> dict[tuple[str, str], str] | None:
    """Cell parameters in which two RTLIL texts differ, ``(type, parameter) -> new bits``; None if more differs.

    Then synthesis would give the same netlist apart from these: a PLL's dividers, for instance.
    """
    before, after = old.splitlines(), new.splitlines()
    if len(before) != len(after):
        return None
    changes: dict[tuple[str, str], str] = {}
    kind = ""
    for a, b in zip(before, after, strict=True):
        if b.startswith("  cell \\"):
            kind = b.split()[1].lstrip("\\")
        if a != b:
            found = [re.fullmatch(r"    parameter (\\\w+) \d+'([01]+)", line) for line in (a, b)]
            if found[0] is None or found[1] is None or found[0][1] != found[1][1] or not kind.startswith("SB_"):
                return None
            changes[kind, found[1][1].lstrip("\\")] = found[1][2]
    return changes


def change_parameters(netlist: Path, changes: Mapping[tuple[str, str], str]) -> None:
    """Applies `parameter_changes` to a netlist, whose only cell of each such type they are for."""
    design = json.loads(netlist.read_text())
    for (kind, parameter), bits in changes.items():
        (cell,) = (cell for module in design["modules"].values() for cell in module.get("cells", {}).values()
                   if cell["type"] == kind)
        cell["parameters"][parameter] = bits
    netlist.write_text(json.dumps(design))
