"""What every board gets: the accelerator behind its host link, with two wires and a result to show."""

from __future__ import annotations

from amaranth import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..cost import Cost, bram_count
from ..link.protocol import frame_bytes
from ..network import Network
from ..plan import Plan
from .accelerator import Accelerator
from .host import HostLink

LINK_COST = Cost(luts=410, ffs=205)
"""Host link without its frame buffer, as synthesised for 28 x 28 frames; hardly depends on the network."""


class System(wiring.Component):
    """Accelerator and UART, in the domain ``sync``.

    Parameters
    ----------
    network, plan
        Of the accelerator.
    divisor
        Clock cycles of a bit on the line.

    Attributes
    ----------
    rx, tx
        The lines, idle high; ``rx`` may be asynchronous.
    show
        Class of the last frame, as `HostLink` gives it.
    """

    def __init__(self, network: Network, plan: Plan, *, divisor: int):
        self.accelerator = Accelerator(network, plan)
        self.link = HostLink(self.accelerator.input_format, self.accelerator.output_format,
                             digest=bytes.fromhex(network.digest), divisor=divisor, ranked=network.output.top > 0)
        show = self.link.signature.members["show"]
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "show": show})

    @property
    def link_cost(self) -> Cost:
        """Estimated price of the host link."""
        slot = 1 << max(1, (frame_bytes(self.link.input_format.type) - 1).bit_length())
        return LINK_COST + Cost(brams=bram_count(8, slot * self.link.slots))

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.link = link = self.link
        m.submodules.accelerator = ResetInserter(link.reset_accelerator)(self.accelerator)
        wiring.connect(m, link.words, self.accelerator.i)
        wiring.connect(m, self.accelerator.o, link.results)
        wiring.connect(m, link.show, wiring.flipped(self.show))
        m.d.comb += [link.rx.eq(self.rx), self.tx.eq(link.tx)]
        return m
