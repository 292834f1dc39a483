"""How fast parts can be clocked: a delay for each path that their structure shows, fitted to placed and routed parts.

A path (`paths.Path`) takes ``base + level * luts + adder * adders + bit * carry bits + fanout * log2(cells driven) + ...``
nanoseconds; a part's period is that of its slowest path, and a plan can promise the clock of its slowest stage. Coefficients
come from ``benchmarks/fit_clocks.py``, fitted to half of the points of ``benchmarks/clock_points.py`` (the median of three
placements of a part alone between registers) and checked on the other half. Families without such points promise nothing.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from operator import mul
from typing import Any, NamedTuple

import numpy as np

from .families import ICE40
from .family import Family
from .gateware.accumulate import TermRange, spare_carry
from .geometry import WindowGeometry
from .joins import AveragePool, Join, Requantizer
from .mac import MacUnit
from .output import OutputStage
from .paths import DELAYS, Path
from .pipeline import Layer, Stage

FULL_SLOWDOWN = 0.25
"""By how much an FPGA with all available cells used is clocked slower than an empty one, seen on iCE40UP5K builds.

For other families, where no full FPGA was built, the same is taken (`Promise.slowdown_seen`).
"""

SHARED = ("base", *DELAYS)
"""What every part has in common; besides, every kind of part but the units has an ``offset``."""

NEAR = 5
"""Base-two logarithm of how many luts lie close together wherever they are placed; wires among more are longer."""

GLOBAL_ENABLE = 40
"""Registers with an enable in common above which nextpnr makes it a global net on iCE40."""

TILE_CARRY = 15
"""Bits of an accumulator that fit two logic tiles of iCE40 where its clock enable is no global net."""

SHORT_CARRY = 8
"""Bits up to which an adder is faster than three luts, as synthesis sees it."""

SEARCH_LEVELS = 2
"""Luts of an output stage between its adder (or the register behind it) and the address of its table: which half, and
whether to go on."""

WINDOW_PATH = Path(levels=2, adders=2)
"""Of a window reader's address: the next column, and whether it is the last or lies in the padding."""


ROW_LEVELS = 3
"""Luts behind the memory of several rows."""


class Period(NamedTuple):
    """The shortest clock period of a part."""

    ns: float
    """In nanoseconds."""

    measured: bool
    """Whether parts of this kind were placed and routed; if not, it follows from structure only."""

    @property
    def hz(self) -> float:
        """The clock."""
        return 1e9 / self.ns


@dataclass(frozen=True)
class Promise:
    """The clock that a plan can promise."""

    hz: float
    stage: str
    """Name of the slowest stage."""

    part: str
    """Which part of it is the slowest: a unit's or an output stage's name, ``window`` or ``adder``."""

    unmeasured: tuple[str, ...]
    """Parts that nobody placed and routed: their delay follows from structure only."""

    slowdown_seen: bool = True
    """Whether `FULL_SLOWDOWN` was seen in this family; if not, it is that of iCE40."""


@cache
def delays(family: Family) -> dict[str, Any]:
    """``shared`` (coefficient by `SHARED` name), ``offset`` (ns by kind of part), ``parts``, ``worst``; or nothing."""
    name = "coefficients.json" if family is ICE40 else f"{family.name}/coefficients.json"
    path = resources.files("lutq_hw") / "points" / "clock" / name
    return json.loads(path.read_text()) if path.is_file() else {}


def path_ns(path: Path, shared: Mapping[str, float]) -> float:
    """Delay of one path."""
    return slowest_ns([path], shared)


def slowest_ns(paths: Sequence[Path], shared: Mapping[str, float]) -> float:
    """Delay of the slowest path."""
    weights = [shared[name] for name in DELAYS]
    return shared["base"] + max([sum(map(mul, weights, path)) for path in paths])


