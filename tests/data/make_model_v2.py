"""Writes ``model_v2_all.npz``: one small network with everything that format version 2 added.

Kept to show how the file was made. Do not run it again over the committed file: that file is the proof that version 2
as it was first written stays readable.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from lutq_hw import modelfile
from lutq_hw.network import (
    ActivationTable,
    Add,
    AvgPool2d,
    Codebook,
    Conv2d,
    Dense,
    Flatten,
    Input,
    Network,
    Output,
    Requantize,
    Shift,
    TensorType,
    Thresholds,
)


def pattern(shape: tuple[int, ...], modulus: int) -> np.ndarray:
    """A fixed pattern of values from 0 to ``modulus - 1``."""
    count = np.arange(np.prod(shape, dtype=int))
    return (count * count + 3 * count + count // 5).reshape(shape) % modulus


def network() -> Network:
    """A fork, an add of three with shifts, requantised codes, averages with and without a step, activation tables."""
    tanh = ActivationTable([-4, -4, -3, -1, 1, 2, 3, 3], 5, 3, signed=True)
    table = (np.arange(8)[:, None] - 4) * np.array([5, -3, 1]) // 2
    return Network("version 2", (
        Input("image", TensorType((5, 6, 2), 4, signed=True)),
        Conv2d("left", "image", Codebook(pattern((2, 3, 3, 2), 4), [-2, -1, 1, 2]), [130, 120], tanh, padding=(1, 1)),
        Conv2d("right", "image", Codebook(pattern((2, 1, 1, 2), 2), [-1, 3]), None, Shift(1, 4, signed=True)),
        Add("sum", ("left", "right", "left"), (2, 0, 1)),
        Requantize("codes", "sum", Thresholds([[-20, -9, 0, 3], [-12, -2, 5, 8]], 3, descending=[0, 1])),
        AvgPool2d("small", "codes", (2, 3), (1, 2), (1, 0), Shift(2, 3)),
        Add("join", ("small", "small"), step=ActivationTable([0, 5, 2, 7], 2, 3)),
        AvgPool2d("mean", "join", (5, 1), (1, 1)),
        Requantize("narrow", "mean", Shift(3, 3, signed=True)),
        Flatten("flat", "narrow"),
        Dense("hidden", "flat", Codebook(pattern((4, 8), 3), table=table), [9, 12, 0, 7],
              ActivationTable([3, 2, 2, 0], 3, 2)),
        Dense("scores", "hidden", Codebook(pattern((3, 4), 5), [-30, -1, 0, 1, 30]), [700, -700, 0]),
        Output("out", "scores"),
    ), {"recipe": "none"})


if __name__ == "__main__":
    modelfile.save(network(), Path(sys.argv[1]))
