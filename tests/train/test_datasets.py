"""Data sets: idx files, CIFAR-10 batches and tables that the tests write themselves, and scikit-learn's digits."""

import gzip
import pickle
import pickletools
import struct

import numpy as np
import pytest

from lutq_hw.errors import InputError
from lutq_train import datasets


def refused(name, folder=None):
    """The text with which a data set is refused."""
    with pytest.raises(InputError) as caught:
        datasets.load(name, folder and str(folder))
    return str(caught.value)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("LUTQ_DATA", raising=False)


def test_unknown_name():
    assert refused("cats") == ("dataset must be one of cifar10, digits, mnist, fashion_mnist, dry_bean or the path of a "
                               ".npz or .csv table, not 'cats'")


@pytest.mark.parametrize("name, needs", [
    ("mnist", "its four idx files"), ("fashion_mnist", "its four idx files"),
    ("cifar10", "data_batch_1 to data_batch_5 and test_batch (python or .bin batches), or cifar10.npz"),
    ("dry_bean", "dry_bean.npz or dry_bean.csv")])
def test_without_a_folder(name, needs):
    assert refused(name) == f"{name} needs {needs}; give their folder with --data DIR or in LUTQ_DATA"


# Digits, and what holds for every data set of grey images


def test_digits_split_is_fixed():
    digits = datasets.load("digits")
    assert digits.train_images.shape == (1437, 8, 8, 1) and digits.test_images.shape == (360, 8, 8, 1)
    assert digits.shape == (8, 8, 1)
    assert digits.train_images.max() == digits.peak == 16
    assert np.bincount(digits.test_labels).min() > 25
    # What the shipped digits.npz recorded when it was trained.
    assert digits.digest == "10f82a6472a2da235ebd188651ea383134e8201537fd10affc3205f284367587"


def test_unsigned_codes_round_halves_up():
    digits = datasets.load("digits")
    assert digits.encode(4)[:17].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 13, 14, 15]
    assert digits.encode(4)[255] == 15
    assert digits.encode(1)[:17].tolist() == [0] * 8 + [1] * 9
    assert (digits.signed, digits.background, digits.input_scale(4), digits.input_scale(1)) == (False, 0, 1 / 16, 1 / 2)


# MNIST and Fashion-MNIST


