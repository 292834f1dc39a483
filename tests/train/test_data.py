"""Data sets: idx files that the test writes itself, and scikit-learn's digits."""

import gzip
import struct

import numpy as np
import pytest

from lutq_hw.errors import InputError
from lutq_train import data


def idx(array, kind=8):
    return bytes((0, 0, kind, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    """A small MNIST: 6 and 3 images, half of the files gzipped."""
    rng = np.random.default_rng(0)
    for kind, count in (("train", 6), ("t10k", 3)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        (tmp_path / f"{kind}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{kind}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8)))
    return tmp_path


def test_mnist_in_the_folder_or_its_parent_or_the_environment(folder, tmp_path_factory, monkeypatch):
    found = data.load("mnist", str(folder))
    assert found.train_images.shape == (6, 28, 28) and found.train_images.dtype == np.uint8
    assert found.test_labels.tolist() == [0, 1, 2] and found.test_labels.dtype == np.int64
    parent = tmp_path_factory.mktemp("parent")
    (parent / "mnist").symlink_to(folder)
    assert data.load("mnist", str(parent)).digest == found.digest
    monkeypatch.setenv("LUTQ_DATA", str(parent))
    assert data.load("mnist").digest == found.digest


def test_digest_sees_every_array(folder):
    before = data.load("mnist", str(folder)).digest
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([0, 1, 3], np.uint8)))
    assert data.load("mnist", str(folder)).digest != before


def test_without_a_folder(monkeypatch):
    monkeypatch.delenv("LUTQ_DATA", raising=False)
    with pytest.raises(InputError, match=r"^mnist needs its four idx files; give their folder with --data DIR or in "
                                         r"LUTQ_DATA$"):
        data.load("mnist")


def test_unknown_name():
    with pytest.raises(InputError, match=r"^dataset must be one of digits, mnist, not 'cats'$"):
        data.load("cats")


def test_missing_file(folder):
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError) as caught:
        data.load("mnist", str(folder))
    assert str(caught.value) == (f"{folder} must contain t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz (or have "
                                 "a folder mnist that does), but it does not")


@pytest.mark.parametrize("raw, text", [
    (b"", "must be an idx file of bytes with 1 axes, not one that starts with nothing"),
    (b"<html>...", "must be an idx file of bytes with 1 axes, not one that starts with 3c68746d"),
    (idx(np.arange(3, dtype=np.uint8))[:-1], "must hold 3 bytes after its header (3), not 2"),
    (idx(np.arange(2, dtype=np.uint8)), "must hold one label for each of 3 images, not 2"),
    (idx(np.array([0, 10, 1], np.uint8)), "must hold labels from 0 to 9, not 10"),
])
def test_damaged_labels(folder, raw, text):
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        data.load("mnist", str(folder))
    assert str(caught.value) == f"{path} {text}"


@pytest.mark.parametrize("damage", [
    lambda raw: raw[:40], lambda raw: b"plain" + raw, lambda raw: raw[:60] + b"\0" * 99])
def test_damaged_gzip(folder, damage):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz cannot be read: "):
        data.load("mnist", str(folder))


def test_huge_header_is_refused_without_reading(folder):
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(bytes((0, 0, 8, 1)) + b"\xff" * 4)
    with pytest.raises(InputError, match=r"must hold 4294967295 bytes after its header \(4294967295\), not 0$"):
        data.load("mnist", str(folder))


def test_digits_split_is_fixed():
    digits = data.load("digits")
    assert digits.train_images.shape == (1437, 8, 8) and digits.test_images.shape == (360, 8, 8)
    assert digits.train_images.max() == digits.peak == 16
    assert np.bincount(digits.test_labels).min() > 25
    assert digits.digest == data.load("digits").digest


def test_encode_rounds_halves_up():
    digits = data.load("digits")
    assert digits.encode(4)[:17].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 13, 14, 15]
    assert digits.encode(4)[255] == 15
    assert digits.encode(1)[:17].tolist() == [0] * 8 + [1] * 9
