"""What an FPGA family is to planning: its cells, its block RAM and the Yosys command that maps to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

RESOURCES: tuple[str, ...] = ("luts", "ffs", "brams", "sprams", "dsps")
"""What cells are counted as; the fields of `cost.Cost` with these names."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """One FPGA family, in a file of its own in ``families/``.

    Boards name theirs in `board.Board.family`. Nothing here needs a tool: `tools.cells` runs the command.
    """

    name: str
    """Word used by boards, points and command lines; that of the file."""

    title: str
    """Name for people."""

    lut_inputs: int
    """Inputs of a lut: what `logic_estimate.Logic` packs into."""

    synth: str
    """Yosys command that maps a design read as RTLIL, whose top module is ``top``, and inserts no pads."""

    cell_models: str
    """Yosys' Verilog models of the cells, in its share folder: what a netlist is simulated with."""

    modelled: str = ""
    """Options of ``synth`` that leave out the cells which have no model there."""

    cells: Mapping[str, Mapping[str, int]]
    """Regular expression of cell types → resource → how many a cell is. A type that matches none counts nothing."""

    carry_cells: str
    """Regular expression of the cells with a carry, for records only."""

    bram_shapes: tuple[tuple[int, int], ...]
    """Word widths and depths of a block RAM, widest first."""

    dsp_operand_bits: int = 1
    """Narrowest operand of a multiplication for which Yosys takes a DSP block."""

    lutram: tuple[int, int, int] | None = None
    """Words, bits and luts of the smallest memory made of luts; None where small memories are registers."""

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], Mapping[str, int]]]:
        return [(re.compile(pattern), weights) for pattern, weights in self.cells.items()]

    def count(self, types: Mapping[str, int]) -> dict[str, int]:
        """Resources of a netlist, given how many cells there are of each type."""
        found: dict[str, int] = dict.fromkeys(RESOURCES, 0)
        for kind, number in types.items():
            weights = next((weights for pattern, weights in self._patterns if pattern.fullmatch(kind)), {})
            for resource, weight in weights.items():
                found[resource] += weight * number
        return found

    def carries(self, types: Mapping[str, int]) -> int:
        """Cells with a carry in a netlist."""
        return sum(number for kind, number in types.items() if re.fullmatch(self.carry_cells, kind))
