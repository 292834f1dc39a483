"""Files of synthesis points: one line a point, written after each, and only measured where something changed.

A point is a dictionary of parameters with the cells that were counted and ``key``, a hash of everything that the count
depends on: the RTLIL of the part, the family's Yosys command and the version of Yosys. A point whose key still agrees is
not measured again, so an interrupted run goes on where it stopped, and after a change of the gateware the same command
measures what the change touched. Points without a key are older than keys; they are measured when asked ``again``.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

from lutq_hw.atomic import write_text
from lutq_hw.errors import ToolError
from lutq_hw.families import ICE40
from lutq_hw.family import Family
from lutq_hw.tools.cells import cells_of
from lutq_hw.tools.runner import Runner

Point = dict[str, Any]

MEASURED = ("luts", "ffs", "brams", "sprams", "dsps", "carries", "ns", "key")
"""What a point holds besides its parameters."""


def folder_of(points: Path, family: Family) -> Path:
    """Where the points of ``family`` are: iCE40's in ``points`` itself, others in a folder of their name."""
    return points if family is ICE40 else points / family.name


def read(path: Path) -> list[Point]:
    """Recorded points; none if there is no file."""
    return json.loads(path.read_text()) if path.exists() else []


def write(path: Path, points: Iterable[Mapping[str, Any]]) -> None:
    """One point to a line; the file is whole at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(point, separators=(",", ":")) for point in points)
    write_text(path, f"[\n{lines}\n]\n")


def parameters(point: Mapping[str, Any]) -> str:
    """What identifies a point: all that is not measured, as text."""
    return json.dumps({name: value for name, value in point.items() if name not in MEASURED}, sort_keys=True)


def text_of(component: Elaboratable) -> str:
    """RTLIL without the places in the source, which are no part of the circuit."""
    return rtlil.convert(component, name="top", emit_src=False)


def key_of(text: str, *how: str) -> str:
    """Hash of what a count depends on."""
    return hashlib.sha256("\n".join((*how, text)).encode()).hexdigest()[:12]


def record(path: Path, family: Family, wanted: Iterable[tuple[Point, Callable[[], Elaboratable]]], *,
           nested: bool = False, again: bool = False, limit_s: float = 600.0) -> int:
    """Measures the ``wanted`` points that are not in the file ``path`` yet, or all of them ``again``.

    Recorded points that are not wanted stay, and stay first come first: a smaller selection loses nothing. A part that
    Yosys cannot do is named on stderr and left out.

    Parameters
    ----------
    wanted
        Parameters, and what makes the part; its ports must be plain signals.
    nested
        Parameters stand in a dictionary ``parameters`` of their own, and carries are recorded too.

    Returns
    -------
    int
        How many were measured.
    """
    runner = Runner(timeout_s=limit_s)
    version = runner.version("yosys")
    known = {parameters(point): point for point in read(path)}
    count = 0
    for given, create in wanted:
        bare: Point = {"parameters": given} if nested else given
        name = parameters(bare)
        old = known.get(name, {})
        if old and "key" not in old and not again:
            continue
        text = text_of(create())
        key = key_of(text, family.synth, version)
        if old.get("key") == key and not again:
            continue
        begin = time.monotonic()
        try:
            with tempfile.TemporaryDirectory() as folder:
                cells = cells_of(text, Path(folder), family, runner=runner)
        except ToolError as error:
            print(f"{family.name} {path.stem}: {name}: left out, {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
            continue
        cost = cells.cost
        known[name] = {**bare, "luts": int(cost.luts), "ffs": int(cost.ffs), "brams": cost.brams, "dsps": cost.dsps,
                       **({"carries": cells.carries} if nested else {}), "key": key}
        count += 1
        write(path, known.values())
        print(f"{family.name} {path.stem} {count}: {cost.luts:.0f} luts, {time.monotonic() - begin:.0f} s",
              file=sys.stderr, flush=True)
    return count
