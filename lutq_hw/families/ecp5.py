"""Lattice ECP5: lut4, two of them with two carries in a CCU2C, six in a distributed RAM of 16 x 4; DP16KD; MULT18X18D."""

from ..family import Family

FAMILY = Family(
    name="ecp5",
    title="Lattice ECP5",
    lut_inputs=4,
    # With wide multiplexers ABC9 pays up to twice the luts for a level less.
    synth="synth_ecp5 -top top -nowidelut",
    cell_models="ecp5/cells_sim.v",
    modelled="-nobram -nodsp",
    cells={
        "LUT4": {"luts": 1},
        "CCU2C": {"luts": 2},  # an odd adder bit leaves half of one empty
        "TRELLIS_DPR16X4": {"luts": 6},  # four hold the bits, two the write port
        "TRELLIS_FF": {"ffs": 1},
        "DP16KD": {"brams": 1},
        "MULT18X18D": {"dsps": 1},
    },
    carry_cells="CCU2C",
    lutram=(16, 4, 6),
    bram_shapes=((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)),
)
