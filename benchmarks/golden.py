"""How many MNIST images a second the golden model evaluates: the specification and its fast path.

    python benchmarks/golden.py [--model FILE] [--count 10000]

Without a model: random weights in an 87 kMAC network (5x5 1->6, 3x3 6->12, 3x3 12->24, stride 2,
dense 216->10, 4-bit activations, K = 8); the time does not depend on the values.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from lutq_hw import golden, modelfile
from lutq_hw.network import Codebook, Conv2d, Dense, Flatten, Input, Network, Output, TensorType, Thresholds
from lutq_hw.table import table


def example(rng: np.random.Generator) -> Network:
    """The 87 kMAC network with random weights."""
    def codebook(*shape: int) -> Codebook:
        return Codebook(rng.integers(0, 8, shape), [-8, -4, -2, -1, 0, 1, 2, 4])

    def step(outputs: int) -> Thresholds:
        return Thresholds(np.sort(rng.integers(-100, 200, (outputs, 15)), axis=1), 4)

    return Network("87 kMAC", (
        Input("image", TensorType((28, 28, 1), 4), np.arange(256) >> 4),
        Conv2d("conv1", "image", codebook(6, 5, 5, 1), step=step(6), stride=(2, 2), padding=(2, 2)),
        Conv2d("conv2", "conv1", codebook(12, 3, 3, 6), step=step(12), stride=(2, 2), padding=(1, 1)),
        Conv2d("conv3", "conv2", codebook(24, 3, 3, 12), step=step(24), stride=(2, 2)),
        Flatten("flat", "conv3"),
        Dense("dense", "flat", codebook(10, 216)),
        Output("digit", "dense", "argmax"),
    ))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model file to measure instead of the built-in network")
    parser.add_argument("--count", type=int, default=10000, help="images for the fast path; a tenth for the other")
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    network = example(rng) if args.model is None else modelfile.load(args.model)
    shape = network.input.type.shape
    images = rng.integers(0, 256, (args.count, *shape)).astype(np.uint8)
    rows = []
    for name, fast, count in (("fast path", True, args.count), ("specification", False, max(1, args.count // 10))):
        begin = time.perf_counter()
        golden.evaluate(network, images[:count], fast=fast)
        seconds = time.perf_counter() - begin
        rows.append([name, count, round(seconds, 2), round(count / seconds)])
    print(f"{network.name}, {sum(map(network.macs, network.weighted)):,} MACs an image")
    print(table(["evaluation", "images", "seconds", "images/s"], rows))


if __name__ == "__main__":
    main()
