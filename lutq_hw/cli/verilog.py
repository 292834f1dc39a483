"""Write portable Verilog: the accelerator with its weights in $readmemh side files, for any FPGA or ASIC flow.

The folder holds lutq_accelerator.v, one .hex file per table, manifest.json (ports, stream formats, files), files.f (a
file list for simulators) and plan.json. The accelerator has two streams: a word moves at a rising edge of clk where
valid and ready are both high. Run tools in the folder, where they find the .hex files.

  python -m lutq_hw verilog --model examples/mnist_cnn.npz --output out
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ._hardware import add_plan, add_tools, load_plan, tool_runner
from ._options import add_json, add_model

HELP = "write portable Verilog"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_model(parser)
    add_plan(parser)
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder to write")
    add_tools(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Load, write, say what was written."""
    from ..emit import write_accelerator
    from ..modelfile import load
    network = load(args.model)
    plan, _ = load_plan(args, network)
    manifest = write_accelerator(network, plan, args.output, runner=tool_runner(args))
    if args.json:
        print(json.dumps(manifest, indent=2))
    else:
        print(f"{args.output}: {manifest['top']}.v and {len(manifest['tables'])} tables")
    return 0
