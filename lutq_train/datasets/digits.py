"""The digits that come with scikit-learn: a data set that needs no files."""

from __future__ import annotations

from typing import Any

import numpy as np

from lutq_hw.errors import InputError

from .dataset import Dataset


def digits(folder: str | None = None) -> Dataset:
    """The 1,797 digits of 8 x 8 pixels, values 0 to 16, that come with scikit-learn; every fifth is for testing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError("the digits data set needs scikit-learn; install it with: pip install scikit-learn") from None
    bunch: Any = load_digits()
    images, labels = bunch.images.astype(np.uint8)[..., None], bunch.target.astype(np.int64)
    test = np.arange(len(images)) % 5 == 0
    return Dataset("digits", images[~test], labels[~test], images[test], labels[test], classes=10, peak=16)


LOADERS = {"digits": digits}
