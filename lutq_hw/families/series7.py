"""AMD 7 series (Artix, Kintex, Spartan, Zynq): lut6, a CARRY4 beside every four; half blocks RAMB18; DSP48E1."""

from ..family import Family

FAMILY = Family(
    name="series7",
    title="AMD 7 series",
    lut_inputs=6,
    synth="synth_xilinx -top top -family xc7 -flatten -noiopad -noclkbuf",
    cell_models="xilinx/cells_sim.v",
    modelled="-nobram -nodsp",
    cells={
        "LUT[1-6]": {"luts": 1},
        "INV": {"luts": 1},  # a CARRY4 takes its operands as they are
        "SRL16E|SRLC16E|SRLC32E": {"luts": 1},
        "RAM32X1S|RAM64X1S": {"luts": 1},
        "RAM32X1D|RAM64X1D": {"luts": 2},
        "RAM32M|RAM64M": {"luts": 4},
        "FD[RSCP]E": {"ffs": 1},
        "RAMB18E1": {"brams": 1},
        "RAMB36E1": {"brams": 2},
        "DSP48E1": {"dsps": 1},
    },
    carry_cells="CARRY4",
    lutram=(32, 6, 4),
    bram_shapes=((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)),
)
