"""Images and labels from files: idx (the MNIST format, also gzip-compressed), `.npy` and `.npz`.

The format is recognised by the first bytes, not by the name. Files are as little trusted as model files: what they
claim is checked before memory is taken, and whatever is wrong is an `InputError` of one sentence.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from io import BufferedReader
from pathlib import Path

import numpy as np

from .errors import InputError
from .golden import encode
from .network import Network
from .npz import Archive, open_regular, read_npy, reserve

MAX_BYTES = 1 << 30
"""Largest file, and largest array in it."""

MAX_MEMBERS = 64
PIECE = 1 << 20


def load_images(path: str | Path, labels: str | Path | None = None, *,
                network: Network | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Images in ``path`` and their labels.

    Parameters
    ----------
    path
        idx or gzip-compressed idx of unsigned bytes, `.npy`, or `.npz` with ``images`` and optionally ``labels``; of
        shape ``(N, H, W)``, ``(N, H, W, C)``, or ``(N, F)`` for vectors.
    labels
        File with the labels, idx, `.npy` or `.npz`; without it those in the `.npz` of the images, if any.
    network
        Network whose input the images must fit.

    Returns
    -------
    ``(N, H, W, C)`` uint8 images (``(N, 1, 1, F)`` for vectors; int8 stays int8, for networks that take signed codes)
    and ``(N,)`` int64 labels or None.

    Raises
    ------
    InputError
        If a file cannot be read or does not hold that, the numbers of images and labels differ, or the images do not
        fit the network.
    """
    path = Path(path)
    arrays = _arrays(path, ("images", "labels"))
    if arrays is None:
        images, beside = _single(path), None
    else:
        if "images" not in arrays:
            raise InputError(f"{path}: must hold an array images")
        images, beside = arrays["images"], arrays.get("labels")
    images = _as_images(path, images)
    if network is not None:
        try:
            encode(network, images[:1])
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    where = path if labels is None else Path(labels)
    found = beside if labels is None else _labels(where)
    if found is None:
        return images, None
    if found.ndim != 1:
        raise InputError(f"{where}: labels must have one axis, not shape {found.shape}")
    if len(found) != len(images):
        raise InputError(f"{where}: labels must be as many as the {len(images)} images, not {len(found)}")
    if found.dtype == np.uint64 and found.size and int(found.max()) >> 63:
        raise InputError(f"{where}: labels must be below 2**63, not {found.max()}")
    return images, found.astype(np.int64)


def _labels(path: Path) -> np.ndarray:
    arrays = _arrays(path, ("labels",))
    if arrays is None:
        return _single(path)
    if "labels" not in arrays:
        raise InputError(f"{path}: must hold an array labels")
    return arrays["labels"]


def _as_images(path: Path, images: np.ndarray) -> np.ndarray:
    if images.ndim not in (2, 3, 4) or images.size == 0:
        hint = " (is it the labels file?)" if images.ndim == 1 else ""
        raise InputError(f"{path}: images must have shape (N, H, W), (N, H, W, C) or (N, F), not {images.shape}{hint}")
    if images.dtype not in (np.uint8, np.int8):
        low, high = int(images.min()), int(images.max())
        if low < 0 or high > 255:
            raise InputError(f"{path}: images must hold values from 0 to 255, not {low} to {high}")
        images = images.astype(np.uint8)
    if images.ndim == 2:
        return images[:, None, None, :]
    return images[..., None] if images.ndim == 3 else images


def _mark(path: Path) -> bytes:
    file, _ = open_regular(path, InputError, MAX_BYTES)
    with file:
        return file.read(8)


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray] | None:
    """The arrays ``names`` as far as they are in the archive ``path``; None if it is no archive."""
    if not _mark(path).startswith(b"PK"):
        return None
    with Archive(path, error=InputError, max_file=MAX_BYTES, max_total=MAX_BYTES, max_members=MAX_MEMBERS) as archive:
        return {name: archive.array(name) for name in names if name in archive.names}


def _single(path: Path) -> np.ndarray:
    """The one array in an idx or `.npy` file."""
    mark = _mark(path)
    if mark.startswith(b"\x93NUMPY"):
        return read_npy(path, error=InputError, max_bytes=MAX_BYTES)
    packed = mark.startswith(b"\x1f\x8b")
    if not packed and not mark.startswith(b"\0\0"):
        raise InputError(f"{path}: must be an idx, .npy or .npz file")
    file, _ = open_regular(path, InputError, MAX_BYTES)
    try:
        with file:
            if not packed:
                return _read_idx(path, file)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read_idx(path, unpacked)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path}: must be intact gzip data (the file is truncated or damaged)") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _read_idx(path: Path, file: BufferedReader | gzip.GzipFile) -> np.ndarray:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise InputError(f"{path}: must be an idx file (its first two bytes must be zero)")
    if head[2] != 8:
        raise InputError(f"{path}: must be an idx file of unsigned bytes (type 0x08), not of type 0x{head[2]:02x}")
    axes = head[3]
    if not 1 <= axes <= 4:
        raise InputError(f"{path}: must be an idx file of 1 to 4 axes, not {axes}")
    extents = file.read(4 * axes)
    if len(extents) < 4 * axes:
        raise InputError(f"{path}: must be a whole idx file (it is truncated in its header)")
    shape = struct.unpack(f">{axes}I", extents)
    size = math.prod(shape)
    if size > MAX_BYTES:
        raise InputError(f"{path}: must hold at most {MAX_BYTES} bytes, not {size} (shape {shape})")
    data, filled = reserve(size), 0
    while filled < size:
        piece = file.read(min(PIECE, size - filled))
        if not piece:
            raise InputError(f"{path}: must hold {size} bytes for its shape {shape}, not {filled} (it is truncated)")
        data[filled:filled + len(piece)] = piece
        filled += len(piece)
    if file.read(1):
        raise InputError(f"{path}: must end after the {size} bytes of its shape {shape}")
    return np.frombuffer(data, np.uint8).reshape(shape)
