"""Writes ``model_v2_coded.npz``: a small network with indices in every form that a file can have them.

Kept to show how the file was made. Do not run it again over the committed file: that file is the proof that coded
indices as they were first written stay readable.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from lutq_hw import modelfile
from lutq_hw.network import Codebook, Conv2d, Dense, Flatten, Input, Network, Output, Shift, TensorType


def pattern(shape: tuple[int, ...], modulus: int) -> np.ndarray:
    """A fixed pattern of values from 0 to ``modulus - 1``."""
    count = np.arange(np.prod(shape, dtype=int))
    return (count * count + 3 * count + count // 5).reshape(shape) % modulus


def pruned(shape: tuple[int, ...], modulus: int, one_in: int) -> np.ndarray:
    """`pattern`, but index 1 where the count of the weight is no multiple of ``one_in`` or lies in the last third."""
    count = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    return np.where((count % one_in == 0) & (3 * count < 2 * count.size), pattern(shape, modulus), 1)


def network() -> Network:
    """Raw, a codeword for each, sparse with a dictionary, with subgroups and with a table, all of one index."""
    table = (np.arange(8)[:, None] - 4) * np.array([5, 0, 1, -2]) // 2
    return Network("coded", (
        Input("image", TensorType((6, 6, 1), 4)),
        Conv2d("raw", "image", Codebook(pattern((4, 3, 3, 1), 4), [-2, -1, 1, 2]), step=Shift(2, 4), padding=(1, 1)),
        Conv2d("each", "raw", Codebook(pattern((16, 3, 3, 4), 7), np.arange(-3, 4)), step=Shift(4, 4)),
        Conv2d("groups", "each", Codebook(pruned((16, 3, 3, 16), 3, 9), [[-3, 0, 5], [-7, 0, 2]],
                                          subgroups=pattern((3, 3, 16), 2)), step=Shift(3, 4), padding=(1, 1)),
        Flatten("flat", "groups"),
        Dense("rare", "flat", Codebook(pruned((20, 256), 5, 61), [-9, 0, 3, 4, 7]), np.arange(20) - 10,
              Shift(3, 3, signed=True)),
        Dense("table", "rare", Codebook(pruned((40, 20), 4, 7), table=table), step=Shift(1, 3)),
        Dense("constant", "table", Codebook(np.full((10, 40), 2), [0, 1, -1]), np.arange(10)),
        Output("out", "constant"),
    ), {"recipe": "none"})


if __name__ == "__main__":
    modelfile.save(network(), Path(sys.argv[1]), coding="huffman")
