"""Loads bitstreams with whatever programmer is installed."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from .board import Board
from .errors import InputError, ToolError

TIMEOUT_S = 120.0


def program(bitstream: Path, board: Board) -> str:
    """Loads ``bitstream`` and returns the name of the program that did it; its output goes to the terminal.

    Raises
    ------
    InputError
        If there is no such file.
    ToolError
        If no programmer is installed, or the one that is fails.
    """
    if not bitstream.is_file():
        raise InputError(f"bitstream {bitstream} must be a file; the build command makes one")
    names = [command[0] for command in board.programmers]
    found = next((command for command in board.programmers if shutil.which(command[0])), None)
    if found is None:
        raise ToolError(f"no programmer for the {board.title} is on PATH ({' or '.join(names)}); "
                        f"{board.programmer_hint}")
    command = [*found, str(bitstream)]
    try:
        code = subprocess.run(command, check=False, timeout=TIMEOUT_S).returncode
    except subprocess.TimeoutExpired:
        raise ToolError(f"{shlex.join(command)} did not end within {TIMEOUT_S:g} s and was stopped") from None
    if code != 0:
        raise ToolError(f"{shlex.join(command)} failed with exit code {code}; check that the {board.title} is plugged "
                        "in and that you may access its USB device")
    return found[0]
