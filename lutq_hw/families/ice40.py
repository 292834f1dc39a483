"""Lattice iCE40: lut4 with the carry in the same cell; SB_RAM40_4K; SB_MAC16 and SPRAM in the UltraPlus."""

from ..family import Family

FAMILY = Family(
    name="ice40",
    title="Lattice iCE40",
    lut_inputs=4,
    synth="synth_ice40 -top top -dsp -device u",
    cell_models="ice40/cells_sim.v",
    cells={
        "SB_LUT4": {"luts": 1},
        "SB_DFF.*": {"ffs": 1},
        "SB_RAM40_4K.*": {"brams": 1},
        "SB_SPRAM256KA": {"sprams": 1},
        "SB_MAC16": {"dsps": 1},
    },
    carry_cells="SB_CARRY",
    bram_shapes=((16, 256), (8, 512), (4, 1024), (2, 2048)),
)
