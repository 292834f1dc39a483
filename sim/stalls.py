"""When the source has nothing to offer and when the sink is not ready: one definition for cycle model and bench."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lutq_hw.errors import InputError

PERIOD = 4093
"""Cycles after which the pauses repeat; a prime, so that they meet every phase of a frame."""


@dataclass(frozen=True)
class Stalls:
    """Random pauses on both sides of a design, the same for the same ``seed``.

    Parameters
    ----------
    idle, stall
        Probability, 0 to below 1, that the source offers nothing new in a cycle, and that the sink is not ready.
    seed
        Seed of both patterns.
    """

    idle: float = 0.0
    stall: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("idle", "stall"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise InputError(f"{name} must be a probability from 0 to below 1, not {value}")
        if self.seed < 0:
            raise InputError(f"seed must not be negative, not {self.seed}")

    @cached_property
    def _pauses(self) -> tuple[list[bool], list[bool]]:
        random = np.random.default_rng(self.seed).random((2, PERIOD))
        idle, stall = random < [[self.idle], [self.stall]]
        # Both must move now and then, or a high probability with an unlucky seed would stop the design for ever.
        idle[-1] = stall[-1] = False
        return idle.tolist(), stall.tolist()

    def source_idle(self, cycle: int) -> bool:
        """Whether the source does not offer a new word in ``cycle``."""
        return self._pauses[0][cycle % PERIOD]

    def sink_stall(self, cycle: int) -> bool:
        """Whether the sink is not ready in ``cycle``."""
        return self._pauses[1][cycle % PERIOD]

    def write(self, path: Path) -> None:
        """The pattern as ``bench.sv`` reads it."""
        path.write_text("".join(f"{idle + 2 * stall:x}\n" for idle, stall in zip(*self._pauses, strict=True)))
