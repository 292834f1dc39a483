"""Estimated beside measured, per layer and in total: ``report.json`` of a build, and the same as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .board import Board
from .cost import Cost
from .link.rate import Baud, frames_per_second
from .performance import Performance
from .table import Cell, table

KINDS = ("luts", "ffs", "brams", "sprams", "dsps")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the tools said about a design."""

    stages: Mapping[str, Cost]
    """Of every stage of the accelerator."""

    total: Cost
    target_hz: float
    """Clock of the bitstream."""

    achieved_hz: float
    """Clock that the routed design could take."""

    baud: Baud
    bitstream: str
    tools: Mapping[str, str]
    seconds: Mapping[str, float]


def make_report(performance: Performance, board: Board, around: Cost, measured: Measured) -> dict[str, Any]:
    """``report.json`` as Python values; ``around`` is the estimate for all that is not the accelerator."""
    network = performance.network
    estimated = performance.cost + around
    index_bits, entropy, weights = 0.0, 0.0, 0
    for node in network.weighted:
        count = int(node.weights.assignments.size)
        weights += count
        index_bits += count * node.weights.index_bits
        entropy += count * node.weights.entropy
    return {
        "model": {"name": network.name, "digest": network.digest, "accuracy": network.info.get("accuracy")},
        "board": board.name,
        "layers": _layers(performance, measured),
        **{kind: {"estimated": round(getattr(estimated, kind)), "measured": round(getattr(measured.total, kind)),
                  "capacity": round(getattr(board.capacity, kind))} for kind in KINDS},
        "clock_mhz": {"target": _mhz(measured.target_hz), "achieved": _mhz(measured.achieved_hz)},
        "cycles_per_frame": performance.cycles_per_frame,
        "frames_per_second": {
            "accelerator": round(measured.target_hz / performance.cycles_per_frame, 1),
            "link": round(frames_per_second(measured.baud.baud, network), 1),
        },
        "lane_utilisation": round(performance.lane_utilisation, 4),
        "bits_per_weight": round(index_bits / weights, 4) if weights else None,
        "index_entropy": round(entropy / weights, 4) if weights else None,
        "link": {"baud": measured.baud.baud, "divisor": measured.baud.divisor},
        "bitstream": measured.bitstream,
        "tools": dict(measured.tools),
        "seconds": {stage: round(seconds, 1) for stage, seconds in measured.seconds.items()},
    }


def _mhz(hz: float) -> float:
    return round(hz / 1e6, 3)


def _layers(performance: Performance, measured: Measured) -> list[dict[str, Any]]:
    """One entry for each stage: weight layers with unit and array, the others with their cells."""
    figures = {f.layer.name: f for f in performance.layers}
    layers = []
    for stage in performance.stages:
        entry: dict[str, Any] = {"name": stage.name, "kind": type(stage).__name__.lower()}
        if stage.name in figures:
            f = figures[stage.name]
            plan = f.layer.plan
            entry |= {"unit": plan.unit, "pe": plan.pe, "simd": plan.simd, "macs": f.macs, "cycles": f.cycles,
                      "lane_utilisation": round(f.lane_utilisation, 4)}
        for key, cost in (("estimated", performance.costs[stage.name]), ("measured", measured.stages[stage.name])):
            entry[key] = {kind: round(getattr(cost, kind)) for kind in KINDS}
        layers.append(entry)
    return layers


def _pair(entry: Mapping[str, Any], kind: str) -> str:
    return f"{entry['estimated'][kind]} / {entry['measured'][kind]}"


def report_text(report: Mapping[str, Any]) -> str:
    """The report for people."""
    header = ["layer", "unit", "pe x simd", "cycles", "lanes used", *(f"{kind} est / is" for kind in KINDS)]
    rows: list[list[Cell]] = []
    for layer in report["layers"]:
        row: list[Cell] = [layer["name"], layer.get("unit"), None, layer.get("cycles"), None]
        if "unit" in layer:
            row[2], row[4] = f"{layer['pe']} x {layer['simd']}", f"{100 * layer['lane_utilisation']:.1f} %"
        rows.append(row + [_pair(layer, kind) for kind in KINDS])
    total: list[Cell] = ["design", None, None, report["cycles_per_frame"], f"{100 * report['lane_utilisation']:.1f} %"]
    total += [f"{report[kind]['estimated']} / {report[kind]['measured']}" for kind in KINDS]
    rows.append([report["board"], None, None, None, None, *(f"{report[kind]['capacity']}" for kind in KINDS)])
    model, clock, fps = report["model"], report["clock_mhz"], report["frames_per_second"]
    accuracy = "not recorded" if model["accuracy"] is None else f"{100 * model['accuracy']:.2f} %"
    weights = "none" if report["bits_per_weight"] is None else \
        f"{report['bits_per_weight']:.2f} bits each, entropy {report['index_entropy']:.2f}"
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in report["seconds"].items())
    rate = (f"{fps['accelerator']:,.0f} frames/s accelerator, {fps['link']:,.0f} frames/s through the link "
            f"({report['link']['baud']:,} baud)")
    return "\n".join([
        f"{model['name']} on {report['board']}, integer accuracy {accuracy}",
        f"digest {model['digest']}",
        "",
        table(header, rows, total),
        "",
        f"clock      {clock['target']:g} MHz (the routed design could take {clock['achieved']:g})",
        f"rate       {rate}",
        f"weights    {weights}",
        f"bitstream  {report['bitstream']}",
        f"tools      {', '.join(report['tools'].values())}",
        f"time       {seconds}",
    ])
