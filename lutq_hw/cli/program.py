"""Load a bitstream into a board.

  python -m lutq_hw program --build build/mnist
  python -m lutq_hw program --bitstream design.bin --board icebreaker
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "load a bitstream into a board"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--build", metavar="DIR", type=Path, help="folder that 'build' wrote")
    source.add_argument("--bitstream", metavar="FILE", type=Path, help="a bitstream")
    parser.add_argument("--board", metavar="NAME",
                        help="board (default: that of --build, or icebreaker for --bitstream)")


def run(args: argparse.Namespace) -> int:
    """Find the bitstream and a programmer, load."""
    import json

    from ..board import find_board
    from ..errors import InputError
    from ..program import program
    bitstream, board = args.bitstream, args.board
    if args.build is not None:
        try:
            report = json.loads((args.build / "report.json").read_text())
            bitstream, board = args.build / report["bitstream"], board or report["board"]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"build folder {args.build} must hold the report.json of a finished build; "
                             "run the build command first") from None
    programmer = program(bitstream, find_board(board or "icebreaker"))
    print(f"loaded {bitstream} with {programmer}")
    return 0