def idx(array, kind=8):
    return bytes((0, 0, kind, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def idx_folder(tmp_path):
    """A small MNIST: 6 and 3 images, half of the files gzipped."""
    rng = np.random.default_rng(0)
    for kind, count in (("train", 6), ("t10k", 3)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        (tmp_path / f"{kind}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{kind}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8)))
    return tmp_path


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_in_the_folder_or_its_parent_or_the_environment(name, idx_folder, tmp_path_factory, monkeypatch):
    found = datasets.load(name, str(idx_folder))
    assert found.name == name and found.classes == 10
    assert found.train_images.shape == (6, 28, 28, 1) and found.train_images.dtype == np.uint8
    assert found.test_labels.tolist() == [0, 1, 2] and found.test_labels.dtype == np.int64
    parent = tmp_path_factory.mktemp("parent")
    (parent / name).symlink_to(idx_folder)
    assert datasets.load(name, str(parent)).digest == found.digest
    monkeypatch.setenv("LUTQ_DATA", str(parent))
    assert datasets.load(name).digest == found.digest


def test_digest_sees_every_array(idx_folder):
    before = datasets.load("mnist", str(idx_folder)).digest
    (idx_folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([0, 1, 3], np.uint8)))
    assert datasets.load("mnist", str(idx_folder)).digest != before


def test_missing_idx_file(idx_folder):
    (idx_folder / "t10k-labels-idx1-ubyte").unlink()
    assert refused("fashion_mnist", idx_folder) == (
        f"{idx_folder} must contain t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz (or have a folder fashion_mnist "
        "that does), but it does not")


@pytest.mark.parametrize("raw, text", [
    (b"", "must be an idx file of bytes with 1 axes, not one that starts with nothing"),
    (b"<html>...", "must be an idx file of bytes with 1 axes, not one that starts with 3c68746d"),
    (idx(np.arange(3, dtype=np.uint8))[:-1], "must hold 3 bytes after its header (3), not 2"),
    (idx(np.arange(2, dtype=np.uint8)), "must hold one label for each of 3 images, not 2"),
    (idx(np.array([0, 10, 1], np.uint8)), "must hold labels from 0 to 9, not 10"),
    (bytes((0, 0, 8, 1)) + b"\xff" * 4, "must hold 4294967295 bytes after its header (4294967295), not 0"),
])
def test_damaged_labels(idx_folder, raw, text):
    path = idx_folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(raw)
    assert refused("mnist", idx_folder) == f"{path} {text}"


@pytest.mark.parametrize("damage", [
    lambda raw: raw[:40], lambda raw: b"plain" + raw, lambda raw: raw[:60] + b"\0" * 99])
def test_damaged_gzip(idx_folder, damage):
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    assert refused("mnist", idx_folder).startswith(f"{path} cannot be read: ")


# CIFAR-10

STEMS = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def batches():
    """Six batches of two images each."""
    rng = np.random.default_rng(1)
    return {stem: (rng.integers(0, 256, (2, 3072), np.uint8), [2 * i % 10, 2 * i % 10 + 1]) for i, stem in enumerate(STEMS)}


def python_batch(data, labels):
    """A batch as the public files are written: by Python 2, with numpy 1."""
    def text(value):
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<I", len(value)) + value

    none = b"J\xff\xff\xff\xff"
    dtype = (b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR(K\x03" + text(b"|") + b"NNN" + none + none + b"K\x00tb")
    rows, row = data.shape
    array = (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR(K\x01(K" + bytes([rows])
             + b"M" + struct.pack("<H", row) + b"t" + dtype + b"\x89" + text(data.tobytes()) + b"tb")
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + numbers + text(b"batch_label") + text(b"x") + b"u."


def write_python(folder):
    for stem, pair in batches().items():
        (folder / stem).write_bytes(python_batch(*pair))


def write_python3(folder):
    for i, (stem, (data, labels)) in enumerate(batches().items()):
        (folder / stem).write_bytes(pickle.dumps({"data": data, "labels": np.array(labels)}, protocol=2 + i % 3))


def write_binary(folder):
    for stem, (data, labels) in batches().items():
        rows = np.concatenate([np.array(labels, np.uint8)[:, None], data], 1)
        (folder / f"{stem}.bin").write_bytes(rows.tobytes())


def npz_arrays():
    pairs = batches()
    images = np.concatenate([data for data, _ in pairs.values()]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in pairs.values()]).astype(np.uint8)
    return {"x_train": images[:10], "y_train": labels[:10], "x_test": images[10:], "y_test": labels[10:]}


def write_npz(folder):
    np.savez(folder / "cifar10.npz", **npz_arrays())


@pytest.mark.parametrize("write", [write_python, write_python3, write_binary, write_npz])
@pytest.mark.parametrize("part", [".", "cifar10", "cifar-10-batches-py"])
def test_cifar10_in_all_its_forms(write, part, tmp_path):
    (tmp_path / part).mkdir(exist_ok=True)
    write(tmp_path / part)
    found = datasets.load("cifar10", str(tmp_path))
    assert found.train_images.shape == (10, 32, 32, 3) and found.test_images.shape == (2, 32, 32, 3)
    assert found.train_labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] and found.test_labels.tolist() == [0, 1]
    assert found.train_labels.dtype == np.int64 and found.classes == 10
    data = batches()["data_batch_2"][0]
    # In the files the three colours follow each other, rows of 32 within each.
    assert found.train_images[3, 5, 7].tolist() == [data[1, c * 1024 + 5 * 32 + 7] for c in range(3)]


def test_signed_codes_are_centred_and_floor(tmp_path):
    write_binary(tmp_path)
    found = datasets.load("cifar10", str(tmp_path))
    assert (found.signed, found.background) == (True, 128)
    assert found.encode(8).tolist() == list(range(-128, 128))
    assert found.encode(4)[[0, 127, 128, 143, 144, 255]].tolist() == [-8, -1, 0, 0, 1, 7]
    assert found.encode(1)[[0, 127, 128, 255]].tolist() == [-1, -1, 0, 0]
    assert (found.input_scale(8), found.input_scale(4)) == (1 / 64, 1 / 4)


def test_the_public_form_of_a_batch_is_a_pickle_of_protocol_2():
    names = [argument for operation, argument, _ in pickletools.genops(python_batch(*batches()["test_batch"]))
             if operation.name == "GLOBAL"]
    assert names == ["numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"]


class Evil:
    def __reduce__(self):
        return print, ("called",)


PICKLED = "must be a pickled CIFAR-10 batch with data and labels"
SHAPE = "must hold uint8 images of shape (N, 3, 32, 32) or (N, 3072)"


@pytest.mark.parametrize("data, labels, text", [
    (Evil(), [1], ("must be a batch of arrays and lists, but its pickle asks for builtins.print; it was not opened any "
                  "further")),
    (b"", [], f"{PICKLED} (AttributeError: 'bytes' object has no attribute 'array')"),
    (np.zeros((1, 3072)), [1], f"{PICKLED} (ValueError: not an array of integers)"),
    (np.array([{}]), [1], f"{PICKLED} (ValueError: not an array of numbers)"),
    (np.zeros((1, 3000), np.uint8), [1], f"{SHAPE}, not uint8 of shape (1, 3000)"),
    (np.zeros((0, 3072), np.uint8), [], f"{SHAPE}, not uint8 of shape (0, 3072)"),
    (np.zeros((2, 3072), np.int8), [1, 2], f"{SHAPE}, not int8 of shape (2, 3072)"),
    (np.zeros((2, 3072), np.uint8), [1], "must hold one integer label for each of 2 images, not int64 of shape (1,)"),
    (np.zeros((2, 3072), np.uint8), [1, -2], "must hold labels from 0 to 9, not -2"),
])
def test_python_batches_that_are_none(data, labels, text, tmp_path, capsys):
    write_python(tmp_path)
    path = tmp_path / "data_batch_3"
    path.write_bytes(pickle.dumps({"data": data, "labels": labels}, protocol=3))
    assert refused("cifar10", tmp_path) == f"{path} {text}"
    assert not capsys.readouterr().out


def test_a_batch_without_labels(tmp_path):
    write_python(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps({"data": np.zeros((1, 3072), np.uint8)}, protocol=3))
    assert refused("cifar10", tmp_path) == f"{tmp_path / 'test_batch'} {PICKLED} (KeyError: 'labels')"


def test_a_codec_is_not_called(tmp_path):
    write_python(tmp_path)
    (tmp_path / "test_batch").write_bytes(b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.")
    assert refused("cifar10", tmp_path).endswith("asks for codec 'rot13'; it was not opened any further")


def test_damaged_pickles_end_in_a_sentence(tmp_path):
    write_python(tmp_path)
    path = tmp_path / "data_batch_1"
    raw, rng = path.read_bytes(), np.random.default_rng(2)
    for _ in range(200):
        damaged = bytearray(raw[:rng.integers(len(raw))] if rng.random() < 0.3 else raw)
        for at in rng.integers(0, min(len(damaged), 180) or 1, rng.integers(1, 4)):
            damaged[at:at + 1] = rng.bytes(1)
        path.write_bytes(damaged)
        try:
            datasets.load("cifar10", str(tmp_path))
        except InputError as error:
            assert str(path) in str(error)


def test_cifar10_files_that_are_not_there(tmp_path):
    assert refused("cifar10", tmp_path) == (
        f"{tmp_path} must contain data_batch_1 to data_batch_5 and test_batch (python or .bin batches), or cifar10.npz (or "
        "have a folder cifar10, cifar-10-batches-py, cifar-10-batches-bin that does), but it does not")
    write_binary(tmp_path)
    (tmp_path / "test_batch.bin").unlink()
    assert refused("cifar10", tmp_path) == f"{tmp_path / 'test_batch.bin'} cannot be read: No such file or directory"


def test_a_binary_batch_of_another_length(tmp_path):
    write_binary(tmp_path)
    path = tmp_path / "data_batch_5.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert refused("cifar10", tmp_path) == (f"{path} must hold rows of 3073 bytes (label, then 3 x 32 x 32 pixels), not "
                                            "6145 bytes")


@pytest.mark.parametrize("change, text", [
    ({"y_test": None}, " must hold arrays x_train, y_train, x_test, y_test, but y_test is missing"),
    ({"x_test": np.zeros((2, 32, 32, 3), np.uint8)}, f" (test) {SHAPE}, not uint8 of shape (2, 32, 32, 3)"),
    ({"y_train": np.arange(10.0)}, " (train) must hold one integer label for each of 10 images, not float64 of shape (10,)"),
    ({"x_train": np.array([None])}, (" must be an .npz archive of plain arrays (Object arrays cannot be loaded when "
                                    "allow_pickle=False)")),
])
def test_damaged_npz(change, text, tmp_path):
    arrays = {key: value for key, value in (npz_arrays() | change).items() if value is not None}
    np.savez(tmp_path / "cifar10.npz", **arrays)
    assert refused("cifar10", tmp_path) == f"{tmp_path / 'cifar10.npz'}{text}"
