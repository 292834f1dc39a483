"""Tables as data sets: .npz and .csv, the mapping to pixels, the split, and what is refused."""

import numpy as np
import pytest

from lutq_hw.errors import InputError
from lutq_train import datasets


def table(rows=50, features=3):
    rng = np.random.default_rng(4)
    return rng.normal(size=(rows, features)) * [1, 1000, 1e-6], rng.integers(0, 4, rows) * 10 - 5


def write_npz(path, x, y):
    np.savez(path, x=x, y=y)
    return str(path)


def write_csv(path, x, y, header=""):
    lines = [",".join([*(repr(float(value)) for value in row), str(label)]) for row, label in zip(x, y, strict=True)]
    path.write_text("\n".join([*([header] if header else []), *lines, ""]), encoding="utf-8")
    return str(path)


def refused(path):
    with pytest.raises(InputError) as caught:
        datasets.load(str(path))
    return str(caught.value)


def test_every_fifth_row_of_a_permutation_is_for_testing(tmp_path):
    x = np.arange(1000.0)[:, None]
    found = datasets.load(write_npz(tmp_path / "t.npz", x, np.arange(1000)))
    assert found.train_images.shape == (800, 1, 1, 1) and found.test_images.shape == (200, 1, 1, 1)
    assert found.classes == 1000 and found.peak == 255 and not found.signed and found.name == "t.npz"
    assert sorted([*found.train_labels, *found.test_labels]) == list(range(1000))
    assert found.test_labels[:4].tolist() == [725, 76, 816, 478]
    # Images are their rows': the feature is the label here.
    low, high = np.percentile(found.train_labels, (0.1, 99.9))
    for images, labels in ((found.train_images, found.train_labels), (found.test_images, found.test_labels)):
        expected = np.clip((labels - low) / (high - low) * 255, 0, 255)
        assert np.abs(images[:, 0, 0, 0] - expected).max() <= 0.5


def test_features_are_scaled_by_themselves(tmp_path):
    x, y = table()
    found = datasets.load(write_npz(tmp_path / "t.npz", x, y))
    assert found.shape == (1, 1, 3)
    pixels = found.train_images[:, 0, 0, :]
    assert (pixels.min(0) == 0).all() and (pixels.max(0) == 255).all() and (pixels.std(0) > 40).all()


def test_outliers_saturate_and_constants_are_zero(tmp_path):
    x = np.random.default_rng(0).normal(size=(5000, 3))
    x[7, 0], x[8, 0], x[:, 1], x[:, 2] = 1e29, -1e29, 3.0, 0.0
    x[[10, 20, 30], 2] = 1.0
    found = datasets.load(write_npz(tmp_path / "t.npz", x, np.arange(5000) % 2))
    pixels = np.concatenate([found.train_images, found.test_images])[:, 0, 0, :]
    assert pixels[:, 0].std() > 30 and not pixels[:, 1].any()
    assert np.count_nonzero(pixels[:, 2]) == 3  # rarer than the percentiles: its extremes count


def test_csv_is_the_same_as_npz(tmp_path):
    x, y = table()
    plain = datasets.load(write_npz(tmp_path / "t.npz", x, y))
    for header in ("", "a,b,c,class"):
        assert datasets.load(write_csv(tmp_path / "t.csv", x, y, header)).digest == plain.digest
    words = datasets.load(write_csv(tmp_path / "t.csv", x, [f"kind {label + 5:02d}" for label in y]))
    assert words.digest == plain.digest and words.classes == 4


def test_classes_are_numbered_in_order(tmp_path):
    y = np.array([-5, 100, 7, 20, 9] * 4)
    found = datasets.load(write_csv(tmp_path / "t.csv", np.arange(20.0)[:, None], y))
    order = np.concatenate([found.train_labels, found.test_labels])
    assert np.bincount(order).tolist() == [4] * 5
    numbers = np.concatenate([found.train_images, found.test_images])[:, 0, 0, 0]
    assert order[numbers == 0].tolist() == [0] and order[numbers == 255].max() == 3


def test_a_table_in_the_data_folder(tmp_path, monkeypatch):
    write_npz(tmp_path / "t.npz", *table())
    assert datasets.load("t.npz", str(tmp_path)).name == "t.npz"
    monkeypatch.setenv("LUTQ_DATA", str(tmp_path))
    assert datasets.load("t.npz").name == "t.npz"


