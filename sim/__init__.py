"""Simulation of generated designs with cocotb, every word and every clock cycle compared with the golden models.

    case.py         what is simulated and what must come out: words and cycles of every stream
    stalls.py       when source and sink pause, the same for golden model and bench
    bench.sv        source, sink and recorder of streams, in Verilog so that no Python runs in a clock cycle
    shell.py        the top module around the designs of a run
    simulators.py   finds and runs Verilator and Icarus
    runner.py       cases -> Verilog -> simulator -> differences
    bench.py        runs inside the simulator: resets, steers, compares
    scoreboard.py   names the first wrong layer, pixel and channel
    netlist.py      the synthesised netlist and its cells, in place of the design
    uart.py         the whole board design over its two wires; uart_bench.py is its part inside the simulator
"""
