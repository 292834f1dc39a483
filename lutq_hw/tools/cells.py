"""Cells of a part that is synthesised alone, in any family: what recorded points are."""

from __future__ import annotations

import json
from pathlib import Path

from ..families import ICE40
from ..family import Family
from .runner import Runner
from .yosys import BEFORE, Cells, count_cells, synthesize


def cells_of(rtlil: str, folder: Path, family: Family, *, runner: Runner | None = None) -> Cells:
    """Cells of the module ``top`` in RTLIL text, mapped to ``family`` in ``folder`` (``part.il``, ``.yosys.log``, …).

    Raises
    ------
    ToolError
        If Yosys is missing or fails.
    """
    if family is ICE40:  # a build's own way, with its ladder of options
        return synthesize(rtlil, folder, top="top", name="part", runner=runner).total
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "part.il").write_text(rtlil)
    log = folder / "part.yosys.log"
    script = ["read_rtlil part.il", *BEFORE, family.synth, "flatten", "opt_clean -purge",
              "tee -q -o part.total.json stat -json", "write_json part.json", ""]
    (folder / "part.ys").write_text("\n".join(script))
    (runner or Runner()).run("yosys", ["-q", "-L", log.name, "part.ys"], folder=folder, log=log,
                             stage=f"synthesis for {family.name} (yosys)")
    modules = json.loads((folder / "part.total.json").read_text())["modules"]
    return count_cells(modules["\\top"]["num_cells_by_type"], family)
