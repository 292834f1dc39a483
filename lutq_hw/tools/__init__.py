"""External tools: the only folder that starts processes.

    RTLIL --yosys.synthesize--> netlist (JSON), cells per module --nextpnr.place_and_route--> bitstream, clock

`runner.Runner` finds a tool (wheel or native), runs it with a log and a time limit, and turns a failure into a
sentence.
"""
