"""How busy the lanes of a plan can be: beside it the smallest arrays that are as fast, and what whole lanes would allow.

    python benchmarks/lane_use.py                                   # examples/mnist_cnn.npz on the iCEBreaker
    python benchmarks/lane_use.py --model examples/digits.npz

Lanes are busy in (terms of a frame) / (lanes x cycles of a frame). Arrays divide a layer's outputs, channels and kernel rows,
so a layer often has to be faster than the slowest; a layer of any whole number of lanes would only have to round up.
"""

from __future__ import annotations

import argparse
from math import ceil
from pathlib import Path

from lutq_hw import modelfile
from lutq_hw.board import find_board
from lutq_hw.geometry import window_of
from lutq_hw.network import Conv2d, Network, WeightNode
from lutq_hw.performance import Performance
from lutq_hw.planner import divisors, find_plan
from lutq_hw.table import table

EXAMPLE = Path(__file__).parent.parent / "examples" / "mnist_cnn.npz"

SHOWN = 8
"""Frame times in the list of those at which arrays that divide are the busiest."""


def arrays(network: Network, node: WeightNode) -> dict[int, int]:
    """Fewest lanes of every number of cycles for a frame that an array which divides takes."""
    x, groups = network.input_type(node), node.groups if isinstance(node, Conv2d) else 1
    found: dict[int, int] = {}
    for pe in divisors(node.outputs // groups):
        for channels in divisors(x.channels // groups):
            for rows in {1, node.kernel[0] if isinstance(node, Conv2d) else 1}:
                cycles = max(window_of(node, x, channels=channels, rows=rows, pe=pe).reads, x.size // channels)
                found[cycles] = min(found.get(cycles, pe * channels * rows), pe * channels * rows)
    return found


def fewest(sizes: dict[int, int], cycles: int) -> int | None:
    """Fewest lanes that take at most ``cycles``; None if no array does."""
    return min((lanes for own, lanes in sizes.items() if own <= cycles), default=None)


def main() -> None:
    """Plan, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=EXAMPLE)
    parser.add_argument("--board", default="icebreaker")
    args = parser.parse_args()
    network = modelfile.load(args.model)
    performance = Performance(network, find_plan(network, find_board(args.board)).plan)
    frame = performance.cycles_per_frame
    sizes = {node.name: arrays(network, node) for node in network.weighted}
    macs = {node.name: network.macs(node) for node in network.weighted}

    def share(lanes: int, cycles: int) -> str:
        return f"{100 * sum(macs.values()) / (lanes * cycles):.1f} %"

    rows = [[f.layer.name, f.macs, f.layer.lanes, fewest(sizes[f.layer.name], frame), ceil(f.macs / frame)]
            for f in performance.layers]
    sums = [sum(int(row[k] or 0) for row in rows) for k in (2, 3, 4)]
    print(f"{network.name} on {args.board}, {frame} cycles a frame: lanes")
    print(table(["layer", "terms", "plan", "fewest that divide", "fewest whole"], rows, ["all", sum(macs.values()), *sums]))
    print("busy: " + ", ".join(share(lanes, frame) for lanes in sums))
    every = []
    for cycles in sorted({own for found in sizes.values() for own in found}):
        lanes = [fewest(found, cycles) for found in sizes.values()]
        if None not in lanes:
            every.append((sum(n for n in lanes if n), cycles, sum(ceil(n / cycles) for n in macs.values())))
    every.sort(key=lambda row: row[0] * row[1])
    print("\nFrame times at which arrays that divide are the busiest, on an FPGA of any size:")
    print(table(["cycles", "lanes", "busy", "busy with whole lanes"],
                [[cycles, lanes, share(lanes, cycles), share(whole, cycles)] for lanes, cycles, whole in every[:SHOWN]]))


if __name__ == "__main__":
    main()
