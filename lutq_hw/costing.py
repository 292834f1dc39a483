"""What stages cost: features of their structure, times coefficients fitted to recorded synthesis points of each family.

The points (``points/*.json`` for iCE40, ``points/FAMILY/*.json``) come from ``benchmarks/stage_points.py``, the coefficients
(``coefficients.json`` beside them) from ``benchmarks/fit_costs.py``. Luts are cells after Yosys; blocks are counted exactly,
as the gateware cuts its memories: for the shapes of iCE40, so that a block of another family may stay partly empty. Known
pessimism: parts are measured alone, so what synthesis merges across their borders is counted twice (a few luts for each
layer). On iCE40, comparisons of which only the sign is used are carry cells that no count of luts sees, though nextpnr gives
each a logic cell: a bank of thresholds, which has most of them, counts them apart (`Cost.lone_carries`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from weakref import WeakKeyDictionary

import numpy as np

from .cost import Cost, bits_for, bram_count, ram_brams
from .families import ICE40
from .family import Family
from .geometry import WindowGeometry, term_order
from .graph_cost import adder_features, averager_features, fifo_brams, fifo_features, fork_features, long_bits
from .joins import AveragePool, Fifo, Fork, Join, Requantizer
from .logic_estimate import rom_logic, select_luts
from .mac import MacUnit
from .network import TensorType, WeightNode
from .nonzero import NonzeroReads
from .output import OutputStage
from .outputs import OUTPUTS
from .pipeline import Argmax, Gearbox, Layer, Pool, Stage, TopK, moved_sums
from .sums import Sums, sums_of
from .unit_cost import unit_cost
from .units import UNITS

Features = Mapping[str, float]

_logic: WeakKeyDictionary[Sums, dict[tuple[str, int, int], tuple[int, int]]] = WeakKeyDictionary()


def table_luts(depth: int, lut_inputs: int = 4) -> float:
    """Luts for each bit of a random table in logic: 16 entries fit a lut of four inputs, deeper ones need selectors."""
    held = 1 << lut_inputs
    if depth <= held:
        return 1.0
    # A rest of up to four entries needs two address bits and fits the selector.
    return 1.2 * (2 * -(-depth // held) - 1) - (1.5 if 0 < depth % held <= 4 else 0.0)


@cache
def coefficients(family: Family = ICE40) -> dict[str, dict[str, dict[str, float]]]:
    """Part → resource → feature → coefficient; empty for a family without points."""
    path = resources.files("lutq_hw") / "points"
    path = (path if family is ICE40 else path / family.name) / "coefficients.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def measured(part: str, family: Family) -> bool:
    """Whether points of ``part`` stand behind its price in ``family``; if not, it is that of iCE40."""
    return part in coefficients(family)


def fitted(part: str, features: Features, brams: int = 0, family: Family = ICE40) -> Cost:
    """Price of ``part`` from its features; with the coefficients of iCE40 where the family has no points (`measured`)."""
    c = coefficients(family).get(part) or coefficients()[part]
    luts, ffs = (sum(c[resource].get(name, 0.0) * value for name, value in features.items())
                 for resource in ("luts", "ffs"))
    return Cost(luts=luts, ffs=ffs, brams=brams)


@cache
def table_of(entries: tuple[int, ...], lut_inputs: int) -> int:
    """Luts of a small table in logic."""
    return sum(rom_logic(np.array([entries]), max(1, max(entries).bit_length()), lut_inputs)) if len(set(entries)) > 1 else 0


def row_tables(g: WindowGeometry, lut_inputs: int) -> int:
    """Luts of the tables with which a `gateware.row_buffer.RowBuffer` goes from row to row, if one bank is read at a time."""
    rows, banks = range(g.out_shape[0]), g.buffer_rows
    steps = [g.shape[0] - (len(rows) - 1) * g.stride[0], *[g.stride[0]] * (len(rows) > 1), *[1] * (g.rows == 1)]
    tables = [tuple((bank + step) % banks for bank in range(banks)) for step in steps]
    return sum(table_of(table, lut_inputs) for table in (*tables, g.need, g.release, g.need_next)) + mask_luts(
        g, 0, lut_inputs)


@cache
def row_start_luts(rows: int, banks: int, row_words: int, lut_inputs: int) -> int:
    """Luts of the tables of where each of ``rows`` rows of a window begins in the memory, by the bank of the first."""
    places = (np.arange(rows)[:, None] + np.arange(banks)) % banks * row_words
    return sum(rom_logic(places, bits_for(banks * row_words), lut_inputs, shared=True))


def mask_luts(g: WindowGeometry, axis: int, lut_inputs: int) -> int:
    """Luts that tell which rows or columns of a window are not padding."""
    table = g.masks(axis)
    if set(table) == {(1 << g.kernel[axis]) - 1}:
        return 0
    return table_of(table, lut_inputs) + select_luts(g.kernel[axis], lut_inputs)


def window_features(g: WindowGeometry, bits: int, family: Family = ICE40) -> Features:
    """Structure of a `WindowReader`."""
    banks = g.buffer_rows if g.rows > 1 else 1
    word = g.rows * g.channels * bits
    nest = (g.group_words, g.kernel[1], g.kernel[0] // g.rows, g.repeat, g.groups, *g.out_shape)
    loops = [n for n in nest if n > 1]
    reach = max(g.padding[1], g.shape[1] + g.padding[1] + g.stride[1] + g.kernel[1]) * g.pixel_words
    column = 1 + reach.bit_length()
    return {
        "base": 1,
        "loops": len(loops),
        "loop_bits": sum(bits_for(n) for n in loops),
        "long": long_bits(*loops),
        "column": column,
        "pixel": column if g.out_shape[1] > 1 else 0,
        "group": column if g.groups > 1 else 0,
        "banks": g.buffer_rows if g.shape[0] > 1 else 0,
        "address": bits_for(g.depth) if g.rows == 1 and g.shape[0] > 1 else 0,
        "write": bits_for(g.row_words) + (bits_for(g.depth) if banks == 1 else 0),
        "rows": bits_for(g.buffer_rows),
        "weights": bits_for(g.groups * g.repeat * g.fold),
        "align": word * select_luts(banks, family.lut_inputs) if banks > 1 else 0,
        "decode": banks if banks > 1 else 0,
        "padding": word if any(g.padding) and banks == 1 else 0,  # a register's luts choose among banks, and padding
        "tables": row_tables(g, family.lut_inputs) + mask_luts(g, 1, family.lut_inputs),
        "word": word,
        "gap": bits_for(g.groups * g.repeat * g.fold + g.gap) if g.gap else 0,
    }


def window_brams(g: WindowGeometry, bits: int) -> int:
    """Blocks of the line buffer."""
    return ram_brams(g.channels * bits, max(2, g.depth), g.buffer_rows if g.rows > 1 else 1)


def window_cost(g: WindowGeometry, bits: int, family: Family = ICE40) -> Cost:
    """Price of a `WindowReader`."""
    return fitted("window", window_features(g, bits, family), window_brams(g, bits), family)


def nonzero_features(reads: NonzeroReads, bits: int, family: Family = ICE40) -> Features:
    """Structure of a `NonzeroReader`."""
    g, pe = reads.window, reads.pe
    address = bits_for(max(2, g.depth))
    reach = (g.shape[1] + g.padding[1] + g.stride[1] + g.kernel[1]) * g.pixel_words
    pixel = 1 + reach.bit_length()
    # Rows begin at multiples of their length: the zeros that it ends in are the same in all of them.
    begins = address - (g.row_words & -g.row_words).bit_length() + 1 if g.buffer_rows > 1 else 0
    return {
        "base": 1,
        "loop_bits": sum(bits_for(n) for n in (reads.words, *g.out_shape) if n > 1),
        "long": long_bits(reads.words, *g.out_shape),
        "rows": bits_for(g.buffer_rows),
        "write": bits_for(g.row_words) + address,
        "pixel": pixel if g.out_shape[1] > 1 else 0,
        "row_starts": row_start_luts(g.kernel[0], g.buffer_rows, g.row_words, family.lut_inputs) if begins > 0 else 0,
        "row_adders": max(0, begins) * g.kernel[0],
        "position": pe * bits_for(g.kernel[1] * g.pixel_words + 1),
        "row": pe * bits_for(g.kernel[0]) if g.kernel[0] > 1 else 0,
        "row_select": pe * max(0, begins) * select_luts(g.kernel[0], family.lut_inputs) if g.kernel[0] > 1 else 0,
        "lane_address": pe * address,
        "column": pe * (pixel + 1) if any(g.padding) else 0,
        "padded": pe * bits if any(g.padding) else 0,
        "masks": len(set(g.masks(0))) - 1,
        "word": pe * (bits + reads.codebook.index_bits),
    }


def nonzero_cost(reads: NonzeroReads, bits: int, memory: str, family: Family = ICE40) -> Cost:
    """Price of a `NonzeroReader`: rows once for each lane, and the index memory."""
    g = reads.window
    return (fitted("nonzero", nonzero_features(reads, bits, family), reads.pe * ram_brams(bits, max(2, g.depth), 1), family)
            + rom_cost(*reads.memory, memory, family))


def rom_cost(width: int, depth: int, memory: str, family: Family = ICE40) -> Cost:
    """Price of a `Rom`; in logic, bits that are alike in all words are one."""
    if depth == 1:
        return Cost()
    if memory == "bram":
        return Cost(brams=bram_count(width, depth))
    columns = unlike_columns(width, depth)
    return Cost(luts=columns * table_luts(depth, family.lut_inputs), ffs=columns)


def unlike_columns(width: int, depth: int) -> float:
    """How many different ones there are, on average, among ``width`` random columns of ``depth`` bits, without constants."""
    kinds = 2.0 ** min(depth, 64)
    return -(kinds - 2) * math.expm1(width * math.log1p(-1 / kinds))


def output_features(s: OutputStage, lut_inputs: int = 4) -> Features:
    """Structure that all output stages share, and what the stage names itself."""
    return {
        "base": 1,
        "held": s.pe * s.acc_bits if s.slices > 1 else 0,
        "held_ffs": s.pe * s.acc_bits,
        "row_bits": bits_for(s.rows) if s.rows > 1 and s.table[0] else 0,  # without a table nobody asks for the row
        "slice_bits": bits_for(s.slices) if s.slices > 1 else 0,
        "steps": s.steps,
        "lanes": s.lanes,
        "sum": s.lanes * s.acc_bits,
        "result": s.lanes * s.type.bits,
        **s.features(lut_inputs),
    }


def output_cost(s: OutputStage, family: Family = ICE40) -> Cost:
    """Price of an output stage; its tables are counted by `OutputStage.table` and `OutputStage.read_by_sum`."""
    width, depth = s.table
    brams = bram_count(width, depth) * s.lanes if s.memory == "bram" and depth > 1 and width else 0
    brams += bram_count(*s.read_by_sum) * s.lanes if s.read_by_sum[0] else 0
    cost = fitted(s.name, output_table_features(s, family), brams, family)
    return cost._replace(lone_carries=s.lone_carries) if family is ICE40 else cost


def output_table_features(s: OutputStage, family: Family = ICE40) -> Features:
    """`output_features` with the stage's table where it is logic."""
    functions, selectors = _table_logic(s, family.lut_inputs) if s.memory == "luts" else (0, 0)
    return {**output_features(s, family.lut_inputs), "table": functions, "selectors": selectors}


