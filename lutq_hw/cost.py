"""What a piece of hardware occupies on an FPGA."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Cost:
    """Cells of one family: ``luts`` and ``ffs`` may be fitted (hence float), block counts are exact."""

    luts: float = 0.0
    ffs: float = 0.0
    brams: int = 0
    sprams: int = 0
    dsps: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, count: int) -> Cost:
        return Cost(*(getattr(self, f.name) * count for f in fields(self)))

    def over(self, capacity: Cost) -> dict[str, float]:
        """How far each resource exceeds ``capacity``; empty if all fit."""
        excess = {f.name: getattr(self, f.name) - getattr(capacity, f.name) for f in fields(self)}
        return {name: amount for name, amount in excess.items() if amount > 0}
