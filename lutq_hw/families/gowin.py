"""Gowin LittleBee and Arora (GW1N, GW2A): lut4, an ALU for each adder bit; SDPB, DPB or pROM blocks; multipliers by size."""

from ..family import Family

FAMILY = Family(
    name="gowin",
    title="Gowin GW1N and GW2A",
    lut_inputs=4,
    # With wide multiplexers ABC9 pays up to twice the luts for a level less.
    synth="synth_gowin -top top -noiopads -nowidelut",
    cell_models="gowin/cells_sim.v",
    modelled="-nobram -nodsp",
    cells={
        "LUT[1-4]": {"luts": 1},
        "ALU": {"luts": 1},
        "RAM16SDP4|RAM16SDP2|RAM16SDP1": {"luts": 4},  # a CFU's half holds 16 x 4, whatever is used of it
        "DFF.*": {"ffs": 1},
        "(SDP|DP|SP|SDPX9|DPX9|SPX9|pROM|pROMX9|SDPB|DPB|SDPX9B|DPX9B)": {"brams": 1},
        "MULT(9X9|18X18|36X36)": {"dsps": 1},  # boards count blocks of 18 x 18: a 9 x 9 is half of one
    },
    carry_cells="ALU",
    lutram=(16, 4, 4),
    bram_shapes=((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)),
    dsp_operand_bits=4,
)
