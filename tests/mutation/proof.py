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

from .drive import streams
from .operators import Mutant
from .swap import swapped

if TYPE_CHECKING:
    from .targets import Check

SECONDS = 180
"""Limit of the solver."""

SOLVE = ("write_blif,any.blif;read_aiger,miter.aig;fold;scorr;scorr,-F,2;scorr,-F,4;scorr,-F,8;"
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
"""ABC finds registers and signals of the two designs that are equal, by induction over one cycle, two, four and eight
(scorr), and proves what is left by property-directed reachability (pdr). Memories need more than one cycle: a word of the one
is that of the other because both were written alike, which they were because of what was read before. What ABC prints is
lost in YoWASP, so that its files say how it went; it is made for logic, and needs some (``any``) to begin and end with."""

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
        members: dict[str, wiring.Member] = {}
        for n, i in enumerate(streams(dut, "i")):
            members |= {f"offer{n}": In(1), f"data{n}": In(len(Value.cast(i.payload))), f"ready{n}": Out(1)}
        for n, o in enumerate(streams(dut, "o")):
            members |= {f"take{n}": In(1), f"valid{n}": Out(1), f"result{n}": Out(len(Value.cast(o.payload)))}
        super().__init__(members)

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.dut = dut = self.dut
        for n, i in enumerate(streams(dut, "i")):
            data = getattr(self, f"data{n}")
            waits, saved = Signal(name=f"waits{n}"), Signal(len(data), name=f"saved{n}")
            if self.legal:
                data = self.legal(m, data, i.valid & i.ready)
            payload = Mux(waits, saved, data)
            m.d.comb += [i.valid.eq(waits | getattr(self, f"offer{n}")), Value.cast(i.payload).eq(payload),
                         getattr(self, f"ready{n}").eq(i.ready)]
            m.d.sync += [waits.eq(i.valid & ~i.ready), saved.eq(payload)]
        for n, o in enumerate(streams(dut, "o")):
            m.d.comb += [o.ready.eq(getattr(self, f"take{n}")), getattr(self, f"valid{n}").eq(o.valid),
                         getattr(self, f"result{n}").eq(Mux(o.valid, Value.cast(o.payload).as_unsigned(), 0))]
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
