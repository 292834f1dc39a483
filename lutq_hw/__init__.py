"""Networks with small trained dictionaries as exact hardware. Never imports torch.

    model.npz --modelfile--> network --planner--> plan --gateware--> accelerator --emit--> RTLIL / Verilog
                                |                   |                                         |
                                golden (values)     timing (cycles)      sim (cocotb)   build (bitstream, report)
"""

__version__ = "0.1.0"
