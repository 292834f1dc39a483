"""Build a bitstream: synthesis, place and route, the fastest clock that closes, and a report of what came out.

The output folder holds design.bin, report.json, report.txt, plan.json, the netlist and the tools' logs. It appears only
when all went well; otherwise the logs are in OUTPUT.partial.

  python -m lutq_hw build --model examples/mnist_cnn.npz --output build/mnist
  python -m lutq_hw build --model trained.npz --plan edited.json --clock 24 --output build/slow
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ._hardware import add_plan, add_tools, load_plan, tool_runner
from ._options import add_json, add_model, positive

HELP = "build a bitstream and a report"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_model(parser)
    add_plan(parser)
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder to write")
    parser.add_argument("--clock", metavar="MHZ", type=float,
                        help="clock to build for (default: the fastest that place and route closes)")
    parser.add_argument("--seeds", metavar="N", type=positive, default=4,
                        help="placements to try at each clock (default: 4)")
    add_tools(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Load, build, print the report."""
    from ..build import build
    from ..modelfile import load
    from ..report import report_text
    network = load(args.model)
    plan, board = load_plan(args, network)
    report = build(network, plan, board, args.output, clock_hz=None if args.clock is None else args.clock * 1e6,
                   seeds=range(1, args.seeds + 1), runner=tool_runner(args))
    print(json.dumps(report, indent=2) if args.json else report_text(report))
    return 0
