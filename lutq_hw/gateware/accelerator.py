"""All engines of a network, connected."""

from __future__ import annotations

from typing import assert_never

from amaranth import Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..network import Network
from ..pipeline import Argmax, Gearbox, Layer, Pool, Stage, pipeline
from ..plan import Plan
from .argmax import ArgmaxStage
from .gearbox import Collector, Splitter
from .layer import LayerEngine
from .nonzero import NonzeroEngine
from .pool import PoolEngine


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
        case Argmax():
            x = stage.input.type
            return ArgmaxStage(bits=x.bits, is_signed=x.signed, lanes=stage.input.lanes, words=stage.input.words,
                               index_bits=stage.output.width)
        case _:
            assert_never(stage)


class Accelerator(wiring.Component):
    """The whole network: a stream of activation codes in, a stream of results out.

    Parameters
    ----------
    network, plan
        What to compute and how.
    taps
        Bring the stream behind every stage out as ``tap_<stage>_valid``, ``_ready`` and ``_payload`` (simulation only).

    Attributes
    ----------
    input_format, output_format
        How frames become words.
    stages
        The stages in order.
    """

    def __init__(self, network: Network, plan: Plan, *, taps: bool = False):
        self.network, self.plan, self.taps = network, plan, taps
        self.stages = pipeline(network, plan)
        self.input_format, self.output_format = self.stages[0].input, self.stages[-1].output
        members = {"i": In(stream.Signature(unsigned(self.input_format.width))),
                   "o": Out(stream.Signature(unsigned(self.output_format.width)))}
        if taps:
            for stage in self.stages:
                members |= {f"tap_{stage.name}_valid": Out(1), f"tap_{stage.name}_ready": Out(1),
                            f"tap_{stage.name}_payload": Out(stage.output.width)}
        super().__init__(members)

    def elaborate(self, platform) -> Module:
        m = Module()
        source = wiring.flipped(self.i)
        for stage in self.stages:
            m.submodules[stage.name] = engine = component(stage)
            wiring.connect(m, source, engine.i)
            if self.taps:
                tap: dict[str, Signal] = {key: getattr(self, f"tap_{stage.name}_{key}")
                                          for key in ("valid", "ready", "payload")}
                m.d.comb += [signal.eq(getattr(engine.o, key)) for key, signal in tap.items()]
            source = engine.o
        wiring.connect(m, source, wiring.flipped(self.o))
        return m
