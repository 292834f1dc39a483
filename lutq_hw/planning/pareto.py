"""What nothing beats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FEW = 48
"""Rows that are compared each with each, at once."""


def efficient(rows: NDArray[Any]) -> NDArray[np.intp]:
    """Indices of the ``(n, d)`` rows that no other row equals or beats in every column, in lexicographic order of the rows.

    Of equal rows the first one is kept.
    """
    if len(rows) < 2:
        return np.arange(len(rows))
    left = np.lexsort(rows.T[::-1])  # stable: equal rows keep their order
    if len(rows) <= FEW:
        inorder = rows[left]
        beats = (inorder[:, None] <= inorder).all(axis=2)
        return left[~np.triu(beats, 1).any(axis=0)]
    kept: list[np.intp] = []
    while len(left):
        # The smallest row left is beaten by none of those behind it.
        first, left = left[0], left[1:]
        kept.append(first)
        left = left[(rows[left] < rows[first]).any(axis=1)]
    return np.array(kept, np.intp)
