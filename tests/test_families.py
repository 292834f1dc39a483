"""FPGA families: what their cells count as, their memories, and logic packed into their luts."""

import pytest

from lutq_hw.cost import BRAM_SHAPES, Cost, bram_count
from lutq_hw.families import FAMILIES, ICE40
from lutq_hw.logic_estimate import Logic
from lutq_hw.tools.yosys import count_cells


@pytest.mark.parametrize("name", FAMILIES)
def test_description_is_complete(name):
    family = FAMILIES[name]
    assert family.name == name and family.title
    assert family.lut_inputs in (4, 6)
    assert family.synth.startswith("synth_")
    widths, depths = zip(*family.bram_shapes, strict=True)
    assert list(widths) == sorted(widths, reverse=True) and list(depths) == sorted(depths)


@pytest.mark.parametrize("name, cells, cost, carries", [
    ("ice40", {"SB_LUT4": 562, "SB_CARRY": 264, "SB_DFFE": 608, "SB_DFFESR": 12, "SB_RAM40_4KNR": 2, "SB_SPRAM256KA": 1,
               "SB_MAC16": 3, "$scopeinfo": 2}, Cost(luts=562, ffs=620, brams=2, sprams=1, dsps=3), 264),
    ("ecp5", {"CCU2C": 176, "LUT4": 299, "TRELLIS_FF": 620, "TRELLIS_DPR16X4": 2, "DP16KD": 1, "MULT18X18D": 5,
              "PFUMX": 7, "L6MUX21": 1}, Cost(luts=299 + 352 + 12, ffs=620, brams=1, dsps=5), 176),
    ("gowin", {"ALU": 328, "LUT1": 32, "LUT4": 64, "DFFE": 608, "DFFRE": 11, "MUX2_LUT5": 4, "GND": 1, "VCC": 1, "pROM": 2,
               "SDPB": 1, "MULT9X9": 5, "MULT18X18": 1, "RAM16SDP4": 1},
     Cost(luts=328 + 96 + 4, ffs=619, brams=3, dsps=6), 328),
    ("series7", {"CARRY4": 104, "FDRE": 619, "FDSE": 1, "INV": 28, "LUT2": 254, "LUT6": 144, "MUXF7": 3, "RAMB18E1": 1,
                 "RAMB36E1": 1, "DSP48E1": 2, "RAM32M": 1, "SRL16E": 2},
     Cost(luts=28 + 254 + 144 + 4 + 2, ffs=620, brams=3, dsps=2), 104),
])
def test_cells_are_counted(name, cells, cost, carries):
    counted = count_cells(cells, FAMILIES[name])
    assert counted.cost == cost
    assert counted.carries == carries


def test_default_family_is_ice40():
    assert BRAM_SHAPES == ((16, 256), (8, 512), (4, 1024), (2, 2048))
    assert bram_count(17, 300) == bram_count(17, 300, ICE40) == 3
    assert bram_count(17, 300, FAMILIES["ecp5"]) == 1
    assert bram_count(17, 1500, FAMILIES["series7"]) == 2


def test_breakdown_is_no_resource():
    cost = Cost(luts=10, adder_bits=8, adders=2)
    assert (cost * 3 + cost).adder_bits == 32
    assert cost.over(Cost(luts=10)) == {}


def test_wider_luts_take_more_logic():
    def selector(inputs: int) -> int:
        logic = Logic(inputs)
        a, b, c, d, s, t, u = (logic.input(name) for name in "abcdstu")
        return logic.luts([logic.xor(logic.table([a, b, c, d], [s, t]), u)])

    assert (selector(4), selector(6)) == (3, 2)
    tree = [0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1] * 4
    counts = []
    for inputs in (4, 6):
        logic = Logic(inputs)
        entries = [*tree[:32], *(1 - bit for bit in tree[32:])]
        counts.append(logic.luts([logic.tree(entries, [logic.input(n) for n in range(6)])]))
    assert counts[1] == 1 < counts[0]
