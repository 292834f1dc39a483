"""What ``plan --pareto FILE`` shows and draws: frames per second against logic cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..network import Network
    from ..plan import Plan
    from ..planning.budget import Budget
    from ..planning.search import Search

KINDS = (".png", ".svg", ".json")

BLUE, GREY, RED = "#1f77b4", "#9a9a9a", "#d62728"

STYLE: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "lutq",
                         "svg.fonttype": "none"}


def check_file(file: Path) -> None:
    """Raise `InputError` before the work is done if the result cannot be written."""
    if file.suffix not in KINDS:
        raise InputError(f"--pareto must name a file ending in {', '.join(KINDS)}, not {str(file)!r}")
    if not file.absolute().parent.is_dir():
        raise InputError(f"--pareto must name a file in a folder that exists, not {str(file)!r}")
    if file.suffix != ".json":
        _matplotlib()


def describe(network: Network, plan: Plan, board: Budget, search: Search) -> dict[str, Any]:
    """All efficient plans, the given plan and what the board has, as JSON values."""
    from ..planning.front import Point, front, point
    from ..planning.layer_table import chosen_by
    from ..planning.parts import Target

    clock_hz = 1e9 / search.period_ns

    def values(p: Point) -> dict[str, Any]:
        return {"cycles": p.cycles, "frames_per_second": clock_hz / p.cycles, "cells": p.cost.cells,
                "luts": p.cost.luts, "brams": p.cost.brams, "dsps": p.cost.dsps, "sprams": p.cost.sprams, "fits": p.fits}

    mine = point(search, chosen_by(network, plan, Target.of(board)))
    available = {r: getattr(board.available, r) for r in ("cells", "brams", "dsps", "sprams")}
    return {"model": {"name": network.name, "digest": network.digest}, "board": board.name, "title": board.title,
            "plan_clock_mhz": clock_hz / 1e6, "available": available,
            "chosen": values(mine), "plans": [values(p) for p in front(search, mine)]}


def text(d: dict[str, Any]) -> str:
    """The same as a table."""
    from ..table import table
    sprams = d["available"]["sprams"] > 0 and any(p["sprams"] for p in [d["chosen"], *d["plans"]])
    rows = [*(("", p) for p in d["plans"] if p != d["chosen"]), ("chosen", d["chosen"])]
    rows.sort(key=lambda row: (row[1]["cycles"], row[1]["cells"]))
    cells = [[p["cycles"], round(p["frames_per_second"]), round(p["cells"]), round(p["luts"]), p["brams"], p["dsps"],
              *([p["sprams"]] if sprams else []), "yes" if p["fits"] else "no", mark] for mark, p in rows]
    header = ["cycles", "frames/s", "cells", "luts", "brams", "dsps", *(["sprams"] if sprams else []), "fits", ""]
    a = d["available"]
    return (f"Plans of {d['model']['name']} that no other one beats in both speed and logic cells, with the blocks of the "
            f"{d['title']}.\nIt has {a['cells']:,.0f} logic cells, {a['brams']} brams and {a['dsps']} dsps for them; "
            f"frames/s at {d['plan_clock_mhz']:g} MHz.\n\n{table(header, cells)}")


def write(file: Path, d: dict[str, Any]) -> None:
    """Draws ``d`` (.png, .svg), or writes it as it is (.json)."""
    import io
    import json

    from ..atomic import write_bytes, write_text
    if file.suffix == ".json":
        write_text(file, json.dumps(d, indent=2) + "\n")
        return
    with _matplotlib().rc_context(STYLE):
        buffer = io.BytesIO()
        metadata = {"Date": None} if file.suffix == ".svg" else None  # the same plans give the same file
        _figure(d).savefig(buffer, format=file.suffix[1:], metadata=metadata)
    write_bytes(file, buffer.getvalue())


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise InputError("--pareto draws with the package matplotlib, which is not installed; install it with: "
                         "pip install 'lutq[plot]', or name a file ending in .json") from None
    return matplotlib


def _figure(d: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure
    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=150)
    axes = figure.subplots()
    plans, chosen = d["plans"], d["chosen"]
    axes.plot([p["cells"] for p in plans], [p["frames_per_second"] for p in plans], color=GREY, linewidth=0.8, zorder=1)
    for fits, fill, edge, label in ((True, BLUE, BLUE, "efficient plans that fit"),
                                    (False, "white", GREY, "efficient plans that do not")):
        some = [p for p in plans if p["fits"] == fits]
        if some:
            axes.scatter([p["cells"] for p in some], [p["frames_per_second"] for p in some], s=22, color=fill,
                         edgecolors=edge, label=label, zorder=2)
    axes.axvline(d["available"]["cells"], color=GREY, linestyle="--", linewidth=1, label=f"available on the {d['title']}")
    axes.scatter([chosen["cells"]], [chosen["frames_per_second"]], marker="*", s=160, color=RED, zorder=3,
                 label=f"the plan: {chosen['frames_per_second']:,.0f} frames/s, {chosen['cells']:,.0f} logic cells")
    axes.set(xscale="log", yscale="log", xlabel="logic cells", ylabel=f"frames per second at {d['plan_clock_mhz']:g} MHz",
             title=f"{d['model']['name']} on {d['board']}")
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False, fontsize=8)
    return figure
