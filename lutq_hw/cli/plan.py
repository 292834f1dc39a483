"""Choose unit, array size and memories of every layer for a board.

By default the plan is the fastest that fits; with --fps it is the smallest that is fast enough. Saved with --output, it
can be edited and built (build --plan) or looked at again (plan --plan).

  python -m lutq_hw plan --model examples/mnist_cnn.npz --board icebreaker
  python -m lutq_hw plan --model examples/mnist_cnn.npz --fps 5000 --output small.json
  python -m lutq_hw plan --model examples/mnist_cnn.npz --clock 36
  python -m lutq_hw plan --model examples/mnist_cnn.npz --plan small.json
  python -m lutq_hw plan --model examples/mnist_cnn.npz --explain conv2
  python -m lutq_hw plan --model examples/mnist_cnn.npz --pareto plans.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..family import RESOURCES
from . import _explain, _pareto
from ._hardware import check_rate
from ._options import add_json, add_model

if TYPE_CHECKING:
    from ..board import Board
    from ..performance import Performance
    from ..planner import Planned

HELP = "choose the hardware of every layer and say why"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_model(parser)
    parser.add_argument("--board", metavar="NAME", default="icebreaker", help="board to fit (default: icebreaker)")
    parser.add_argument("--fps", metavar="RATE", type=float,
                        help="frames/s to reach with the smallest plan (default: the fastest plan that fits)")
    parser.add_argument("--clock", metavar="MHZ", type=float,
                        help="clock to plan with, and which every part must promise on a full FPGA (default: the board's "
                             "planning clock, or the slower one that a part promises)")
    parser.add_argument("--unit", metavar="NAME", action="append", dest="units",
                        help="a MAC unit that may be used; repeat for more (default: all that can run a layer)")
    parser.add_argument("--plan", metavar="FILE", type=Path, help="show this plan instead of making one")
    parser.add_argument("--output", metavar="FILE", type=Path, help="save the plan as JSON that can be edited")
    parser.add_argument("--explain", metavar="LAYER",
                        help="instead of the plan, show the candidates of one layer and why each was not taken")
    parser.add_argument("--pareto", metavar="FILE", type=Path,
                        help="instead of the plan, show all efficient plans, and draw frames/s against logic cells (.png, "
                             ".svg; .json writes the figures)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Load, plan, print."""
    from ..board import find_board
    from ..errors import InputError
    from ..families import FAMILIES
    from ..modelfile import load
    from ..performance import Performance
    from ..plan import Plan
    from ..planner import find_plan
    check_rate(args.fps)
    if args.explain is not None and args.pareto is not None:
        raise InputError("--explain and --pareto must not be given together; each shows something else")
    if args.pareto is not None:
        _pareto.check_file(args.pareto)
    if args.clock is not None and args.plan:
        raise InputError("--clock must not be given together with --plan, which fixes the hardware")
    network, board = load(args.model), find_board(args.board)
    clock_hz = None if args.clock is None else args.clock * 1e6
    if clock_hz is not None:
        board.require_clock(clock_hz)
    planned = None if args.plan else find_plan(network, board, fps=args.fps, units=args.units, clock_hz=clock_hz)
    plan = Plan.load(args.plan) if planned is None else planned.plan
    if args.explain is not None:
        goal = "fastest" if args.fps is None else "smallest"
        description = _explain.describe(network, plan, board, args.explain, args.units, goal, clock_hz)
        show = _explain.text
    elif args.pareto is not None:
        from ..planner import make_search
        search = planned.search if planned else make_search(network, board, args.units)
        description, show = _pareto.describe(network, plan, board, search), _pareto.text
        _pareto.write(args.pareto, description)
    else:
        performance = Performance(network, plan, FAMILIES[board.family])
        description, show = describe(performance, board, planned, clock_hz), text
    if args.output:
        from ..atomic import write_text
        write_text(args.output, plan.to_json())
    print(json.dumps(description, indent=2) if args.json else show(description))
    return 0


