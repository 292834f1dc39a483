"""All engines of a network, connected."""

from __future__ import annotations

from typing import assert_never

from amaranth import Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..flow import check_flow
from ..joins import AveragePool, Fifo, Fork, Join, Requantizer
from ..network import Network
from ..pipeline import Argmax, Gearbox, Layer, Pool, Stage, TopK, pipeline
from ..plan import Plan
from .argmax import ArgmaxStage
from .average import AverageEngine
from .fifo import StreamFifo
from .fork import StreamFork
from .gearbox import Collector, Splitter
from .join import JoinEngine, RequantizeEngine
from .layer import LayerEngine
from .nonzero import NonzeroEngine
from .pool import PoolEngine
from .top_k import TopKStage


def component(stage: Stage) -> wiring.Component:
    """The hardware of one stage."""
    match stage:
        case Gearbox():
            width = min(stage.input.width, stage.output.width)
            if stage.input.lanes < stage.output.lanes:
                return Collector(width, stage.output.lanes // stage.input.lanes)
            return Splitter(width, stage.input.lanes // stage.output.lanes)
        case Layer(nonzero=None):
            return LayerEngine(stage)
        case Layer():
            return NonzeroEngine(stage)
        case Pool():
            return PoolEngine(stage)
        case Join():
            return JoinEngine(stage)
        case AveragePool():
            return AverageEngine(stage)
        case Requantizer():
            return RequantizeEngine(stage)
        case Fork():
            return StreamFork(stage.input.width, stage.count)
        case Fifo():
            return StreamFifo(stage.input.width, stage.depth, stage.memory)
        case Argmax():
            x = stage.input.type
            return ArgmaxStage(bits=x.bits, is_signed=x.signed, lanes=stage.input.lanes, words=stage.input.words,
                               index_bits=stage.output.width)
        case TopK():
            x = stage.input.type
            return TopKStage(bits=x.bits, is_signed=x.signed, words=stage.input.words, index_bits=stage.output.type.bits,
                             count=stage.node.top)
        case _:
            assert_never(stage)


def ports(engine: wiring.Component, name: str, count: int) -> list:
    """The ``count`` streams ``i`` or ``o`` of an engine: ``i``, or ``i0``, ``i1`` ... where it has several."""
    return [getattr(engine, name)] if count == 1 else [getattr(engine, f"{name}{k}") for k in range(count)]


class Accelerator(wiring.Component):
    """The whole network: a stream of activation codes in, a stream of results out.

    Parameters
    ----------
    network, plan
        What to compute and how.
    taps
        Bring every stream between stages out as ``tap_<stream>_valid``, ``_ready`` and ``_payload`` (simulation only).

    Attributes
    ----------
    input_format, output_format
        How frames become words.
    pipeline
        Stages and streams.

    Raises
    ------
    PlanError
        If the plan cannot be built, or words would stop moving in it.
    """

    def __init__(self, network: Network, plan: Plan, *, taps: bool = False):
        self.network, self.plan, self.taps = network, plan, taps
        self.pipeline = pipeline(network, plan)
        check_flow(network, plan)
        *inner, last = self.pipeline.streams
        self.input_format, self.output_format = self.pipeline.streams[0].format, last.format
        members = {"i": In(stream.Signature(unsigned(self.input_format.width))),
                   "o": Out(stream.Signature(unsigned(self.output_format.width)))}
        if taps:
            for stream_ in inner[1:]:
                members |= {f"tap_{stream_.name}_valid": Out(1), f"tap_{stream_.name}_ready": Out(1),
                            f"tap_{stream_.name}_payload": Out(stream_.format.width)}
        super().__init__(members)

    def elaborate(self, platform) -> Module:
        m = Module()
        parts = self.pipeline
        writers = {0: wiring.flipped(self.i)}
        for stage, inputs, outputs in zip(parts.stages, parts.inputs, parts.outputs, strict=True):
            m.submodules[stage.name] = engine = component(stage)
            for number, port in zip(inputs, ports(engine, "i", len(inputs)), strict=True):
                wiring.connect(m, writers[number], port)
            writers |= zip(outputs, ports(engine, "o", len(outputs)), strict=True)
        last = len(parts.streams) - 1
        wiring.connect(m, writers[last], wiring.flipped(self.o))
        for number in range(1, last) if self.taps else ():
            tap: dict[str, Signal] = {key: getattr(self, f"tap_{parts.streams[number].name}_{key}")
                                      for key in ("valid", "ready", "payload")}
            m.d.comb += [signal.eq(getattr(writers[number], key)) for key, signal in tap.items()]
        return m
