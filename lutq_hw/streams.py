"""How a tensor travels over a stream: channel last, ``lanes`` elements to a word, lane 0 in the low bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .network import TensorType
from .network.tensor import Ints, require


@dataclass(frozen=True)
class StreamFormat:
    """Words of ``lanes`` elements of ``type``; two's complement when signed."""

    type: TensorType
    lanes: int

    def __post_init__(self) -> None:
        require(self.lanes >= 1 and self.type.channels % self.lanes == 0,
                f"lanes must divide the {self.type.channels} channels, not {self.lanes}")

    @property
    def width(self) -> int:
        """Bits of a word."""
        return self.lanes * self.type.bits

    @property
    def words(self) -> int:
        """Words of one frame."""
        return self.type.size // self.lanes

    def pack(self, frames: Ints) -> list[int]:
        """Words of ``(N, *shape)`` (or of one frame), first word first."""
        codes = np.asarray(frames).reshape(-1, self.lanes) & ((1 << self.type.bits) - 1)
        words = [0] * len(codes)
        for lane in range(self.lanes):
            shift = lane * self.type.bits
            words = [word | int(code) << shift for word, code in zip(words, codes[:, lane], strict=True)]
        return words

    def unpack(self, words: list[int]) -> Ints:
        """The ``(N, *shape)`` frames in ``words``; their number must be a multiple of `words`."""
        mask, half = (1 << self.type.bits) - 1, 1 << (self.type.bits - 1)
        codes = np.array([[word >> lane * self.type.bits & mask for lane in range(self.lanes)] for word in words], np.int64)
        if self.type.signed:
            codes = (codes ^ half) - half
        return codes.reshape(-1, *self.type.shape)
