"""One step of k-means on N weights, against scikit-learn's and against the optimiser's step on the same weights.

    python benchmarks/kmeans.py [--sizes 100000 1000000 10000000] [--entries 2 4 16 64 256] [--large] [--json]

The same start for both and one Lloyd step. The centres must agree to 1e-9; that is checked in float64 and on at most
10^7 weights, because scikit-learn's distances in float32 are too coarse to decide between close centres. Times are of
float32, processor seconds of this process on one thread, least of several runs where one is short. ``--large`` adds
10^8 weights, which takes minutes and several GB. The optimiser is torch's SGD with momentum.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.cluster import KMeans

from lutq_hw.table import table
from lutq_train.clusters import lloyd

SIZES = (10**5, 10**6, 10**7)
LARGE = 10**8
CHECKED = 10**7
ENTRIES = (2, 4, 16, 64, 256)


def seconds(run: Callable[[], object], budget: float = 2.0) -> float:
    """Least processor time of one ``run``, repeated within ``budget`` seconds, at most ten times."""
    times: list[float] = []
    while len(times) < 10 and sum(times) < budget:
        begin = time.process_time()
        run()
        times.append(time.process_time() - begin)
    return min(times)


def optimizer_step(weights: torch.Tensor) -> float:
    """Seconds of an SGD step on as many weights."""
    parameter = torch.nn.Parameter(weights.clone())
    parameter.grad = torch.full_like(weights, 1e-6)
    optimizer = torch.optim.SGD([parameter], lr=1e-3, momentum=0.9)
    optimizer.step()
    return seconds(optimizer.step)


def reference(weights: torch.Tensor, start: torch.Tensor) -> np.ndarray:
    """Centres after one step of scikit-learn."""
    fit = KMeans(len(start), init=start[:, None].numpy(), n_init=1, max_iter=1, algorithm="lloyd", tol=0)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one step does not converge, as it says
        return fit.fit(weights[:, None].numpy()).cluster_centers_[:, 0]


def compare(weights: torch.Tensor, entries: int) -> tuple[float, float]:
    """Seconds of our step and of scikit-learn's; both from evenly spaced centres."""
    start = torch.linspace(-3, 3, entries + 2)[1:-1].contiguous()
    some, moved = weights[:CHECKED].double(), start.double() * (1 + 1e-9)  # no float32 weight lies half-way between
    difference = float(np.abs(lloyd(some, moved)[1].numpy() - reference(some, moved)).max())
    if difference > 1e-9:
        raise SystemExit(f"N = {len(weights)}, K = {entries}: centres differ by {difference:.2g}")
    return seconds(lambda: lloyd(weights, start)), seconds(lambda: reference(weights, start))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES,
                        help="numbers of weights, so many that no cluster is empty")
    parser.add_argument("--entries", type=int, nargs="+", default=ENTRIES, help="numbers of centres")
    parser.add_argument("--large", action="store_true", help=f"also {LARGE:,} weights")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size in [*args.sizes, *([LARGE] if args.large else [])]:
        weights = torch.randn(size, generator=torch.Generator().manual_seed(0))
        step = optimizer_step(weights)
        for entries in args.entries:
            ours, other = compare(weights, entries)
            rows.append((size, entries, ours * 1e3, 1e9 * ours / size, other * 1e3, other / ours, ours / step))
            if not args.json:
                print(f"N = {size:,}, K = {entries}: {ours * 1e3:.3g} ms", flush=True)
    header = ["weights", "entries", "ms", "ns/weight", "scikit-learn ms", "times faster", "of an SGD step"]
    if args.json:
        print(json.dumps([dict(zip(header, row, strict=True)) for row in rows]))
    else:
        print(f"torch {torch.__version__}, one thread")
        print(table(header, rows))


if __name__ == "__main__":
    main()