def unit_paths(unit: MacUnit) -> list[Path]:
    """Paths of a MAC unit: through its lanes and rows, its accumulators, and of the signal that moves all its registers."""
    structure, counted = unit.counted
    term = getattr(unit, "term", None)
    # The rows that a lane reads drive those of all outputs.
    outputs = math.log2(unit.pe // unit.spread)
    lanes = [path._replace(fanout=max(0.0, path.fanout + outputs - NEAR)) for path in counted]
    lanes = lanes or [Path(levels=unit.index_bits)]
    if term is not None and term.carries and spare_carry(unit.simd):
        # The first lane adds its own carry, behind its logic.
        lanes = [path if path.adders else path._replace(adders=1, bits=max(0, term.bits - path.entry)) for path in lanes]
    if structure.dsps:
        lanes = [path._replace(dsps=1) for path in lanes]
    if term is not None:
        lanes.append(accumulator_path(unit, term))
    return [*lanes, enable_path(lanes, unit.pe * unit.acc_bits)]


def accumulator_path(unit: MacUnit, term: TermRange) -> Path:
    """Of the adder of a sum into its register.

    On iCE40 a carry that leaves its chain and starts another is as slow as one more adder. That is so where a tile is full:
    eight luts of four inputs and the clock enable are one input too many, unless the enable is a global net. And it is so
    between bits of which a new sum is always 0 and others: their registers have a reset, which a tile has one of.
    """
    bits = max(1, unit.acc_bits - term.zeros)
    if unit.family is not ICE40:
        return Path(levels=1, adders=1, bits=bits)  # a multiplexer behind the adder lets a new sum begin
    terms = getattr(unit, "terms", unit.simd)
    held = [True] * bits
    if terms == 1:
        union = int(np.bitwise_or.reduce(unit.summed >> term.zeros, axis=None))
        held = [bool(union >> bit & 1) for bit in range(bits)]
    elif term.low >= 0:
        held = [bit < term.sum_bits(terms) for bit in range(bits)]
    breaks = sum(low != high for low, high in itertools.pairwise(held))
    if unit.pe * bits <= GLOBAL_ENABLE:
        breaks += (bits - 1) // TILE_CARRY
    return Path(adders=1 + breaks, bits=bits)


def enable_path(others: Sequence[Path], registers: int) -> Path:
    """Of the signal that moves all registers, to their clock enables.

    It takes two luts (may a word move, is there one), and a third one for the reset where anything else is as slow: synthesis
    makes only the slowest paths short.
    """
    slow = any(path.levels > 2 or (path.adders and path.levels + path.bits > SHORT_CARRY) for path in others)
    slow = slow or registers > GLOBAL_ENABLE  # the buffer of a global net
    return Path(levels=2 + slow, enables=1)


def table_levels(depth: int, lut_inputs: int) -> int:
    """Luts one behind the other in a random table."""
    return 1 + max(0, -(-(max(1, depth - 1).bit_length() - lut_inputs) // 2))


def output_paths(stage: OutputStage, family: Family = ICE40) -> list[Path]:
    """Paths of an output stage: its table, the adder behind it and back to the table (which may be cut in two); held sums
    and what moves them."""
    width, depth = stage.table
    in_bram = stage.memory == "bram" and depth > 1 and width > 0
    table = table_levels(depth, family.lut_inputs) if width and depth > 1 and not in_bram else 0
    held = Path(levels=2, enables=1)
    if stage.cut:
        # A carry from registers into the register behind its last bit; then the code so far, the address, and the table,
        # in luts of which the address, behind its registers, does not share one with what it is made from.
        compared = Path(adders=1, bits=stage.acc_bits, brams=int(in_bram))
        return [compared, Path(levels=SEARCH_LEVELS + table + (table > 0)), held]
    levels = SEARCH_LEVELS * (stage.steps > 1) + table + stage.result_levels
    # A search goes back to the address of its table; where codes are made of comparisons, these end in registers.
    stores = int((in_bram and not stage.result_levels) or stage.read_by_sum[0] > 0)
    return [Path(levels=levels, adders=1, bits=stage.acc_bits, brams=int(in_bram), stores=stores), held]


def window_paths(g: WindowGeometry) -> list[Path]:
    """Paths of a window reader."""
    reach = max(g.padding[1], g.shape[1] + g.padding[1] + g.stride[1] + g.kernel[1]) * g.pixel_words
    # From the rows' memory to the window: which row, and whether it is padding.
    return [WINDOW_PATH._replace(bits=1 + reach.bit_length()), Path(levels=ROW_LEVELS * (g.rows > 1), brams=1)]


def _period(kind: str, paths: Sequence[Path], family: Family) -> Period | None:
    found = delays(family)
    if not found:
        return None
    measured = kind in found["parts"]
    return Period(slowest_ns(paths, found["shared"]) + found["offset"].get(kind, 0.0), measured)


def unit_period(unit: MacUnit, family: Family = ICE40) -> Period | None:
    """Period of a MAC unit; None if no clock is promised in ``family``."""
    if not delays(family):
        return None
    return _period(unit.name, unit_paths(unit if unit.family is family else replace(unit, family=family)), family)


def output_period(stage: OutputStage, family: Family = ICE40) -> Period | None:
    """Period of an output stage; None if no clock is promised in ``family``."""
    return _period(stage.name, output_paths(stage, family), family)


def window_period(g: WindowGeometry, family: Family = ICE40) -> Period | None:
    """Period of a window reader; None if no clock is promised in ``family``."""
    return _period("window", window_paths(g), family)


def layer_periods(layer: Layer, family: Family = ICE40) -> dict[str, Period]:
    """Periods of a layer's parts by name; empty if no clock is promised in ``family``."""
    found = {layer.unit.name: unit_period(layer.unit, family), layer.stage.name: output_period(layer.stage, family),
             "window": window_period(layer.window, family)}
    return {name: period for name, period in found.items() if period is not None}


def stage_periods(stage: Stage, family: Family = ICE40) -> dict[str, Period]:
    """Periods of the parts of a stage by name, of those that have an output stage; else empty."""
    if isinstance(stage, Layer):
        return layer_periods(stage, family)
    if not isinstance(stage, Join | AveragePool | Requantizer):
        return {}
    found = {stage.stage.name: output_period(stage.stage, family)}
    if isinstance(stage, AveragePool):
        found["window"] = window_period(stage.window, family)
    if isinstance(stage, Join):
        # From the memory of a FIFO through all adders to the held sums.
        adders = (len(stage.types) - 1).bit_length()
        found["adder"] = _period("adder", [Path(adders=adders, bits=stage.sums.bits, brams=1)], family)
    return {name: period for name, period in found.items() if period is not None}


def promise(stages: Sequence[Stage], family: Family, share: float) -> Promise | None:
    """What the slowest part of all stages can be clocked at; None in a family without recorded clocks.

    Max-pools, gearboxes, forks and FIFOs have shorter paths than these; nobody has placed them alone.

    Parameters
    ----------
    share
        How full the FPGA is, 0 to 1: parts are measured on an empty one, and a full one is slower by `FULL_SLOWDOWN`.
    """
    found = [(period, stage.name, part) for stage in stages for part, period in stage_periods(stage, family).items()]
    if not found:
        return None
    period, stage, part = max(found, key=lambda entry: entry[0].ns)
    unmeasured = sorted({name for other, _, name in found if not other.measured})
    hz = period.hz / (1 + FULL_SLOWDOWN * min(1.0, share))
    return Promise(hz, stage, part, tuple(unmeasured), slowdown_seen=family is ICE40)