@pytest.mark.parametrize("part", [".", "dry_bean"])
@pytest.mark.parametrize("write", [write_npz, write_csv])
def test_dry_bean(part, write, tmp_path):
    (tmp_path / part).mkdir(exist_ok=True)
    write(tmp_path / part / f"dry_bean.{write.__name__[-3:]}", *table())
    assert datasets.load("dry_bean", str(tmp_path)).name == "dry_bean"


def test_dry_bean_is_not_there(tmp_path):
    with pytest.raises(InputError) as caught:
        datasets.load("dry_bean", str(tmp_path))
    assert str(caught.value) == (f"{tmp_path} must contain dry_bean.npz or dry_bean.csv (or have a folder dry_bean that "
                                 "does), but it does not")


def test_no_such_table(tmp_path):
    assert refused(tmp_path / "no.csv") == f"{tmp_path / 'no.csv'} does not exist; a table must be a .npz or .csv file"


@pytest.mark.parametrize("content, text", [
    ("", "must hold rows of numbers, but it has none"),
    ("a,b,class\n", "must hold rows of numbers, but it has none"),
    ("1\n2\n", "must hold one feature or more and the class in its last column, not 1 column"),
    ("a,b,class\n1,2,3\n1,2\n", "row 3 must have 3 columns like the first row of numbers, not 2"),
    ("1,2,x\n\n1,?,x\n", "row 3 must have a number in column 2, not '?'"),
    ("1,2,x\n1,2, \n", "row 2 must have its class in column 3, which is empty"),
    ("1,2,x\n" * 20, "must hold rows of two or more classes, not of 1 only"),
    ("1,2,x\n1,2,y\n", "must hold 10 rows or more, not 2"),
    ("1,2,x\n1,nan,y\n" * 5, "must hold finite numbers below 1e30, but row 2 has nan in column 2"),
    ("1,2,x\n1,3,y\n" * 5 + "-inf,2,x", "must hold finite numbers below 1e30, but row 11 has -inf in column 1"),
])
def test_wrong_csv(content, text, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(content, encoding="utf-8")
    assert refused(path) in (f"{path} {text}", f"{path}: {text}")


def test_csv_that_is_not_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"1,2\n\xff\xfe,1\n")
    assert refused(path).startswith(f"{path} must be a .csv file in UTF-8: 'utf-8' codec can't decode byte 0xff")


@pytest.mark.parametrize("arrays, text", [
    ({"x": np.zeros((20, 2))}, "must hold arrays x, y, but y is missing"),
    ({"x": np.zeros(20), "y": np.arange(20)}, "must hold x as numbers of shape (N, F), not float64 of shape (20,)"),
    ({"x": np.zeros((20, 0)), "y": np.arange(20)}, "must hold x as numbers of shape (N, F), not float64 of shape (20, 0)"),
    ({"x": np.full((20, 2), "1"), "y": np.arange(20)}, "must hold x as numbers of shape (N, F), not <U1 of shape (20, 2)"),
    ({"x": np.zeros((20, 2)), "y": np.arange(19)}, ("must hold y as one integer for each of 20 rows, not int64 of shape "
                                                   "(19,)")),
    ({"x": np.zeros((20, 2)), "y": np.arange(20.0)}, "must hold y as integers, not float64"),
    ({"x": np.array([[None]]), "y": np.arange(1)}, ("must be an .npz archive of plain arrays (Object arrays cannot be loaded "
                                                   "when allow_pickle=False)")),
    ({"x": np.full((20, 2), np.nan), "y": np.arange(20)}, ("must hold finite numbers below 1e30, but row 1 has nan in column "
                                                          "1")),
])
def test_wrong_npz(arrays, text, tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, **arrays)
    assert refused(path) == f"{path} {text}"


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04 and no more", b"x,y\n", b"\x93NUMPY"])
def test_npz_that_is_none(raw, tmp_path):
    path = tmp_path / "t.npz"
    path.write_bytes(raw)
    assert refused(path).startswith(f"{path} must be an .npz archive of plain arrays (")


def test_npz_that_is_a_lone_array(tmp_path):
    path = tmp_path / "t.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros((20, 2)))
    assert refused(path).startswith(f"{path} must be an .npz archive of plain arrays (")
