"""What a board is, and finding them: one file in ``boards/`` (``lutq_hw.boards``) per board, with an object ``BOARD``.

Planning needs only the plain values; the vendor's platform and the gateware are made when asked for.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cost import Cost
from .errors import InputError, ToolError

if TYPE_CHECKING:
    from amaranth.hdl import Elaboratable

    from .gateware.system import System


class Board(ABC):
    """An FPGA board: values, and how to put a `gateware.system.System` on it."""

    name: str
    """Word on the command line; that of the file."""

    title: str
    """Name for people."""

    family: str
    """``ice40``; which tools build for it."""

    device: str
    package: str
    """As nextpnr's options have them."""

    capacity: Cost
    """All cells of the FPGA."""

    reserved: Cost
    """What an accelerator may not have: host link, display, and luts that routing needs free."""

    around: Cost
    """What the board's own gateware takes, of ``reserved``: clock, reset, result display."""

    plan_clock_hz: float
    """Clock that rates are planned with, before place and route has had its word; also where `build` begins."""

    clock_range_hz: tuple[float, float]
    """Slowest and fastest clock that the board can make."""

    max_baud: int
    """Fastest rate of the board's serial converter."""

    ftdi: bool
    """Whether that is an FT2232H or similar, which makes rates between the usual ones too."""

    programmers: tuple[tuple[str, ...], ...]
    """Commands that load a bitstream, best first; the path of the file comes behind each."""

    programmer_hint: str
    """How to get one of them, as the second half of a sentence."""

    @property
    def available(self) -> Cost:
        """What an accelerator may use.

        Logic cells are what counts, and flip-flops share those of luts as `Cost.cells` says: so its luts are the logic
        cells left, and its flip-flops none besides.
        """
        left = self.capacity + self.reserved * -1
        return left._replace(luts=self.capacity.luts - self.reserved.cells, ffs=0)

    def require_clock(self, hz: float) -> None:
        """Raise `InputError` if the board cannot make a clock of ``hz``."""
        low, high = self.clock_range_hz
        if not low <= hz <= high:
            raise InputError(f"clock must be {low / 1e6:.4g} to {high / 1e6:.4g} MHz on the {self.title}, "
                             f"not {hz / 1e6:g} MHz")

    @abstractmethod
    def clock_at_most(self, hz: float) -> float:
        """The fastest clock up to ``hz`` that the board can make; `clock_range_hz` bounds it."""

    @abstractmethod
    def platform(self) -> Any:
        """A fresh platform of amaranth-boards, with whatever this project plugs in."""

    @abstractmethod
    def create(self, system: System, clock_hz: float) -> Elaboratable:
        """``system`` on the board: clock, reset, pins, result display. ``clock_hz`` comes from `clock_at_most`."""


def require_boards_package() -> None:
    """Raise `ToolError` if amaranth-boards is missing."""
    if importlib.util.find_spec("amaranth_boards") is None:
        raise ToolError("amaranth-boards is not installed; run: pip install 'lutq[build]'")


@functools.cache
def board_names() -> tuple[str, ...]:
    """Names of all boards: the files of the folder."""
    return tuple(sorted(path.stem for path in (Path(__file__).parent / "boards").glob("[!_]*.py")))


def find_board(name: str) -> Board:
    """The board ``name``.

    Raises
    ------
    InputError
        If there is none; the sentence lists all.
    """
    if name not in board_names():
        raise InputError(f"board must be one of {', '.join(board_names())}, not {name!r}")
    return importlib.import_module(f"{__package__}.boards.{name}").BOARD
