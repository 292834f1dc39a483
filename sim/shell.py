"""The top module of a simulation: for every case a source, the design, a recorder on each stream, and pauses."""

from __future__ import annotations

from collections.abc import Sequence

from .case import Case, Probe
from .stalls import PERIOD

TOP = "simulation_top"
"""Module that cocotb sees, with inputs ``clk``, ``rst``, ``flush``."""


def _recorder(case: Case, probe: Probe) -> str:
    return f"""\
    stream_recorder #(.WIDTH({probe.format.width}), .FILE("{case.name}.{probe.name}.recorded")) rec_{probe.port} (
        .clk(clk), .rst(rst), .flush(flush), .cycle(cycle),
        .valid({probe.port}valid), .ready({probe.port}ready), .payload({probe.port}payload));
"""


def case_module(case: Case) -> str:
    """Module ``NAME_bench``."""
    probes = case.probes
    wires = "".join(f"""\
    wire {p.port}valid, {p.port}ready;
    wire [{p.format.width - 1}:0] {p.port}payload;
""" for p in probes)
    ports = ", ".join(f".{p.port}{key}({p.port}{key})" for p in probes for key in ("valid", "ready", "payload"))
    return f"""\
module {case.name}_bench (input wire clk, input wire rst, input wire flush);
    wire [31:0] cycle;
    wire idle, stall;
{wires}
    assign o__ready = ~stall;
    stalls #(.PERIOD({PERIOD}), .FILE("{case.name}.stalls")) pauses (
        .clk(clk), .rst(rst), .cycle(cycle), .idle(idle), .stall(stall));
    stream_source #(.WIDTH({probes[0].format.width}), .FILE("{case.name}.input")) source (
        .clk(clk), .rst(rst), .idle(idle), .valid(i__valid), .ready(i__ready), .payload(i__payload));
    {case.name}_dut dut (.clk(clk), .rst(rst), {ports});
{"".join(_recorder(case, probe) for probe in probes)}endmodule
"""


def top_module(cases: Sequence[Case]) -> str:
    """All cases side by side, and the top."""
    instances = "".join(f"""\
    {case.name}_bench case_{case.name} (
        .clk(clk), .rst(rst), .flush(flush));
""" for case in cases)
    return "".join(case_module(case) for case in cases) + f"""\
module {TOP} (
    input wire clk /* verilator public_flat_rw */,
    input wire rst /* verilator public_flat_rw */,
    input wire flush /* verilator public_flat_rw */
);
{instances}endmodule
"""
