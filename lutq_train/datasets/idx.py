"""MNIST and Fashion-MNIST from their four idx files, plain or gzipped."""

from __future__ import annotations

import gzip
import zlib
from functools import partial
from pathlib import Path

import numpy as np

from lutq_hw.errors import InputError

from .dataset import Dataset, folder_of

IDX_UINT8 = 8


def read_set(name: str, folder: str | None) -> Dataset:
    """60,000 training and 10,000 test images of 28 x 28 from idx files in ``folder`` or in its folder ``name``.

    Raises
    ------
    InputError
        If a file is missing or damaged.
    """
    place = folder_of(name, folder, "its four idx files")
    parts = []
    for kind in ("train", "t10k"):
        images = read_idx(_find(place, name, f"{kind}-images-idx3-ubyte"), axes=3)
        path = _find(place, name, f"{kind}-labels-idx1-ubyte")
        labels = read_idx(path, axes=1)
        if len(labels) != len(images):
            raise InputError(f"{path} must hold one label for each of {len(images)} images, not {len(labels)}")
        if labels.size and labels.max() > 9:
            raise InputError(f"{path} must hold labels from 0 to 9, not {labels.max()}")
        parts += [images[..., None], labels.astype(np.int64)]
    return Dataset(name, *parts, classes=10, peak=255)


def _find(folder: Path, name: str, stem: str) -> Path:
    for place in (folder, folder / name):
        # Some mirrors write a dot before idx.
        for file in (f"{stem}.gz", stem, f"{stem.replace('-idx', '.idx')}.gz", stem.replace("-idx", ".idx")):
            if (place / file).is_file():
                return place / file
    raise InputError(f"{folder} must contain {stem} or {stem}.gz (or have a folder {name} that does), but it does not")


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


LOADERS = {name: partial(read_set, name) for name in ("mnist", "fashion_mnist")}
