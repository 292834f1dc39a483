"""What every method adds to a training step: quantised steps against float steps of the same network, in turn.

    python benchmarks/train_step.py [--network resnet20] [--batch 128] [--rounds 15] [--bfloat16] [--only NAME ...]

A step is forward, backward, optimiser and the method's own update, on random images with one thread. Every round makes
one step of each kind; a ratio is the median over the rounds of a step's processor time by that of the round's float
step, so that other load on the machine, which comes and goes, counts little.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import lutq_train
from lutq_hw.table import table
from lutq_train.methods import ACTIVATIONS, WEIGHTS
from lutq_train.networks import NETWORKS, NetworkOptions

NETWORKS_TO_TIME: dict[str, NetworkOptions] = {
    "resnet20": NETWORKS["resnet"](), "vgg_small": NETWORKS["vgg_small"](), "mobilenet": NETWORKS["mobilenet"](),
}
LEVELS = {"qil": 15, "syq": 3}
"""Dictionary sizes of the methods that cannot have 16."""

CLASSES, SCALE = 10, 2.0**-6
WARM_UP = 2


def kinds() -> dict[str, tuple[str, str]]:
    """Weight method with its own activations, then the other activation methods behind dictionary weights."""
    own = {f"{name} + {kind.activations}": (name, kind.activations) for name, kind in WEIGHTS.items()}
    used = {activations for _, activations in own.values()}
    return own | {f"lutq + {name}": ("lutq", name) for name in ACTIVATIONS if name not in used}


def stepper(options: NetworkOptions, batch: int, half: bool, methods: tuple[str, str] | None) -> Callable[[], None]:
    """A function that makes one training step of a float network, or of a quantised one."""
    torch.manual_seed(1)
    model = options.build((32, 32, 3), CLASSES)
    x = torch.randint(-128, 128, (batch, 3, 32, 32)) * SCALE
    labels = torch.randint(0, CLASSES, (batch,))
    if methods:
        weights, activations = methods
        lutq_train.quantize(model, weights, weight_levels=LEVELS.get(weights, 16), activation_bits=4,
                            activations=activations, example=x, input_scale=SCALE)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1e-4, momentum=0.9, nesterov=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext():
            scores = model(x)
        optimizer.zero_grad()
        cross_entropy(scores.float(), labels).backward()
        optimizer.step()
        if methods:
            lutq_train.update(model)

    return step


def measure(steppers: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every step; all kinds take turns."""
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for n in range(rounds + WARM_UP):
        for name, step in steppers.items():
            begin = time.process_time()
            step()
            if n >= WARM_UP:
                times[name].append(time.process_time() - begin)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet20", choices=NETWORKS_TO_TIME)
    parser.add_argument("--batch", type=int, default=128, help="images in a step")
    parser.add_argument("--rounds", type=int, default=15, help="steps of each kind")
    parser.add_argument("--bfloat16", action="store_true", help="mixed precision, the float network too")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=kinds(), help=f"of {', '.join(kinds())}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    torch.set_num_threads(1)
    chosen = {name: methods for name, methods in kinds().items() if not args.only or name in args.only}
    network = NETWORKS_TO_TIME[args.network]
    times = measure({name: stepper(network, args.batch, args.bfloat16, methods)
                     for name, methods in {"float": None, **chosen}.items()}, args.rounds)
    ratios = {name: float(np.median(np.divide(values, times["float"]))) for name, values in times.items()}
    precision = "bfloat16" if args.bfloat16 else "float32"
    if args.json:
        print(json.dumps({"network": args.network, "batch": args.batch, "precision": precision,
                          "ratio": {name: round(ratio, 3) for name, ratio in ratios.items()}}))
        return
    print(f"{args.network}, batch {args.batch}, {precision}, {args.rounds} rounds, torch {torch.__version__}")
    print(table(["step", "ms", "ratio"], [[name, f"{np.median(values) * 1e3:.0f}", f"{ratios[name]:.2f}"]
                                          for name, values in times.items()]))


if __name__ == "__main__":
    main()
