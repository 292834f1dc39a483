"""CIFAR-10 from its public python batches, its public binary batches, or one .npz."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lutq_hw.errors import InputError

from .archive import read_npz
from .dataset import Dataset, folder_of

TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST = "test_batch"
PIXELS = 3 * 32 * 32
FILES = "data_batch_1 to data_batch_5 and test_batch (python or .bin batches), or cifar10.npz"
FOLDERS = ("", "cifar10", "cifar-10-batches-py", "cifar-10-batches-bin")


def cifar10(folder: str | None = None) -> Dataset:
    """50,000 training and 10,000 test images ``(32, 32, 3)`` of ten classes, with signed codes.

    The files lie in ``folder`` or in its folder cifar10, cifar-10-batches-py or cifar-10-batches-bin.

    Raises
    ------
    InputError
        If no complete set of files is found, or a file is damaged.
    """
    place = folder_of("cifar10", folder, FILES)
    for part in FOLDERS:
        where = place / part
        if (where / "cifar10.npz").is_file():
            return _dataset(*_read_npz(where / "cifar10.npz"))
        for suffix, read in ((".bin", _read_binary), ("", _read_python)):
            if (where / f"{TRAIN[0]}{suffix}").is_file():
                return _read_batches(where, suffix, read)
    raise InputError(f"{place} must contain {FILES} (or have a folder {', '.join(FOLDERS[1:])} that does), but it does "
                     "not")


Pair = tuple[np.ndarray, np.ndarray]
"""Images ``(N, 3, 32, 32)`` uint8 and labels ``(N,)`` int64."""


def _dataset(train: Pair, test: Pair) -> Dataset:
    arrays: list[np.ndarray] = []
    for images, labels in (train, test):
        arrays += [np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels]
    return Dataset("cifar10", *arrays, classes=10, peak=255, signed=True)


def _read_batches(where: Path, suffix: str, read: Callable[[Path, bytes], tuple[Any, Any]]) -> Dataset:
    pairs: list[Pair] = []
    for stem in (*TRAIN, TEST):
        path = where / f"{stem}{suffix}"
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
        pairs.append(_checked(path, *read(path, raw)))
    images, labels = zip(*pairs[:-1], strict=True)
    return _dataset((np.concatenate(images), np.concatenate(labels)), pairs[-1])


def _checked(where: object, images: Any, labels: Any) -> Pair:
    """Images and labels of ``where`` in the form of a `Pair`, or an InputError."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8 or not len(images) or images.shape[1:] not in ((3, 32, 32), (PIXELS,)):
        raise InputError(f"{where} must hold uint8 images of shape (N, 3, 32, 32) or (N, {PIXELS}), not "
                         f"{images.dtype} of shape {images.shape}")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise InputError(f"{where} must hold one integer label for each of {len(images)} images, not "
                         f"{labels.dtype} of shape {labels.shape}")
    if labels.min() < 0 or labels.max() > 9:
        wrong = labels[(labels < 0) | (labels > 9)][0]
        raise InputError(f"{where} must hold labels from 0 to 9, not {wrong}")
    return images.reshape(-1, 3, 32, 32), labels.astype(np.int64)


def _read_npz(path: Path) -> tuple[Pair, Pair]:
    arrays = read_npz(path, ("x_train", "y_train", "x_test", "y_test"))
    return (_checked(f"{path} (train)", arrays["x_train"], arrays["y_train"]),
            _checked(f"{path} (test)", arrays["x_test"], arrays["y_test"]))


def _read_binary(path: Path, raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    row = 1 + PIXELS
    if not raw or len(raw) % row:
        raise InputError(f"{path} must hold rows of {row} bytes (label, then 3 x 32 x 32 pixels), not {len(raw)} bytes")
    rows = np.frombuffer(raw, np.uint8).reshape(-1, row)
    return rows[:, 1:], rows[:, 0]


def _read_python(path: Path, raw: bytes) -> tuple[Any, Any]:
    try:
        content = _Unpickler(io.BytesIO(raw), encoding="bytes").load()
        named = {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
        data, labels = named["data"], named["labels"]
        return data.array(), labels.array() if isinstance(labels, _Array) else labels
    except _ForbiddenError as error:
        raise InputError(f"{path} must be a batch of arrays and lists, but its pickle asks for {error}; it was not "
                         "opened any further") from None
    except Exception as error:  # a damaged pickle may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{path} must be a pickled CIFAR-10 batch with data and labels ({reason})") from None


class _ForbiddenError(Exception):
    """A pickle that asks for something else than an array."""


class _Array:
    """Stands for ``numpy.ndarray`` while a pickle is read: keeps what it is told, and builds nothing from it."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """The array, of bytes or of integers; ValueError where the pickle does not describe one."""
        _, shape, kind, fortran, raw = self.state
        if not isinstance(kind, _Type) or not isinstance(raw, bytes):
            raise ValueError("not an array of numbers")
        return np.frombuffer(raw, kind.dtype()).reshape(shape, order="F" if fortran else "C")


class _Type:
    """Stands for ``numpy.dtype`` while a pickle is read."""

    order = "|"

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code.decode() if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        self.order = order.decode() if isinstance(order, bytes) else order

    def dtype(self) -> np.dtype:
        """The dtype, of integers; ValueError for any other."""
        if self.code not in ("u1", "i1", "i2", "i4", "i8") or self.order not in ("<", ">", "|", "="):
            raise ValueError("not an array of integers")
        return np.dtype(f"{self.order}{self.code}")


def _latin1(text: str, codec: str | bytes) -> bytes:
    """How Python 3 writes bytes into a pickle for Python 2."""
    if codec not in ("latin1", b"latin1"):
        raise _ForbiddenError(f"codec {codec!r}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Knows arrays only, and those as `_Array`: nothing that a file names is ever imported or called."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name that numpy writes into pickles."""
        # The folder multiarray lies in was renamed in numpy 2.
        found = {("multiarray", "_reconstruct"): lambda *_: _Array(), ("numpy", "ndarray"): _Array,
                 ("numpy", "dtype"): _Type, ("_codecs", "encode"): _latin1}
        short = "multiarray" if module in ("numpy.core.multiarray", "numpy._core.multiarray") else module
        if (short, name) not in found:
            raise _ForbiddenError(f"{module}.{name}")
        return found[short, name]


LOADERS = {"cifar10": cifar10}
