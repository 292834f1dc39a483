"""What LUT-Q adds to a training step: quantised steps against plain float steps of the same network, alternating.

    python benchmarks/train_step.py [--recipe mnist_cnn] [--batch N] [--steps 300] [--json]

A step is forward, backward, optimiser and, where weights are quantised, the k-means step. Times are processor seconds
of this process on one thread, 20th percentile of the steps, so that other load on the machine counts little. The
ratio to look at is the last line; the others show where the time goes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lutq_hw.table import table
from lutq_train import loop, models, quantizer, recipe

SHAPES = {"mnist": (28, 28, 1), "digits": (8, 8, 1)}
CLASSES = 10


def stepper(plan: recipe.Recipe, x: torch.Tensor, labels: torch.Tensor, *, weights: bool, codes: bool,
            kmeans: bool) -> Callable[[], None]:
    """A function that makes one training step of a network with the given parts quantised."""
    torch.manual_seed(plan.seed)
    model: nn.Module = models.build(plan.model, SHAPES[plan.dataset], CLASSES, plan.activation_bits)
    if weights:
        quantizer.attach(model, plan.weights)
    if codes:
        for activation in models.activations(model):
            activation.calibrate()
    optimizer = loop.make_optimizer(model, plan)
    for group in optimizer.param_groups:
        group["lr"] = 1e-4

    def step() -> None:
        loss = cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if kmeans:
            quantizer.update(model)

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="mnist_cnn", choices=recipe.names())
    parser.add_argument("--batch", type=int, help="images in a step; default: the recipe's")
    parser.add_argument("--steps", type=int, default=300, help="steps of each kind")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    plan = recipe.load(args.recipe)
    torch.set_num_threads(1)
    batch = args.batch or plan.training.batch
    height, width, channels = SHAPES[plan.dataset]
    x, labels = torch.rand(batch, channels, height, width), torch.randint(0, CLASSES, (batch,))
    parts = {
        "float": {"weights": False, "codes": False, "kmeans": False},
        "float weights, activation codes": {"weights": False, "codes": True, "kmeans": False},
        "dictionary weights, k-means": {"weights": True, "codes": False, "kmeans": True},
        "dictionary weights, k-means, activation codes": {"weights": True, "codes": True, "kmeans": True},
    }
    steppers = {name: stepper(plan, x, labels, **kinds) for name, kinds in parts.items()}
    times: dict[str, list[float]] = {name: [] for name in parts}
    for n in range(args.steps + 10):
        for name, step in steppers.items():
            begin = time.process_time()
            step()
            if n >= 10:
                times[name].append(time.process_time() - begin)
    seconds = {name: float(np.percentile(values, 20)) for name, values in times.items()}
    if args.json:
        ratios = {name: round(value / seconds["float"], 3) for name, value in seconds.items()}
        print(json.dumps({"recipe": plan.name, "batch": batch, "ratio": ratios}))
        return
    rows = [[name, f"{value * 1e3:.2f}", f"{value / seconds['float']:.2f}"] for name, value in seconds.items()]
    print(f"{plan.name}, batch {batch}, {args.steps} steps of each kind, torch {torch.__version__}")
    print(table(["step", "ms", "ratio"], rows))


if __name__ == "__main__":
    main()
