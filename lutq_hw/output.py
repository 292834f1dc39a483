"""What every output stage is: it turns ``pe`` sums into codes, ``lanes`` at a time. One file each in ``outputs/``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from amaranth import signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .network import TensorType
from .network.tensor import Ints
from .sums import Sums


@dataclass(frozen=True, kw_only=True, eq=False)
class OutputStage(ABC):
    """Takes words of ``pe`` sums on a stream ``i`` and gives words of ``lanes`` codes on a stream ``o``.

    Words come in channel order, ``outputs / pe`` of them to a pixel, and leave in channel order. A word is worked on for
    `interval` cycles and the next is taken in the last of them, unless two results still wait to leave (of a stage that
    works on two words `at_once`, see `timing.PairTimer`). The first code of a word is valid `latency` cycles after its
    transfer.

    Parameters
    ----------
    sums
        What is finished: exact range, bias and step of every channel, type of the result.
    pe, lanes
        Sums in a word and codes in a word; ``lanes`` divides ``pe``.
    memory
        Where the stage's table lives: ``bram`` or ``luts``.
    """

    sums: Sums
    pe: int
    lanes: int
    memory: str

    name: ClassVar[str]
    """Word used in plans and reports."""

    needs: ClassVar[str] = ""
    """What a layer must have for it, in a few words for the list of stages; empty: that shows its docstring."""

    takes_constants: ClassVar[bool] = False
    """Sums that are off by a constant for each channel cost it nothing: whatever it holds for a channel is moved as well."""

    cut: ClassVar[bool] = False
    """A register stands between a comparison and the address of the word that is read next.

    All of the stage then stops while codes cannot leave; otherwise only the cycle that would give codes waits.
    """

    @classmethod
    @abstractmethod
    def reject(cls, sums: Sums) -> str | None:
        """Why this stage cannot finish those sums, as a sentence; None if it can."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Cycles for one word of ``lanes`` codes; on average, if slices or words take turns."""

    @property
    @abstractmethod
    def table(self) -> tuple[int, int]:
        """Width and depth of the table of one lane; width 0 if it has none."""

    @property
    def contents(self) -> Ints | None:
        """``(lanes, depth)`` words of `table`, each lane's own; None if it has none, or `features` counts them."""
        return None

    @property
    def addressed(self) -> Ints | None:
        """`contents` as far as they are ever read; ``(lanes, n)``."""
        return self.contents

    @property
    def same_address(self) -> bool:
        """Whether the tables of all lanes are read at one address: that of the row, if a result takes one step."""
        return self.steps == 1

    @property
    def read_by_sum(self) -> tuple[int, int]:
        """Width and depth of a block RAM in each lane that is addressed by the sum; width 0 if there is none."""
        return 0, 1

    @property
    def delay(self) -> int:
        """1 if the codes come a cycle after the last step, out of a memory that it addresses or (`cut`) registers; else 0."""
        return 0

    @property
    def at_once(self) -> int:
        """Words that are worked on at the same time, each for so many `interval`: 1 or 2."""
        return 1

    @property
    def ends(self) -> tuple[bool, ...]:
        """Of the cycles that a word is worked on, those in which codes are found."""
        return tuple((cycle + 1) % self.steps == 0 for cycle in range(self.interval))

    @property
    def lone_carries(self) -> int:
        """Bits of adders of which only the sign is used, where a stage has many: on iCE40 a cell each, but no lut."""
        return 0

    def features(self, lut_inputs: int) -> Mapping[str, float]:
        """What its price depends on beside the structure that all stages share: names and amounts (`costing`).

        Parameters
        ----------
        lut_inputs
            Inputs of a lut, for what is packed into luts.
        """
        return {}

    @abstractmethod
    def create(self) -> wiring.Component:
        """The hardware."""

    @property
    def result_levels(self) -> int:
        """Luts one behind the other from the comparison to the code, as far as they grow with the stage: for delays."""
        return 0

    @property
    def slices(self) -> int:
        """Output words to an input word."""
        return self.pe // self.lanes

    @property
    def rows(self) -> int:
        """Output words to a pixel; every lane's table has an entry for each."""
        return self.sums.outputs // self.lanes

    @property
    def interval(self) -> int:
        """Cycles between two input words, on average."""
        return self.slices * self.steps

    @property
    def latency(self) -> int:
        """Cycles from the transfer of an input word, when it is the only one, to its first output word."""
        return self.ends.index(True) + self.delay + 2

    @property
    def sum_range(self) -> tuple[int, int]:
        """Exact range of the sums, over all channels and including 0."""
        return self.sums.range

    @property
    def acc_bits(self) -> int:
        """Width of the signed sums."""
        return self.sums.bits

    @property
    def type(self) -> TensorType:
        """Type of the result."""
        return self.sums.type

    @property
    def members(self) -> dict[str, wiring.Member]:
        """Signature of the component."""
        sums = stream.Signature(data.ArrayLayout(signed(self.acc_bits), self.pe))  # pyright: ignore
        codes = stream.Signature(unsigned(self.lanes * self.type.bits))  # pyright: ignore
        return {"i": In(sums), "o": Out(codes)}
