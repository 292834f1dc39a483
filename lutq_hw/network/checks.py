"""Checks that several kinds of node share: names, pairs of extents, windows over a map."""

from __future__ import annotations

import re
from typing import Any

from .tensor import TensorType, index, require

Pair = tuple[int, int]
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}\Z")
MAX_KERNEL = 64


def check_name(name: Any) -> None:
    """Refuse what cannot be the name of a node."""
    require(isinstance(name, str) and bool(NAME.match(name)),
            f"node name must be a letter followed by letters, digits and underscores, not {name!r}")


def check_node(name: Any, source: Any) -> None:
    """Refuse what cannot be the name of a node or of its input."""
    check_name(name)
    require(isinstance(source, str), f"input must be the name of a node, not {source!r}")


def pair(value: Any, what: str, low: int, high: int) -> Pair:
    """``value`` as two integers, vertical and horizontal; one integer stands for both."""
    both = tuple(map(index, value)) if isinstance(value, list | tuple) else (index(value),) * 2
    good = tuple(n for n in both if n is not None and low <= n <= high)
    require(len(both) == len(good) == 2, f"{what} must be two integers from {low} to {high}, not {value!r}")
    return good[0], good[1]


def check_padding(padding: Pair, kernel: Pair) -> None:
    """Refuse padding that would make a window of nothing but padding."""
    for p, k in zip(padding, kernel, strict=True):
        require(p < k, f"padding must be smaller than the kernel {kernel}, not {padding}")


def window_extents(x: TensorType, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """Extents of a window operation's output."""
    out = []
    for axis, size, k, s, p in zip("HW", x.map_shape, kernel, stride, padding, strict=False):
        require(k <= size + 2 * p, f"kernel must be at most the padded input ({axis} = {size + 2 * p}), not {k}")
        out.append((size + 2 * p - k) // s + 1)
    return out[0], out[1]
