"""Amaranth components as RTLIL and as portable Verilog with ``$readmemh`` side files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.lib import wiring

from . import __version__
from .errors import ToolError
from .flow import check_flow
from .folder import whole_folder
from .gateware.accelerator import Accelerator
from .network import Network
from .plan import Plan
from .streams import StreamFormat
from .tools.runner import Runner

LINT = ("WIDTHEXPAND", "WIDTHTRUNC", "CASEINCOMPLETE", "UNUSEDSIGNAL", "DECLFILENAME", "UNOPTFLAT")
"""What Verilator says about generated Verilog: widths are right by construction, names are those of the hierarchy."""


def rtlil_text(component: wiring.Component, name: str = "top") -> str:
    """``component`` as RTLIL with the top module ``name``."""
    return rtlil.convert(component, name=name, emit_src=False)


def write_verilog(component: wiring.Component, folder: Path, *, name: str, runner: Runner | None = None) -> list[Path]:
    """Writes ``NAME.v`` and a ``.hex`` file for each read-only table into ``folder``; the Verilog is first in the list.

    Verilog-2005 that Verilator, Icarus and Yosys read. Registers have no initial values: hold ``rst`` for one cycle
    before use. Memories that are written start undefined. The hex files are found relative to where a tool is started.

    Raises
    ------
    ToolError
        If Yosys is missing or fails.
    """
    runner = runner or Runner()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.il").write_text(_plain_modules(rtlil_text(component, name)))
    dropped = " ".join(f"-remove {a}" for a in ("src", "generator", "amaranth.hierarchy", "amaranth.decoding", "init"))
    script = [f"read_rtlil {name}.il", "proc -nomux -norom", "memory_collect", f"attrmap {dropped}",
              f"attrmap -modattr {dropped} -remove top", f"write_verilog -norename -extmem {name}.v"]
    (folder / f"{name}.ys").write_text("\n".join(script) + "\n")
    log = folder / f"{name}.yosys.log"
    runner.run("yosys", ["-q", "-L", log.name, f"{name}.ys"], folder=folder, log=log, stage="Verilog (yosys)")
    files = _tables(folder, name)
    for left in (f"{name}.il", f"{name}.ys", log.name):
        (folder / left).unlink()
    return files


def write_accelerator(network: Network, plan: Plan, output: Path, *, name: str = "lutq_accelerator",
                      runner: Runner | None = None) -> dict[str, Any]:
    """Writes the accelerator into the folder ``output`` and returns the contents of its ``manifest.json``.

    Raises
    ------
    PlanError, ToolError
        As `Accelerator` and `write_verilog` do.
    InputError
        If ``output`` holds other files.
    """
    check_flow(network, plan)
    with whole_folder(output, marker="manifest.json") as work:
        accelerator = Accelerator(network, plan)
        verilog, *tables = write_verilog(accelerator, work, name=name, runner=runner)
        manifest = {
            "format": "lutq verilog", "version": 1, "top": name,
            "model": {"name": network.name, "digest": network.digest},
            "clock": "clk", "reset": "rst, synchronous, active high, at least one cycle before use",
            "input": {"stream": "i", **_format(accelerator.input_format)},
            "output": {"stream": "o", **_format(accelerator.output_format)},
            "ports": {"i": ["i__payload", "i__valid", "i__ready"], "o": ["o__payload", "o__valid", "o__ready"]},
            "sources": [verilog.name], "tables": [path.name for path in tables],
        }
        (work / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        (work / "files.f").write_text(f"{verilog.name}\n")
        (work / "plan.json").write_text(plan.to_json())
    return manifest


def _format(form: StreamFormat) -> dict[str, Any]:
    """A stream's format: channel last, lane 0 in the low bits."""
    return {"shape": list(form.type.shape), "bits": form.type.bits, "signed": form.type.signed, "lanes": form.lanes,
            "width": form.width, "words": form.words}


def _plain_modules(text: str) -> str:
    """RTLIL with ``top__a__b`` for ``top.a.b``, so that module names need no escapes in Verilog."""
    names: dict[str, str] = {}
    for name in re.findall(r"^module \\([\w.$]+)$", text, flags=re.MULTILINE):
        plain = re.sub(r"\W", "_", name.replace(".", "__"))
        while plain in names.values():  # a.b and a__b
            plain += "_"
        names[name] = plain
    return re.sub(r"^((?:module|  cell) \\)([\w.$]+)", lambda found: found[1] + names.get(found[2], found[2]), text,
                  flags=re.MULTILINE)


def _tables(folder: Path, name: str) -> list[Path]:
    """Replaces Yosys' numbered binary side files by named hexadecimal ones, none for memories that are written."""
    text = (folder / f"{name}.v").read_text()
    files = [folder / f"{name}.v"]
    parts = re.split(r"^(?=module )", text, flags=re.MULTILINE)
    for i, part in enumerate(parts):
        module = re.match(r"module \\?(\S+?) ?\(", part)
        for found in re.finditer(r'^  initial \$readmemb\("([^"]+)", (\\\S+ |\w+)\);\n', part, flags=re.MULTILINE):
            numbered, memory = folder / found[1], found[2]
            assert module is not None
            written = re.search(rf"^ *{re.escape(memory)} ?\[.*<=", part, flags=re.MULTILINE)
            if written:
                line = ""
            else:
                stem = re.sub(r"\W", "_", module[1].removeprefix(f"{name}__") + "_" + memory.strip("\\ "))
                path = folder / f"{stem}.hex"
                if path in files:
                    raise ToolError(f"Verilog: two tables would have the name {path.name}")
                path.write_text(_hexadecimal(numbered.read_text()))
                files.append(path)
                line = f'  initial $readmemh("{path.name}", {memory});\n'
                # Counted upwards, or Icarus wonders which end the file begins at.
                declared = rf"^(  reg .*{re.escape(memory)} ?)\[(\d+):0\];$"
                parts[i] = re.sub(declared, r"\1[0:\2];", parts[i], flags=re.MULTILINE)
            parts[i] = parts[i].replace(found[0], line)
            numbered.unlink()
    parts[0] = f"/* Generated by lutq {__version__}. */\n"  # was Yosys'
    parts[0] += "".join(f"/* verilator lint_off {kind} */\n" for kind in LINT)
    (folder / f"{name}.v").write_text("".join(parts))
    return files


def _hexadecimal(binary: str) -> str:
    """Lines of binary digits (x where undefined) as lines of hexadecimal ones."""
    lines = binary.split()
    width = max(map(len, lines), default=0)
    digits = -(-width // 4)
    return "".join(f"{int(line.replace('x', '0'), 2):0{digits}x}\n" for line in lines)
