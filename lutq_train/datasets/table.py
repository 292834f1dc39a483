"""Tables of numbers with a class for every row: dry bean, and any .npz or .csv of the user's own."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from lutq_hw.errors import InputError

from .archive import read_npz
from .dataset import Dataset, folder_of

SUFFIXES = (".npz", ".csv")

SPLIT_SEED = 2020
"""Seed of the permutation that chooses the test rows; fixed, so that every run of every user has the same ones."""

PERCENTILES = (0.1, 99.9)
"""Of the training rows: what of every feature becomes pixel 0 and pixel 255. Single outliers cost no resolution."""


def read_table(path: Path, name: str | None = None) -> Dataset:
    """A table as images ``(N, 1, 1, F)``: every feature mapped linearly to 0 to 255, rounded, saturating.

    Every fifth row of a fixed permutation is for testing. Of every feature, the 0.1 and 99.9 percentiles of the
    training rows become 0 and 255. Classes are numbered in the order of their labels: numbers ascending, texts in
    alphabetical order.

    Parameters
    ----------
    path
        An .npz with x ``(N, F)`` numbers and y ``(N,)`` integers, or a .csv (UTF-8, commas; header row optional) whose last
        column is the class, as a number or a text.
    name
        The data set's name; without one, the file's name.

    Raises
    ------
    InputError
        If the file cannot be read or does not hold such a table.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; a table must be a {' or '.join(SUFFIXES)} file")
    x, y = _read_npz(path) if path.suffix == ".npz" else _read_csv(path)
    _check(path, x, y)
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"{path} must hold rows of two or more classes, not of {len(classes)} only")
    order = np.random.RandomState(SPLIT_SEED).permutation(len(x))  # RandomState: its draws are frozen for ever
    test = np.arange(len(x)) % 5 == 0
    train = x[order[~test]]
    low, high = np.percentile(train, PERCENTILES, axis=0)
    # A feature whose percentiles meet is nearly constant: its own extremes show what there is to see.
    low, high = (np.where(low < high, bound, extreme) for bound, extreme in ((low, train.min(0)), (high, train.max(0))))
    span = np.where(low < high, high - low, 1.0)
    # Clipped before it is scaled: the difference of two large numbers may not fit a float.
    images = np.floor((np.clip(x, low, high) - low) / span * 255 + 0.5).astype(np.uint8)[:, None, None, :]
    labels = labels.astype(np.int64)
    return Dataset(name or path.name, images[order[~test]], labels[order[~test]], images[order[test]],
                   labels[order[test]], classes=len(classes), peak=255)


def _check(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    if x.ndim != 2 or x.dtype.kind not in "fiu" or 0 in x.shape:
        raise InputError(f"{path} must hold x as numbers of shape (N, F), not {x.dtype} of shape {x.shape}")
    if y.shape != (len(x),) or y.dtype.kind not in "iuU":
        raise InputError(f"{path} must hold y as one integer for each of {len(x)} rows, not {y.dtype} of shape {y.shape}")
    if len(x) < 10:
        raise InputError(f"{path} must hold 10 rows or more, not {len(x)}")
    wrong = np.argwhere(~(np.abs(x.astype(np.float64)) < 1e30))
    if len(wrong):
        row, column = wrong[0]
        raise InputError(f"{path} must hold finite numbers below 1e30, but row {row + 1} has {x[row, column]} in column "
                         f"{column + 1}")


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    x, y = read_npz(path, ("x", "y")).values()
    if y.dtype.kind not in "iu":
        raise InputError(f"{path} must hold y as integers, not {y.dtype}")
    return (x.astype(np.float64) if x.dtype.kind in "fiu" else x), y


def _read_csv(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(line, row) for line, row in enumerate(csv.reader(file), 1) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} must be a .csv file in UTF-8: {error}") from None
    if rows and all(_number(cell) is None for cell in rows[0][1][:-1]):
        del rows[0]  # a header
    if not rows:
        raise InputError(f"{path} must hold rows of numbers, but it has none")
    columns = len(rows[0][1])
    if columns < 2:
        raise InputError(f"{path} must hold one feature or more and the class in its last column, not {columns} column")
    features = []
    for line, row in rows:
        if len(row) != columns:
            raise InputError(f"{path}: row {line} must have {columns} columns like the first row of numbers, not {len(row)}")
        numbers = [_number(cell) for cell in row[:-1]]
        if None in numbers:
            at = numbers.index(None)
            raise InputError(f"{path}: row {line} must have a number in column {at + 1}, not {row[at]!r}")
        if not row[-1].strip():
            raise InputError(f"{path}: row {line} must have its class in column {columns}, which is empty")
        features.append(numbers)
    return np.array(features, np.float64), _classes([row[-1].strip() for _, row in rows])


def _classes(cells: list[str]) -> np.ndarray:
    """Class labels as integers where all cells are whole numbers, else as texts."""
    numbers = [_number(cell) for cell in cells]
    if all(number is not None and number.is_integer() and abs(number) < 2**53 for number in numbers):
        return np.array([int(number) for number in numbers if number is not None], np.int64)
    return np.array(cells)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def dry_bean(folder: str | None = None) -> Dataset:
    """Dry Bean (UCI 602): 13,611 rows of 16 features, 7 classes, from dry_bean.npz or .csv in ``folder`` or its dry_bean/.

    Raises
    ------
    InputError
        If there is no such file, or it is damaged.
    """
    place = folder_of("dry_bean", folder, "dry_bean.npz or dry_bean.csv")
    for where in (place, place / "dry_bean"):
        for suffix in SUFFIXES:
            if (where / f"dry_bean{suffix}").is_file():
                return read_table(where / f"dry_bean{suffix}", "dry_bean")
    raise InputError(f"{place} must contain dry_bean.npz or dry_bean.csv (or have a folder dry_bean that does), but it "
                     "does not")


LOADERS = {"dry_bean": dry_bean}
