"""What a data set is: uint8 images with labels, split into training and test, and how a pixel becomes a code."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lutq_hw.errors import InputError

CENTRE = 128
"""Pixel value whose signed code is 0."""

SIGNED_SCALE = 2.0**-6
"""Value of one signed 8-bit code. Colour images have a standard deviation near 58, so that codes come out near 1."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images ``(N, H, W, C)`` uint8 with values up to ``peak`` and labels ``(N,)`` int64 below ``classes``.

    The rows of a table are images of ``(1, 1, F)``. Where ``signed`` is true, codes are centred: `encode`.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int
    peak: int
    signed: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(H, W, C)`` of one image."""
        height, width, channels = self.train_images.shape[1:]
        return height, width, channels

    @property
    def background(self) -> int:
        """Pixel value whose code is 0: what lies outside an image."""
        return CENTRE if self.signed else 0

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all images and labels: a resumed run must see the same data."""
        sha = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            # Grey images are hashed without their last axis, as they were when shipped models recorded the digest.
            grey = array.ndim == 4 and array.shape[3] == 1
            sha.update(f"{array.shape[:3] if grey else array.shape}".encode())
            sha.update(np.ascontiguousarray(array).data)
        return sha.hexdigest()

    def encode(self, bits: int) -> np.ndarray:
        """Pixel to code, 256 entries int64, for codes of 1 to 8 bits.

        Unsigned: ``round(pixel * (2^bits - 1) / peak)``, halves up, saturating. Signed:
        ``floor((pixel - 128) / 2^(8 - bits))``.
        """
        pixels = np.arange(256)
        if self.signed:
            return (pixels - CENTRE) >> (8 - bits)
        top = (1 << bits) - 1
        return np.minimum((2 * pixels * top + self.peak) // (2 * self.peak), top)

    def input_scale(self, bits: int) -> float:
        """Value of one code; a power of two, so that codes times it are exact in every float type."""
        return SIGNED_SCALE * 2.0 ** (8 - bits) if self.signed else 2.0**-bits


def folder_of(name: str, folder: str | None, needs: str) -> Path:
    """The folder the user gave.

    Raises
    ------
    InputError
        If there is none, with ``needs`` saying what the data set ``name`` looks for.
    """
    if folder is None:
        raise InputError(f"{name} needs {needs}; give their folder with --data DIR or in LUTQ_DATA")
    return Path(folder)
