"""How long planning takes, and how good the plans are proven to be: the examples, and a random network of many layers.

    python benchmarks/planning.py                  # shipped examples on the iCEBreaker, 50 layers on roomy and tight boards
    python benchmarks/planning.py --layers 100

The network of many layers has convolutions of 1 x 1 and 3 x 3 with 8 to 64 channels and three kinds of dictionary. Times
are of one process (CPU seconds), from the network to the plan.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lutq_hw import modelfile
from lutq_hw.board import find_board
from lutq_hw.cost import Cost
from lutq_hw.errors import PlanError
from lutq_hw.network import Codebook, Conv2d, Dense, Flatten, Input, Network, Output, TensorType, Thresholds
from lutq_hw.planner import Budget, find_plan
from lutq_hw.table import table

EXAMPLES = Path(__file__).parent.parent / "examples"

DICTIONARIES = ((-8, -4, -2, -1, 0, 1, 2, 4), (-20, -7, -3, 0, 1, 5, 11, 31), (-1, 0, 1))


@dataclass(frozen=True)
class Room:
    """A board of any size."""

    available: Cost
    name: str
    title: str = "bench"
    family: str = "ice40"
    plan_clock_hz: float = 40e6


ROOMS = (
    Room(Cost(luts=300_000, brams=2000, dsps=1000), "roomy"),
    Room(Cost(luts=100_000, brams=760, dsps=156), "tight"),
)


def deep(layers: int) -> Network:
    """A chain of ``layers`` weight layers over 16 x 16 maps."""
    rng = np.random.default_rng(1)
    nodes: list[Input | Conv2d | Flatten | Dense | Output] = [Input("image", TensorType((16, 16, 3), 4))]
    channels, before = 3, "image"
    for number in range(layers - 1):
        outputs = (8, 16, 24, 32, 48, 64)[number * 6 // layers]
        kernel, dictionary = int(rng.choice([1, 3])), DICTIONARIES[number % 3]
        weights = Codebook(rng.integers(0, len(dictionary), (outputs, kernel, kernel, channels)), dictionary=list(dictionary))
        step = Thresholds(np.sort(rng.integers(-300, 300, (outputs, 15))), 4)
        nodes.append(Conv2d(f"conv{number}", before, weights, step=step, padding=kernel // 2))
        channels, before = outputs, f"conv{number}"
    weights = Codebook(rng.integers(0, 8, (10, channels * 256)), dictionary=list(DICTIONARIES[0]))
    nodes += [Flatten("flat", before), Dense("fc", "flat", weights), Output("out", "fc")]
    return Network(f"{layers} layers", tuple(nodes))


def measured(network: Network, board: Budget) -> list[str | int | float]:
    """One row."""
    begin = time.process_time()
    try:
        planned = find_plan(network, board)
    except PlanError:
        return [network.name, board.name, round(time.process_time() - begin, 2), "does not fit", "", ""]
    seconds = time.process_time() - begin
    candidates = sum(map(len, planned.search.layers))
    proven = "optimal" if planned.optimal else f"within {100 * planned.gap:.2f} %"
    return [network.name, board.name, round(seconds, 2), proven, max(c.cycles for c in planned.chosen), candidates]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=50, help="weight layers of the random network (default: 50)")
    args = parser.parse_args()
    board = find_board("icebreaker")
    rows = [measured(modelfile.load(path), board) for path in sorted(EXAMPLES.glob("*.npz"))]
    network = deep(args.layers)
    rows += [measured(network, room) for room in ROOMS]
    print(table(["network", "board", "seconds", "proven", "cycles", "candidates"], rows))


if __name__ == "__main__":
    main()
