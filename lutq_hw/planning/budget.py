"""What a plan has to fit, and what is scarce."""

from __future__ import annotations

from operator import attrgetter
from typing import Protocol

from ..cost import Cost

BLOCKS = ("brams", "dsps", "sprams")
"""Resources that come in whole blocks."""

RESOURCES = ("cells", *BLOCKS)
"""What is scarce: logic cells (luts, and flip-flops that need one of their own) and blocks."""

scarce = attrgetter(*RESOURCES)
"""How much of each of `RESOURCES` a `Cost` is, as a tuple."""

NAMES = {"cells": "logic cells"}


class Budget(Protocol):
    """What a plan has to fit: a `board.Board`, or anything that answers the same questions."""

    @property
    def name(self) -> str:
        """Word on the command line."""
        ...

    @property
    def title(self) -> str:
        """Name for people."""
        ...

    @property
    def family(self) -> str:
        """Name of its FPGA family (``families/``)."""
        ...

    @property
    def available(self) -> Cost:
        """What an accelerator may use: the board's capacity less host link and room for routing; ``cells`` counts."""
        ...

    @property
    def plan_clock_hz(self) -> float:
        """Clock that rates are planned with, before place and route has had its word."""
        ...


def shortage(cost: Cost, available: Cost) -> dict[str, float]:
    """How far ``cost`` exceeds what is available, by resource; empty if it fits."""
    excess = {r: getattr(cost, r) - getattr(available, r) for r in RESOURCES}
    return {r: amount for r, amount in excess.items() if amount > 0}
