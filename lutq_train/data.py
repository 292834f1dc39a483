"""Data sets as uint8 images: scikit-learn's digits, and MNIST from its four idx files."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lutq_hw.errors import InputError

IDX_UINT8 = 8


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images ``(N, H, W)`` uint8 with values up to ``peak`` and labels ``(N,)`` int64 below ``classes``."""

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int
    peak: int

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all images and labels: a resumed run must see the same data."""
        sha = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            sha.update(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()

    def encode(self, bits: int) -> np.ndarray:
        """Pixel to code, 256 entries: ``round(pixel * (2^bits - 1) / peak)``, halves up, saturating."""
        top = (1 << bits) - 1
        return np.minimum((2 * np.arange(256) * top + self.peak) // (2 * self.peak), top)


def load(name: str, folder: str | None = None) -> Dataset:
    """A data set by name; ``folder`` (or LUTQ_DATA) is where the files of those that need files lie.

    Raises
    ------
    InputError
        If the name is unknown, or a file is missing or damaged.
    """
    if name not in DATASETS:
        raise InputError(f"dataset must be one of {', '.join(DATASETS)}, not {name!r}")
    return DATASETS[name](folder or os.environ.get("LUTQ_DATA"))


def digits(folder: str | None = None) -> Dataset:
    """The 1,797 digits of 8 x 8 pixels, values 0 to 16, that come with scikit-learn; every fifth is for testing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError("the digits data set needs scikit-learn; install it with: pip install scikit-learn") from None
    bunch: Any = load_digits()
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    test = np.arange(len(images)) % 5 == 0
    return Dataset("digits", images[~test], labels[~test], images[test], labels[test], classes=10, peak=16)


def mnist(folder: str | None = None) -> Dataset:
    """MNIST's 60,000 training and 10,000 test images from idx files, plain or gzipped, in ``folder`` or its mnist/."""
    if folder is None:
        raise InputError("mnist needs its four idx files; give their folder with --data DIR or in LUTQ_DATA")
    parts = []
    for kind in ("train", "t10k"):
        images = read_idx(_find(Path(folder), f"{kind}-images-idx3-ubyte"), axes=3)
        path = _find(Path(folder), f"{kind}-labels-idx1-ubyte")
        labels = read_idx(path, axes=1)
        if len(labels) != len(images):
            raise InputError(f"{path} must hold one label for each of {len(images)} images, not {len(labels)}")
        if labels.size and labels.max() > 9:
            raise InputError(f"{path} must hold labels from 0 to 9, not {labels.max()}")
        parts += [images, labels.astype(np.int64)]
    return Dataset("mnist", *parts, classes=10, peak=255)


def _find(folder: Path, stem: str) -> Path:
    for place in (folder, folder / "mnist"):
        # Some mirrors write a dot before idx.
        for name in (f"{stem}.gz", stem, f"{stem.replace('-idx', '.idx')}.gz", stem.replace("-idx", ".idx")):
            if (place / name).is_file():
                return place / name
    raise InputError(f"{folder} must contain {stem} or {stem}.gz (or have a folder mnist that does), but it does not")


def read_idx(path: Path, axes: int) -> np.ndarray:
    """A uint8 array with ``axes`` axes from an idx file; gzipped when the name ends in .gz.

    Raises
    ------
    InputError
        If the file is not what its header says.
    """
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    start = 4 + 4 * axes
    if len(raw) < start or raw[:4] != bytes((0, 0, IDX_UINT8, axes)):
        raise InputError(f"{path} must be an idx file of bytes with {axes} axes, not one that starts with "
                         f"{raw[:4].hex() or 'nothing'}")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", count=axes, offset=4))
    size = int(np.prod(shape, dtype=object))
    if len(raw) - start != size:
        raise InputError(f"{path} must hold {size} bytes after its header ({' x '.join(map(str, shape))}), "
                         f"not {len(raw) - start}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


DATASETS: dict[str, Callable[[str | None], Dataset]] = {"digits": digits, "mnist": mnist}