def _table_logic(s: OutputStage, lut_inputs: int) -> tuple[int, int]:
    """`rom_logic` of a stage's tables: they depend on its lanes, but not on how many sums come at once."""
    known, key = _logic.setdefault(s.sums, {}), (s.name, s.lanes, lut_inputs)
    if key not in known:
        words = s.addressed
        known[key] = (0, 0) if words is None else rom_logic(words, s.table[0], lut_inputs, shared=s.same_address)
    return known[key]


def gearbox_features(width: int, count: int) -> Features:
    """Structure of a `Collector` or a `Splitter`: ``width`` bits on the narrow side, ``count`` times that on the other."""
    return {"base": 1, "bits": width * count, "count": bits_for(count + 1)}


def gearbox_cost(kind: str, width: int, count: int, family: Family = ICE40) -> Cost:
    """Price of a gearbox; ``kind`` is ``Collector`` or ``Splitter``."""
    return fitted(kind, gearbox_features(width, count), family=family)


def argmax_features(bits: int, lanes: int, words: int, index_bits: int) -> Features:
    """Structure of an `ArgmaxStage`: the last lane writes to registers with an enable, those before it choose."""
    before = lanes - 1
    return {"base": 1, "compare": bits * lanes, "lanes": before, "select": (bits + index_bits) * before, "index": index_bits,
            "words": bits_for(words)}


