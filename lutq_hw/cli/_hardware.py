"""Options of the commands that make hardware: board, plan, tools."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..board import Board
    from ..network import Network
    from ..plan import Plan
    from ..tools.runner import Runner


def add_plan(parser: argparse.ArgumentParser) -> None:
    """``--board NAME``, ``--plan FILE`` and ``--fps RATE``."""
    parser.add_argument("--board", metavar="NAME", default="icebreaker",
                        help="board to build for (default: icebreaker)")
    parser.add_argument("--plan", metavar="FILE", type=Path,
                        help="plan to build, as 'plan --output' writes it (default: the fastest plan that fits)")
    parser.add_argument("--fps", metavar="RATE", type=float,
                        help="without --plan: the smallest plan that reaches RATE frames/s")


def check_rate(fps: float | None) -> None:
    """Raise `InputError` for an ``--fps`` that is no rate."""
    from ..errors import InputError
    if fps is not None and not 0 < fps < 1e9:
        raise InputError(f"--fps must be a positive number of frames a second, not {fps:g}")


def load_plan(args: argparse.Namespace, network: Network) -> tuple[Plan, Board]:
    """The plan that the options ask for, and the board.

    Raises
    ------
    InputError
        If the board is unknown or the options contradict each other.
    PlanError
        If the plan's file is wrong, or the network does not fit.
    """
    from ..board import find_board
    from ..errors import InputError
    from ..plan import Plan
    from ..planner import make_plan
    board = find_board(args.board)
    if args.plan is not None and args.fps is not None:
        raise InputError("--fps must not be given together with --plan, which fixes the rate")
    check_rate(args.fps)
    return (make_plan(network, board, fps=args.fps) if args.plan is None else Plan.load(args.plan)), board


def add_tools(parser: argparse.ArgumentParser) -> None:
    """``--tools ORIGIN``."""
    parser.add_argument("--tools", choices=("auto", "wheel", "native"), default="auto",
                        help="where Yosys and nextpnr come from: the YoWASP wheels, native programs, or (auto) what "
                             "the variables YOSYS, NEXTPNR_ICE40 and ICEPACK name, else the wheels, else native ones")


def tool_runner(args: argparse.Namespace) -> Runner:
    """The runner that the options ask for, with progress on the terminal."""
    from ..progress import TextProgress
    from ..tools.runner import Runner
    return Runner(origin=args.tools, progress=TextProgress())
