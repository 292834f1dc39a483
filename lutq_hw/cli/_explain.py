"""What ``plan --explain LAYER`` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..network import Network
    from ..plan import Plan
    from ..planning.budget import Budget

TOO_LARGE = 5
"""Candidates that do not fit, of those nearest to the chosen one in speed, that are shown to people."""

RESOURCES = ("cells", "luts", "brams", "dsps", "sprams")


def describe(network: Network, plan: Plan, board: Budget, layer: str, units: Sequence[str] | None,
             goal: str, clock_hz: float | None = None) -> dict[str, Any]:
    """The candidates of ``layer`` as JSON values."""
    from dataclasses import asdict

    from ..planning.layer_table import explain_layer
    found = explain_layer(network, plan, board, layer, units, goal=goal, clock_hz=clock_hz)
    return {
        "model": {"name": network.name, "digest": network.digest}, "board": board.name, "layer": found.layer,
        "frame_cycles": found.cycles,
        "candidates": [{**asdict(row.candidate.plan), "cycles": row.candidate.cycles,
                        **{r: getattr(row.candidate.cost, r) for r in RESOURCES},
                        "chosen": row.chosen, "fits": row.fits, "reason": row.reason} for row in found.rows],
        "absent": [{"kind": kind, "name": name, "reason": reason} for kind, name, reason in found.absent],
    }


def text(d: dict[str, Any]) -> str:
    """Tables for people."""
    from ..table import table
    sprams = any(c["sprams"] for c in d["candidates"])
    large = [n for n, c in enumerate(d["candidates"]) if not c["fits"]]
    hidden = set(large[:-TOO_LARGE])
    rows = []
    for c in (c for n, c in enumerate(d["candidates"]) if n not in hidden):
        layer = "unit" in c
        rows.append([
            "*" if c["chosen"] else "", c["unit"] if layer else "", array_text(c), c.get("index_memory", ""),
            f"{c['output']} x {c['output_lanes']} ({c['output_memory']})" if "output" in c else "",
            c["cycles"], round(c["cells"]), c["brams"], c["dsps"], *([c["sprams"]] if sprams else []), c["reason"]])
    header = ["", "unit", "pe x simd", "indices", "output", "cycles", "cells", "brams", "dsps",
              *(["sprams"] if sprams else []), "why"]
    title = (f"{d['layer']} of {d['model']['name']} on {d['board']}: the candidates that nothing beats in cycles, cells and "
             f"blocks. The plan takes {d['frame_cycles']:,} cycles a frame.")
    if hidden:
        title += f" {len(hidden)} more are faster and do not fit (--json has them)."
    parts = [title, table(header, rows)]
    if d["absent"]:
        rows = [[entry["kind"], entry["name"], entry["reason"]] for entry in d["absent"]]
        parts.append(table(["not among them", "", "why"], rows))
    return "\n\n".join(parts)


def array_text(entry: dict[str, Any]) -> str:
    """``pe x simd`` of a plan's entry, and its ``spread`` and ``terms`` where they are not as usual."""
    if "pe" not in entry:
        return f"{entry.get('channels', 1)} lanes"
    rows = f" ({entry['rows']} rows)" if entry["rows"] > 1 else ""
    spread = f", {entry['spread']} groups at once" if entry["spread"] > 1 else ""
    terms = f", {entry['terms']} terms" if entry["terms"] != "all" else ""
    return f"{entry['pe']} x {entry['channels'] * entry['rows']}{rows}{spread}{terms}"