def fifo_cost(width: int, depth: int, memory: str, family: Family = ICE40) -> Cost:
    """Price of a FIFO."""
    features = fifo_features(width, depth, memory, family.lut_inputs)
    return fitted(f"fifo {memory}", features, fifo_brams(width, depth, memory), family)


def top_k_features(bits: int, words: int, index_bits: int, count: int) -> Features:
    """Structure of a `TopKStage`: into every place but the first goes a new element or the one above."""
    return {"base": 1, "places": count, "compare": bits * count, "select": (bits + index_bits) * (count - 1),
            "words": bits_for(words)}


def stage_cost(stage: Stage, family: Family = ICE40) -> Cost:
    """Price of one stage of the pipeline."""
    match stage:
        case Gearbox():
            kind = "Collector" if stage.input.lanes < stage.output.lanes else "Splitter"
            widths = sorted((stage.input.width, stage.output.width))
            return gearbox_cost(kind, widths[0], widths[1] // widths[0], family)
        case Layer():
            parts = LayerParts(stage.node, stage.x, family)
            plan = stage.plan
            if stage.nonzero is not None:
                return (nonzero_cost(stage.nonzero, stage.x.bits, plan.index_memory, family)
                        + unit_cost(stage.unit, family).cost * plan.pe
                        + parts.output(plan.output, plan.pe, plan.output_lanes, plan.output_memory))
            # In the planner's order: sums of rounded numbers depend on it.
            return (parts.window(stage.window) + parts.unit(plan.unit, *plan.array, output=plan.output)
                    + parts.index(stage.unit, stage.window, plan.index_memory)
                    + parts.output(plan.output, plan.pe, plan.output_lanes, plan.output_memory, plan.unit))
        case Pool():
            compare = stage.x.bits * stage.plan.channels
            return window_cost(stage.window, stage.x.bits, family) + Cost(luts=2.5 * compare + 3, ffs=compare + 2)
        case Join():
            front = adder_features(stage.types, stage.node.shifts, stage.plan.channels)
            return fitted("adder", front, family=family) + output_cost(stage.stage, family)
        case AveragePool():
            front = averager_features(stage.input.type, stage.plan.channels, stage.sums.bits)
            return (window_cost(stage.window, stage.input.type.bits, family) + fitted("averager", front, family=family)
                    + output_cost(stage.stage, family))
        case Requantizer():
            return output_cost(stage.stage, family)
        case Fork():
            return fitted("fork", fork_features(stage.count), family=family)
        case Fifo():
            return fifo_cost(stage.input.width, stage.depth, stage.memory, family)
        case Argmax():
            return fitted("argmax", argmax_features(stage.input.type.bits, stage.input.lanes, stage.input.words,
                                                    stage.output.width), family=family)
        case TopK():
            return fitted("top_k", top_k_features(stage.input.type.bits, stage.input.words, stage.output.type.bits,
                                                  stage.node.top), family=family)


class LayerParts:
    """Prices of the parts of one layer, each computed once: what the planner combines."""

    def __init__(self, node: WeightNode, x: TensorType, family: Family = ICE40):
        self.node, self.x, self.family = node, x, family
        self.sums = sums_of(node, x)
        self._stages: dict[tuple[str, int, int, str, str], OutputStage] = {}
        self._known: dict[tuple[object, ...], Cost] = {}
        self._macs: dict[tuple[str | int, ...], MacUnit] = {}
        self._off: dict[MacUnit, MacUnit] = {}
        self._prices: dict[MacUnit, Cost] = {}
        self._moved: dict[str, Sums | None] = {}

    def moved(self, unit: str, output: str) -> Sums | None:
        """The layer's sums where that unit leaves constants in them and that output stage takes them; else None."""
        if unit not in UNITS or output not in OUTPUTS or not OUTPUTS[output].takes_constants:
            return None
        if unit not in self._moved:
            self._moved[unit] = moved_sums(self.mac(unit, 1, 1, 1), self.sums)
        return self._moved[unit]

    def stage(self, name: str, pe: int, lanes: int, memory: str, unit: str = "") -> OutputStage:
        """The output stage of that size, behind ``unit`` if it is named."""
        moved = self.moved(unit, name)
        key = (name, pe, lanes, memory, unit if moved else "")
        if key not in self._stages:
            self._stages[key] = OUTPUTS[name](sums=moved or self.sums, pe=pe, lanes=lanes, memory=memory)
        return self._stages[key]

    def window(self, g: WindowGeometry) -> Cost:
        """Line buffer and reader."""
        key = ("window", g)
        if key not in self._known:
            self._known[key] = window_cost(g, self.x.bits, self.family)
        return self._known[key]

    def mac(self, name: str, pe: int, channels: int, rows: int, spread: int = 1) -> MacUnit:
        """MAC unit of that size; one for all arrays of as many lanes, where neither price nor delay asks for the order."""
        sized, alike = (name, pe, channels, rows, spread), (name, pe, channels * rows, spread)
        key = alike if UNITS[name].any_length else sized
        if key not in self._macs:
            order = term_order(self.node, channels=channels, rows=rows)
            mac = UNITS[name].for_layer(self.node.weights, self.x, pe=pe, simd=channels * rows, order=order,
                                        acc_bits=self.sums.bits, spread=spread)
            self._macs[key] = mac if self.family is mac.family else replace(mac, family=self.family)
        return self._macs[key]

    def index(self, mac: MacUnit, g: WindowGeometry, memory: str) -> Cost:
        """Index ROM for ``mac``."""
        return rom_cost(mac.index_bits * mac.pe * mac.simd, g.groups * g.repeat * g.fold + mac.gap, memory,
                        self.family)

    def mac_before(self, output: str, name: str, *array: int) -> MacUnit:
        """MAC unit of that size in front of that output stage."""
        mac, moved = self.mac(name, *array), self.moved(name, output)
        if moved is None:
            return mac
        if mac not in self._off:
            self._off[mac] = mac.off(moved.bits)
        return self._off[mac]

    def unit(self, name: str, *array: int, output: str = "") -> Cost:
        """Price of `mac_before`."""
        mac = self.mac_before(output, name, *array)
        if mac not in self._prices:
            self._prices[mac] = unit_cost(mac, self.family).cost
        return self._prices[mac]

    def output(self, name: str, pe: int, lanes: int, memory: str, unit: str = "") -> Cost:
        """Output stage with its table, behind ``unit`` if it is named."""
        key = ("output", name, pe, lanes, memory, unit if self.moved(unit, name) else "")
        if key not in self._known:
            self._known[key] = output_cost(self.stage(name, pe, lanes, memory, unit), self.family)
        return self._known[key]

    def interval(self, name: str, pe: int, lanes: int) -> int:
        """Cycles for one word of sums."""
        return self.stage(name, pe, lanes, "luts").interval
