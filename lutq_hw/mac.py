"""What every MAC unit is: a ``pe x simd`` array that sums products T[x, index], in one description.

One frozen object holds the parameters, the price, the numpy reference and the constructor of the hardware. Adding a
unit is adding one file to ``units/``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from amaranth import Shape, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .cost import Cost
from .families import ICE40
from .family import Family
from .network import Codebook, ModelError, TensorType
from .network.tensor import Ints
from .paths import Path, counted_paths


@dataclass(frozen=True, kw_only=True, eq=False)
class MacUnit(ABC):
    """``pe`` output channels times ``simd`` terms a cycle.

    The component has a stream ``i`` of `input_layout` and a stream ``o`` of `output_layout`. It sums the words up to and
    including one with ``last`` and then offers one word of ``pe`` sums, ``latency`` cycles after the transfer of that last
    word if nothing stalls. It takes a word every cycle and moves as one pipeline: ``i.ready = o.ready | ~o.valid``
    combinationally, and every register, bubbles included, advances exactly when ``i.ready`` is high.

    A unit may ask for a gap between dot products: after reset and after every word with ``last``, ``i.valid`` is low in
    the first `gap` cycles with ``i.ready``, and in the n-th of them every lane's index is ``readout[n]``. Source, cycle
    model and planner know the gap, so it costs a layer ``gap`` cycles for each dot product and nothing is negotiated.

    A unit whose memories must be emptied before it can sum anything may have a `startup`: that many cycles after reset
    ``i.ready`` and ``o.valid`` are low, and whatever stands in front of the unit does not move. The gap comes after it.

    Parameters
    ----------
    codebook
        What `view` makes of the layer's weights; gives the dictionary or the product table.
    x_bits, x_signed
        Activation codes on the wire (two's complement when signed).
    pe, simd
        Size of the array.
    spread
        Channel groups that are summed at once, each by ``pe / spread`` outputs and over activations of its own; 1: all
        outputs sum over the same activations.
    acc_bits
        Width of the signed sums; sums wrap modulo ``2**acc_bits`` on the way, and the final one fits.
    offset
        Sums may be larger by what `excess` says of the index of every term: whoever takes them knows the weights.
    family
        FPGA family that it is counted for.
    order
        Which of an output's terms each lane of each word of a dot product sums, ``(fold, simd)`` (`geometry.term_order`):
        every dot product then has ``fold`` words, and the indices are those of ``codebook.assignments``. None: dot products
        of any length and any indices may come.
    """

    codebook: Codebook
    x_bits: int
    x_signed: bool
    pe: int
    simd: int
    acc_bits: int
    family: Family = ICE40
    order: Ints | None = None
    spread: int = 1
    offset: bool = False

    name: ClassVar[str]
    """Word used in plans, command line and reports."""

    needs: ClassVar[str] = ""
    """What a layer must have for it, in a few words for the list of units; empty: that shows its docstring."""

    any_length: ClassVar[bool] = True
    """Takes dot products of any length and order (``order`` None) without a gap, as a layer that skips zeros has them."""

    spreads: ClassVar[bool] = False
    """Takes a ``spread`` above 1, as a depthwise convolution has it."""

    @property
    @abstractmethod
    def latency(self) -> int:
        """Cycles from the transfer of the last word to ``o.valid`` (see class docstring)."""

    @property
    def readout(self) -> tuple[int, ...]:
        """Index that every lane gets in each cycle of the gap; a unit without a gap has none."""
        return ()

    @property
    def gap(self) -> int:
        """Cycles that the source leaves between dot products (see class docstring)."""
        return len(self.readout)

    @property
    def startup(self) -> int:
        """Cycles after reset in which nothing is taken (see class docstring)."""
        return 0

    @classmethod
    def view(cls, weights: Codebook) -> Codebook:
        """A layer's weights as this unit takes them: with one subgroup, unless the unit knows better."""
        return weights.flat

    @classmethod
    def reject(cls, codebook: Codebook, x_bits: int, x_signed: bool) -> str | None:
        """Why this unit cannot run such a layer, as a sentence for the plan's table; None if it can.

        ``codebook`` is the `view` of the layer's weights.
        """
        return None

    @classmethod
    def reject_order(cls, weights: Codebook, order: Ints) -> str | None:
        """Why this unit cannot sum a layer's terms in that order (see ``order``), as a sentence; None if it can."""
        return None

    @classmethod
    def refusal(cls, weights: Codebook, x: TensorType) -> str | None:
        """Why this unit cannot run a layer of ``weights`` over activations of type ``x``; None if it can."""
        try:
            return cls.reject(cls.view(weights), x.bits, x.signed)
        except ModelError as error:
            return str(error)

    @classmethod
    def for_layer(cls, weights: Codebook, x: TensorType, *, pe: int, simd: int, acc_bits: int, order: Ints | None,
                  spread: int = 1) -> Self:
        """The unit that sums a layer of ``weights`` over activations of type ``x``."""
        return cls(codebook=cls.view(weights), x_bits=x.bits, x_signed=x.signed, pe=pe, simd=simd, acc_bits=acc_bits,
                   order=order, spread=spread)

    def off(self, acc_bits: int) -> Self:
        """This unit with ``offset``, and accumulators for what its sums then are."""
        return replace(self, acc_bits=acc_bits, offset=True)

    @abstractmethod
    def cost(self) -> Cost:
        """Cells by structure: adder bits, and logic packed into luts of ``family.lut_inputs``.

        On iCE40, whose synthesis the counting follows, that is the price, held against the points in ``units/points/``.
        For the price in any family ask `unit_cost.unit_cost`, which knows what the others make of the same structure.
        """

    @property
    def conditional_bits(self) -> int:
        """Bits of adders in the lanes that add or do not: on iCE40 that choice is in the adder's lut, elsewhere beside it."""
        return 0

    @cached_property
    def counted(self) -> tuple[Cost, list[Path]]:
        """`cost`, and the paths through what it counts (`paths`); both from one count."""
        with counted_paths() as paths:
            cost = self.cost()
        return cost, paths

    @abstractmethod
    def create(self) -> wiring.Component:
        """The array."""

    @property
    def x_shape(self) -> Shape:
        """Amaranth shape of one activation."""
        return signed(self.x_bits) if self.x_signed else unsigned(self.x_bits)

    @property
    def index_bits(self) -> int:
        """Bits of one index on the wire."""
        return self.codebook.index_bits

    @property
    def input_layout(self) -> data.StructLayout:
        """``x[spread * simd]`` (`activation`), ``index[pe * simd]`` (of PE p and term s at ``p * simd + s``), ``last``."""
        return data.StructLayout({
            "x": data.ArrayLayout(self.x_shape, self.spread * self.simd),
            "index": data.ArrayLayout(unsigned(self.index_bits), self.pe * self.simd),
            "last": 1,
        })

    def activation(self, p: int, s: int) -> int:
        """Where in ``x`` term ``s`` of PE ``p`` is: activations stand group by group, each group's outputs share them."""
        return p * self.spread // self.pe * self.simd + s

    @property
    def output_layout(self) -> data.ArrayLayout:
        """``pe`` signed sums."""
        return data.ArrayLayout(signed(self.acc_bits), self.pe)

    @property
    def members(self) -> dict[str, wiring.Member]:
        """Signature of the component."""
        sums, terms = stream.Signature(self.output_layout), stream.Signature(self.input_layout)  # pyright: ignore
        return {"i": In(terms), "o": Out(sums)}

    @cached_property
    def levels(self) -> Ints:
        """Value of every activation, ascending."""
        low = -(1 << (self.x_bits - 1)) if self.x_signed else 0
        return np.arange(low, low + (1 << self.x_bits), dtype=np.int64)

    @cached_property
    def products(self) -> Ints:
        """``(L, K)`` product table; row ``x - levels[0]``."""
        if self.codebook.table is not None:
            return self.codebook.table[0]
        return self.levels[:, None] * self.codebook.dictionary[0][None, :]

    @property
    def excess(self) -> Ints:
        """``(K,)`` by how much a term is larger with ``offset``, by its index: zeros if that would make nothing cheaper."""
        return np.zeros(self.codebook.entries, np.int64)

    @cached_property
    def summed(self) -> Ints:
        """``(L, K)`` what is added up for every activation and index: products, and with ``offset`` their excess."""
        return self.products + self.excess if self.offset else self.products

    def reference(self, x: Ints, index: Ints) -> Ints:
        """``(pe,)`` sums of ``x (words, spread * simd)`` and ``index (words, pe, simd)``."""
        place = [[self.activation(p, s) for s in range(self.simd)] for p in range(self.pe)]
        return self.summed[(x - self.levels[0])[:, place], index].sum(axis=(0, 2))