def describe(performance: Performance, board: Board, planned: Planned | None = None,
             clock_hz: float | None = None) -> dict[str, Any]:
    """Everything that the command shows, as JSON values; ``planned`` and ``clock_hz`` if searched for and asked for."""
    from dataclasses import asdict

    from ..joins import AveragePool, Fifo, Join, Requantizer
    from ..pipeline import Layer
    from ..planner import explain
    figures = {f.layer.name: f for f in performance.layers}
    stages = []
    for stage in performance.stages:
        cost = performance.costs[stage.name]
        row: dict[str, Any] = {"name": stage.name, "kind": type(stage).__name__.lower(),
                               "estimated": {r: getattr(cost, r) for r in RESOURCES}}
        if isinstance(stage, Layer):
            found = figures[stage.name]
            row |= asdict(stage.plan) | {"simd": stage.plan.simd, "cycles": found.cycles, "macs": found.macs,
                                         "lane_utilisation": found.lane_utilisation}
        elif isinstance(stage, Join | AveragePool | Requantizer):
            row |= asdict(stage.plan) | {"cycles": stage.interval}
        elif isinstance(stage, Fifo):
            row |= {"depth": stage.depth, "width": stage.input.width, "memory": stage.memory}
        stages.append(row)
    clock = clock_hz or board.plan_clock_hz
    return {
        "model": {"name": performance.network.name, "digest": performance.network.digest},
        "board": board.name, "stages": stages,
        **{r: {"estimated": getattr(performance.cost, r), "available": getattr(board.available, r),
               "capacity": getattr(board.capacity, r)} for r in RESOURCES},
        "cycles_per_frame": performance.cycles_per_frame, "latency_cycles": performance.latency,
        "plan_clock_mhz": clock / 1e6, "frames_per_second": clock / performance.cycles_per_frame,
        "promised_clock": _promise(performance, board),
        "lane_utilisation": performance.lane_utilisation,
        "slowest_layer": performance.slowest_stage,
        "optimality": None if planned is None else {
            "goal": planned.goal, "gap": planned.gap, "optimal": planned.optimal, "sentence": planned.sentence},
        "units": [asdict(verdict) for verdict in explain(performance.network, performance.plan, board)],
    }


def _promise(performance: Performance, board: Board) -> dict[str, Any] | None:
    """The clock that the parts of the plan can promise, and which of them is the slowest; None without measurements."""
    from ..clock import promise
    share = performance.cost.cells / max(1.0, board.available.cells)
    found = promise(performance.stages, performance.family, share)
    if found is None:
        return None
    return {"mhz": found.hz / 1e6, "stage": found.stage, "part": found.part, "unmeasured": list(found.unmeasured),
            "slowdown_seen": found.slowdown_seen, "frames_per_second": found.hz / performance.cycles_per_frame}


def _promise_sentence(found: dict[str, Any] | None, board: str) -> str:
    """The same for people."""
    if found is None:
        return f"No clock is promised: nothing was placed and routed on the family of {board}."
    sentence = (f"Its parts promise {found['mhz']:.1f} MHz (slowest: {found['part']} of {found['stage']}), "
                f"{found['frames_per_second']:,.0f} frames/s")
    if found["unmeasured"]:
        sentence += f"; {', '.join(found['unmeasured'])} estimated from structure only"
    if not found["slowdown_seen"]:
        sentence += "; how much slower a full FPGA is was seen on iCE40 only"
    return sentence + "."


def text(d: dict[str, Any]) -> str:
    """Tables for people."""
    from ..table import table
    rows = []
    for s in d["stages"]:
        cost = s["estimated"]
        array = _explain.array_text(s) if "output" in s else f"{s['depth']} words ({s['memory']})" if "depth" in s else ""
        rows.append([
            s["name"], s.get("unit", s["kind"]), array, s.get("index_memory", ""),
            f"{s['output']} x {s['output_lanes']} ({s['output_memory']})" if "output" in s else "",
            s.get("cycles"), f"{100 * s['lane_utilisation']:.1f} %" if "unit" in s else "",
            round(cost["luts"]), cost["brams"], cost["dsps"]])
    total = ["total", "", "", "", "", d["cycles_per_frame"], f"{100 * d['lane_utilisation']:.1f} %",
             round(d["luts"]["estimated"]), d["brams"]["estimated"], d["dsps"]["estimated"]]
    parts = [table(["stage", "unit", "pe x simd", "indices", "output", "cycles", "lanes busy", "luts", "brams", "dsps"],
                   rows, total)]
    budget = ", ".join(f"{d[r]['available']:,.0f} {r}" for r in ("luts", "brams", "dsps"))
    parts.append(
        f"{d['board']} has {budget} for it. {d['cycles_per_frame']:,} cycles a frame, {d['frames_per_second']:,.0f} "
        f"frames/s at {d['plan_clock_mhz']:g} MHz, latency {d['latency_cycles']:,} cycles; {d['slowest_layer']} is the "
        "slowest layer.\n" + _promise_sentence(d["promised_clock"], d["board"]))
    if d["optimality"]:
        parts[-1] += "\n" + d["optimality"]["sentence"]
    verdicts = [[v["node"], v["unit"], "chosen" if v["chosen"] else "", v["reason"]] for v in d["units"]]
    parts.append(table(["layer", "unit", "", "why"], verdicts))
    return "\n\n".join(parts)
