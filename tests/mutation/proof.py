# amaranth: UnusedElaboratable=no
"""Proof that a change makes no difference: both designs side by side, equal outputs for ever.

The designs are compared as their neighbours see them: what is offered stays offered until it is taken, payloads are looked
at while they are valid only, and only codes that can occur come in. Reset may come at any time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from amaranth import Module, Mux, Signal, Value
from amaranth.back import rtlil
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lutq_hw.tools.runner import Runner

from .operators import Mutant
from .swap import swapped

if TYPE_CHECKING:
    from .targets import Check

SECONDS = 180
"""Limit of the solver."""

SOLVE = ("write_blif,any.blif;read_aiger,miter.aig;fold;scorr;"
         f"pdr,-T,{SECONDS},-d,-I,proof.pla;write_aiger,left.aig;read_blif,any.blif")
SCRIPT = f"""
read_rtlil gold.il
read_rtlil gate.il
rename -hide */w:*[*]*
setattr -mod -unset top *
proc
flatten
memory_map
opt -full
miter -equiv -flatten -make_assert gold gate miter
hierarchy -top miter
opt -full
async2sync
simplemap
techmap
opt -fast
setundef -anyseq
dffunmap
dfflegalize -cell $_DFF_P_ 01 -mince 0 -minsrst 0
aigmap
clean
write_aiger -zinit miter.aig
design -reset
read_rtlil any.il
abc -script +{SOLVE}
"""
"""ABC finds registers and signals of the two designs that are equal, by induction (scorr), and proves what is left by
property-directed reachability (pdr). What it prints is lost in YoWASP, so that its files say how it went; it is made for
logic, and needs some of it (``any``) to begin and to end with."""

ANY = """
module \\any
  wire input 1 \\a
  wire input 2 \\b
  wire output 3 \\c
  cell $_AND_ \\x
    connect \\A \\a
    connect \\B \\b
    connect \\Y \\c
  end
end
"""


class Observed(wiring.Component):
    """A component with well-behaved neighbours."""

    def __init__(self, dut: Any, legal: Any):
        self.dut, self.legal = dut, legal
        super().__init__({"offer": In(1), "data": In(len(Value.cast(dut.i.payload))), "take": In(1), "ready": Out(1),
                          "valid": Out(1), "result": Out(len(Value.cast(dut.o.payload)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.dut = dut = self.dut
        waits, saved = Signal(), Signal(len(self.data))
        payload = Mux(waits, saved, self.legal(self.data) if self.legal else self.data)
        m.d.comb += [
            dut.i.valid.eq(waits | self.offer), Value.cast(dut.i.payload).eq(payload), dut.o.ready.eq(self.take),
            self.ready.eq(dut.i.ready), self.valid.eq(dut.o.valid),
            self.result.eq(Mux(dut.o.valid, Value.cast(dut.o.payload).as_unsigned(), 0)),
        ]
        m.d.sync += [waits.eq(dut.i.valid & ~dut.i.ready), saved.eq(payload)]
        return m


def equivalent(check: Check, module: ModuleType, mutant: Mutant) -> bool:
    """Whether the hardware of ``check`` is proved to behave the same with and without the change."""
    legal = getattr(check, "legal", None)
    gold = rtlil.convert(Observed(check.build(), legal), name="gold", emit_src=False)
    with swapped(module, mutant):
        gate = rtlil.convert(Observed(check.build(), legal), name="gate", emit_src=False)
    with tempfile.TemporaryDirectory() as name:
        return proved(gold, gate, Path(name))


def proved(gold: str, gate: str, folder: Path) -> bool:
    """Whether two designs in RTLIL, ``gold`` and ``gate``, always have the same outputs, from power-up on."""
    for file, text in (("gold.il", gold), ("gate.il", gate), ("any.il", ANY), ("equal.ys", SCRIPT)):
        (folder / file).write_text(text)
    log = folder / "equal.log"
    Runner().run("yosys", ["-q", "-l", log.name, "equal.ys"], folder=folder, log=log, stage="equivalence (yosys)")
    invariant = folder / "proof.pla"
    if invariant.exists() and "Inductive invariant" in invariant.read_text():
        return True
    return only_zeros((folder / "left.aig").read_bytes())


def only_zeros(aiger: bytes) -> bool:
    """Whether nothing is left of a design but outputs that are constantly 0."""
    header, *lines = aiger.split(b"\n")
    _, _, _, latches, outputs, gates = header.split()[:6]
    return int(latches) == int(gates) == 0 and lines[:int(outputs)] == [b"0"] * int(outputs)
