"""Image files: every accepted form, every refusal, and hostile sizes."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path
from typing import Any

import model_fuzz
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lutq_hw.errors import InputError
from lutq_hw.images import load_images

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write(path: Path, content: bytes | np.ndarray) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else model_fuzz.npy(content))
    return path


def refused(sentence: str, path: Path, labels: Path | None = None) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        load_images(path, labels)


@pytest.mark.parametrize("form", ["idx", "idx.gz", "npy", "npz", "deflated npz"])
def test_every_form(form: str, tmp_path: Path) -> None:
    path = tmp_path / "file"  # formats are told by content, so the name does not matter
    labels: Path | None = None
    if form.startswith("idx"):
        pack = gzip.compress if form.endswith("gz") else bytes
        write(path, pack(idx(IMAGES)))
        labels = write(tmp_path / "labels", pack(idx(np.array([7, 9]))))
    elif form == "npy":
        write(path, IMAGES)
        labels = write(tmp_path / "labels", np.array([7, 9], np.int16))
    else:
        save = np.savez if form == "npz" else np.savez_compressed
        with path.open("wb") as file:
            save(file, images=IMAGES, labels=np.array([7, 9]), other=np.zeros(3))
    images, found = load_images(path, labels)
    assert images.dtype == np.uint8 and images.shape == (2, 3, 4, 1)
    np.testing.assert_array_equal(images[..., 0], IMAGES)
    assert found is not None and found.dtype == np.int64 and found.tolist() == [7, 9]


@pytest.mark.parametrize("array, shape", [
    (np.zeros((2, 5), np.uint8), (2, 1, 1, 5)), (np.zeros((2, 3, 4, 3), np.uint8), (2, 3, 4, 3)),
    (np.full((2, 3, 4), 255, np.int64), (2, 3, 4, 1)), (np.full((2, 5), -3, np.int8), (2, 1, 1, 5)),
    (np.asfortranarray(IMAGES), (2, 3, 4, 1)), (IMAGES.astype(">u2"), (2, 3, 4, 1)),
])
def test_shapes_and_types(array: np.ndarray, shape: tuple[int, ...], tmp_path: Path) -> None:
    images, labels = load_images(str(write(tmp_path / "a.npy", array)))
    assert images.shape == shape and labels is None
    np.testing.assert_array_equal(images.reshape(array.shape), array)


def test_labels_of_the_option_win(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=np.array([1, 2]))
    np.savez(tmp_path / "b.npz", labels=np.array([3, 4]))
    assert [labels.tolist() for labels in (load_images(tmp_path / "a.npz")[1],
                                           load_images(tmp_path / "a.npz", tmp_path / "b.npz")[1])
            if labels is not None] == [[1, 2], [3, 4]]


def test_wrong_files(tmp_path: Path) -> None:
    path = tmp_path / "a"
    refused(f"{path}: cannot be read (No such file or directory)", path)
    refused(f"{tmp_path}: must be a regular file", tmp_path)
    refused("/dev/zero: must be a regular file", Path("/dev/zero"))
    refused(f"{path}: must be an idx, .npy or .npz file", write(path, b""))
    refused(f"{path}: must be an idx, .npy or .npz file", write(path, b"\x89PNG\r\n"))


def test_wrong_idx(tmp_path: Path) -> None:
    path, good = tmp_path / "a", idx(IMAGES)
    write(path, idx(IMAGES, 13))
    refused(f"{path}: must be an idx file of unsigned bytes (type 0x08), not of type 0x0d", path)
    refused(f"{path}: must be an idx file of 1 to 4 axes, not 9", write(path, b"\0\0\x08\x09" + bytes(99)))
    refused(f"{path}: must be an idx file (its first two bytes must be zero)", write(path, gzip.compress(b"hello")))
    refused(f"{path}: must be a whole idx file (it is truncated in its header)", write(path, good[:9]))
    refused(f"{path}: must hold 24 bytes for its shape (2, 3, 4), not 23 (it is truncated)", write(path, good[:-1]))
    refused(f"{path}: must end after the 24 bytes of its shape (2, 3, 4)", write(path, good + b"x"))
    refused(f"{path}: must hold at most 1073741824 bytes, not 18446744052234715140 (shape (4294967295, 4294967292))",
            write(path, b"\0\0\x08\x02" + struct.pack(">II", 4294967295, 4294967292)))
    refused(f"{path}: images must have shape (N, H, W), (N, H, W, C) or (N, F), not (2,) (is it the labels file?)",
            write(path, idx(np.array([1, 2]))))


def test_wrong_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a"
    good = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, (20, 9, 9))))
    damaged = f"{path}: must be intact gzip data (the file is truncated or damaged)"
    refused(damaged, write(path, good[:-1]))
    refused(damaged, write(path, good[:200]))
    refused(damaged, write(path, good[:-6] + b"\0" + good[-5:]))
    refused(damaged, write(path, good[:300] + b"\xff" * 40 + good[340:]))
    refused(damaged, write(path, b"\x1f\x8b\x07" + good[3:]))


def test_a_hostile_header_takes_no_memory(tmp_path: Path) -> None:
    """A gigabyte promised, a few bytes delivered: the promise is not filled."""
    path = write(tmp_path / "a", gzip.compress(b"\0\0\x08\x03" + struct.pack(">III", 1024, 1024, 1024) + b"abc"))
    refused(f"{path}: must hold 1073741824 bytes for its shape (1024, 1024, 1024), not 3 (it is truncated)", path)


def test_wrong_numpy_files(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    refused(f"{path}: must hold integers, not float32", write(path, np.zeros((2, 3, 4), np.float32)))
    refused(f"{path}: must hold integers, not bool", write(path, np.zeros((2, 3, 4), bool)))
    refused(f"{path}: images must hold values from 0 to 255, not 0 to 300", write(path, np.array([[0, 300]])))
    refused(f"{path}: images must hold values from 0 to 255, not -1 to 3", write(path, np.array([[-1, 3]])))
    shapes = "(N, H, W), (N, H, W, C) or (N, F)"
    refused(f"{path}: images must have shape {shapes}, not (1, 1, 1, 1, 1)", write(path, np.zeros((1,) * 5, int)))
    refused(f"{path}: images must have shape {shapes}, not (0, 3, 4)", write(path, np.zeros((0, 3, 4), np.uint8)))
    data = model_fuzz.npy(IMAGES)
    refused(f"{path}: must take {len(data)} bytes for its shape (2, 3, 4) and type uint8, not {len(data) - 1}",
            write(path, data[:-1]))
    np.savez(tmp_path / "a.npz", image=IMAGES)
    refused(f"{tmp_path / 'a.npz'}: must hold an array images", tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=IMAGES * 0.5)
    refused(f"{tmp_path / 'b.npz'}: array images must hold integers, not float64", tmp_path / "b.npz")


def test_wrong_labels(tmp_path: Path) -> None:
    images, labels = write(tmp_path / "a.npy", IMAGES), tmp_path / "b.npy"
    refused(f"{labels}: labels must be as many as the 2 images, not 3", images, write(labels, np.array([1, 2, 3])))
    refused(f"{labels}: labels must have one axis, not shape (2, 1)", images, write(labels, np.array([[1], [2]])))
    refused(f"{labels}: must hold integers, not float64", images, write(labels, np.array([1.0, 2.0])))
    refused(f"{labels}: labels must be below 2**63, not 18446744073709551615", images,
            write(labels, np.array([0, (1 << 64) - 1], np.uint64)))
    np.savez(tmp_path / "c.npz", images=IMAGES, labels=np.array([1]))
    refused(f"{tmp_path / 'c.npz'}: labels must be as many as the 2 images, not 1", tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", images=IMAGES)
    refused(f"{tmp_path / 'd.npz'}: must hold an array labels", images, tmp_path / "d.npz")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("images")
    np.savez(folder / "a.npz", images=IMAGES, labels=np.array([1, 2]))
    np.savez_compressed(folder / "b.npz", images=np.zeros((9, 20, 20), np.uint8))
    files = [idx(IMAGES), gzip.compress(idx(IMAGES)), model_fuzz.npy(IMAGES), (folder / "a.npz").read_bytes(),
             (folder / "b.npz").read_bytes()]
    return {"files": files, "path": folder / "m"}


@given(seed=st.integers(0, 2**32 - 1))
def test_mutated_files_are_images_or_refused(seed: int, pool: dict[str, Any]) -> None:
    rng = np.random.default_rng(seed)
    mutate = (model_fuzz.flip_bits, model_fuzz.truncate, model_fuzz.splice, model_fuzz.overwrite)[int(rng.integers(4))]
    path = write(pool["path"], mutate(rng, pool["files"]))
    try:
        images, labels = load_images(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ") and str(error).isprintable() and len(str(error)) < 400
    else:
        assert images.ndim == 4 and images.dtype in (np.uint8, np.int8)
        assert labels is None or labels.shape == (len(images),)
