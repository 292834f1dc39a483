"""Writes ``model_v1_all.npz``: one small network with every node kind and feature of format version 1.

Kept to show how the file was made. Do not run it again over the committed file: that file is the proof that version 1
as it was first written stays readable.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from lutq_hw import modelfile
from lutq_hw.network import (
    Codebook,
    Conv2d,
    Dense,
    Flatten,
    Input,
    MaxPool2d,
    Network,
    Output,
    Shift,
    TensorType,
    Thresholds,
)


def pattern(shape: tuple[int, ...], modulus: int) -> np.ndarray:
    """A fixed pattern of values from 0 to ``modulus - 1``."""
    count = np.arange(np.prod(shape, dtype=int))
    return (count * count + 3 * count + count // 5).reshape(shape) % modulus


def network() -> Network:
    """Encoded pixels, subgroups, descending thresholds, depthwise, shift, max-pool, product table, raw sums, argmax."""
    thresholds = Thresholds([[-9, -3, 0], [-5, 0, 4], [-2, 3, 9], [-1, 0, 1]], 2, descending=[0, 1, 0, 1])
    table = (np.arange(4)[:, None] - 1) * np.array([3, -7, 1]) // 2
    return Network("version 1", (
        Input("image", TensorType((7, 6, 1), 3, signed=True), (np.arange(256) >> 5) - 4),
        Conv2d("conv", "image", Codebook(pattern((4, 3, 2, 1), 4), [[-2, -1, 0, 1], [4, -4, 2, 8]],
                                         subgroups=pattern((3, 2, 1), 2)),
               [1, -1, 0, 3], thresholds, stride=(2, 1), padding=(1, 0)),
        Conv2d("depthwise", "conv", Codebook(pattern((4, 2, 2, 1), 3), [-1, 0, 2]), [0, 2, -3, 700], Shift(1, 2),
               padding=(0, 1), groups=4),
        MaxPool2d("pool", "depthwise", (2, 3), (1, 2), (1, 1)),
        Flatten("flat", "pool"),
        Dense("hidden", "flat", Codebook(pattern((5, 48), 3), table=table), None, Shift(4, 2, signed=True)),
        Dense("scores", "hidden", Codebook(pattern((3, 5), 5), [-300, -1, 0, 1, 300]), [70000, -70000, 0]),
        Output("class", "scores", "argmax"),
    ), {"recipe": "none", "accuracy": 0.125, "scales": [0.5, 0.25]})


if __name__ == "__main__":
    modelfile.save(network(), Path(sys.argv[1]))
