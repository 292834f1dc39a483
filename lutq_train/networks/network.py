"""What a network of a recipe is: options that build a plain torch module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lutq_hw.errors import InputError

Shape = tuple[int, int, int]
"""``(H, W, C)`` of one image; the modules themselves take ``(B, C, H, W)``."""


@dataclass(frozen=True)
class NetworkOptions:
    """Base of a network's options; a subclass sets ``name`` and its own fields, each with a default.

    Networks are made of torch's own layers only, so that quantising them goes the way of a user's own network.
    """

    name: ClassVar[str]

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """The float network for images of ``shape``; its output is ``(B, classes)``.

        Raises
        ------
        InputError
            If the images are too small for it.
        """
        raise TypeError(f"{type(self).__name__} must define build")


def check_all(key: str, values: tuple[int, ...], low: int, high: int) -> None:
    """Refuse a list option that holds a value outside of ``low`` to ``high``."""
    for value in values:
        if not low <= value <= high:
            raise InputError(f"model.{key} must hold values from {low} to {high}, not {value}")


def check_size(name: str, shape: Shape, least: int) -> None:
    """Refuse images that are smaller than ``least`` along an axis."""
    if min(shape[:2]) < least:
        raise InputError(f"model {name} must have images of {least} x {least} or more, not {shape[0]} x {shape[1]}")
