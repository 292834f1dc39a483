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
from lutq_hw.pipeline import Gearbox, Stage
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


def stage_results(stages: Sequence[Stage], network: Network, results: Mapping[str, Ints],
                  ) -> list[tuple[StreamFormat, Ints]]:
    """Format and golden values ``(N, ...)`` of the stream behind every stage.

    A gearbox carries the values of the stage before it; its format keeps that stage's shape where the lanes allow it,
    so that differences can be named by pixel and channel.
    """
    found: list[tuple[StreamFormat, Ints]] = []
    source = network.input.name
    for stage in stages:
        output = stage.output
        if isinstance(stage, Gearbox):
            shaped = network.types[source]
            if shaped.channels % output.lanes == 0:
                output = StreamFormat(shaped, output.lanes)
        else:
            source = stage.name
        found.append((output, results[source]))
    return found


def accelerator_case(name: str, accelerator: wiring.Component, network: Network, results: Mapping[str, Ints],
                     stalls: Stalls | None = None) -> Case:
    """The case of a whole accelerator.

    Parameters
    ----------
    accelerator
        An `Accelerator`; with taps every stage's stream is compared, without only input and output.
    network
        The network whose values are expected (a test may build another one to provoke differences).
    results
        ``golden.run(network, codes)``.
    """
    stalls = stalls or Stalls()
    stages: Sequence[Stage] = accelerator.stages  # type: ignore[attr-defined]
    codes = results[network.input.name]
    slowest = sum(getattr(stage, "interval", 0) + stage.input.words + stage.output.words for stage in stages)
    limit = int((1000 + 20 * (len(codes) + 2) * slowest) / ((1 - stalls.idle) * (1 - stalls.stall)))
    times = schedule(stages, len(codes), idle=stalls.source_idle, stall=stalls.sink_stall, limit=limit)
    source = stages[0].input
    probes = [Probe(network.input.name, "i__", source, source.pack(codes), times.input)]
    layers = zip(stages, stage_results(stages, network, results), times.outputs, strict=True)
    for stage, (output, values), cycles in layers:
        last = stage is stages[-1]
        if last or accelerator.taps:  # type: ignore[attr-defined]
            words = output.pack(np.asarray(values))
            probes.append(Probe(stage.name, "o__" if last else f"tap_{stage.name}_", output, words, cycles))
    return Case(name, tuple(probes), stalls, accelerator)


def layer_names(network: Network) -> list[str]:
    """Nodes whose stream can be tapped, in order; a flatten and an output of scores are no hardware."""
    return [node.name for node in network.nodes
            if not isinstance(node, Flatten) and not (isinstance(node, Output) and node.kind == "scores")]
