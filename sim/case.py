"""What is simulated, and the words and cycles that golden expects on every stream of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.lib import wiring

from lutq_hw.network import Flatten, Network, Output
from lutq_hw.network.tensor import Ints
from lutq_hw.streams import StreamFormat
from lutq_hw.timing import schedule

from .stalls import Stalls


@dataclass(frozen=True)
class Probe:
    """One stream of a design with everything that must move over it.

    Parameters
    ----------
    name
        Name of the layer whose result it carries, for messages and files.
    port
        Prefix of its ``valid``, ``ready`` and ``payload`` ports.
    format
        How tensors travel on it.
    words, cycles
        Every word and the clock cycle of its transfer.
    """

    name: str
    port: str
    format: StreamFormat
    words: Sequence[int]
    cycles: Sequence[int]

    def text(self) -> str:
        """The transfers as the bench records them: ``cycle word``, the word in hexadecimal."""
        digits = (self.format.width + 3) // 4
        return "".join(f"{cycle} {word:0{digits}x}\n" for cycle, word in zip(self.cycles, self.words, strict=True))

    def about(self) -> dict[str, Any]:
        """What the comparison needs to know, as JSON."""
        t = self.format.type
        return {"name": self.name, "shape": t.shape, "bits": t.bits, "signed": t.signed, "lanes": self.format.lanes}


@dataclass(frozen=True)
class Case:
    """A design and its expected behaviour.

    Parameters
    ----------
    name
        An identifier, unique in its run; the design's module is ``NAME_dut``.
    probes
        Input stream first, then in network order; the last is the output.
    stalls
        Pauses on both sides.
    component
        The design: a stream ``i``, a stream ``o`` and taps. None: its Verilog comes from elsewhere (a netlist).
    """

    name: str
    probes: tuple[Probe, ...]
    stalls: Stalls = field(default_factory=Stalls)
    component: wiring.Component | None = None

    @property
    def cycles(self) -> int:
        """Cycles until the last expected word has moved."""
        return 1 + max((probe.cycles[-1] for probe in self.probes if probe.cycles), default=0)

    def write(self, folder: Path) -> None:
        """Stimulus and expectations as files for the bench."""
        digits = (self.probes[0].format.width + 3) // 4
        (folder / f"{self.name}.input").write_text("".join(f"{word:0{digits}x}\n" for word in self.probes[0].words))
        self.stalls.write(folder / f"{self.name}.stalls")
        for probe in self.probes:
            (folder / f"{self.name}.{probe.name}.expected").write_text(probe.text())


def accelerator_case(name: str, accelerator: wiring.Component, network: Network, results: Mapping[str, Ints],
                     stalls: Stalls | None = None) -> Case:
    """The case of a whole accelerator.

    Parameters
    ----------
    accelerator
        An `Accelerator`; with taps every stream is compared, without only input and output.
    network
        The network whose values are expected (a test may build another one to provoke differences).
    results
        ``golden.run(network, codes)``.
    """
    stalls = stalls or Stalls()
    streams = accelerator.pipeline.streams  # type: ignore[attr-defined]
    codes = results[network.input.name]
    times = schedule(accelerator.pipeline, len(codes), idle=stalls.source_idle, stall=stalls.sink_stall).times  # type: ignore
    probes = []
    for number, (stream, cycles) in enumerate(zip(streams, times, strict=True)):
        outside = {0: "i__", len(streams) - 1: "o__"}.get(number)
        if outside or accelerator.taps:  # type: ignore[attr-defined]
            words = stream.format.pack(stream.arranged(np.asarray(results[stream.node])))
            probes.append(Probe(stream.name, outside or f"tap_{stream.name}_", stream.format, words, cycles))
    return Case(name, tuple(probes), stalls, accelerator)


def layer_names(network: Network) -> list[str]:
    """Nodes whose stream can be tapped, in order; a flatten and an output of scores are no hardware."""
    return [node.name for node in network.nodes
            if not isinstance(node, Flatten) and not (isinstance(node, Output) and node.kind == "scores")]
