"""Simulates random networks under random plans with random pauses: every value and every clock cycle must equal golden.

    python benchmarks/random_networks.py --count 1000            # seeds 0 to 999, in as many processes as there are cores
    python benchmarks/random_networks.py --seed 417 --count 1    # one seed again

Units, output stages, memories, paddings, strides, groups, frames and pauses all follow from the seed. The design runs in
Amaranth's own simulator, with every stream between two stages watched. A seed that fails is made small by itself; what is
left is printed, and saved as a model and a plan with --save. The exit status is 1 if any seed failed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from os import cpu_count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from random_cases import check, draw
from shrinking import described, kind, shrink

from lutq_hw.modelfile import save


def report(seed: int, differences: list[str], folder: Path | None) -> str:
    """What is wrong with ``seed``, in full and made small."""
    lines = [f"seed {seed}: " + "; ".join(differences), "made small:"]
    small = shrink(draw(seed))
    lines += [described(small), *small.differences()]
    lines.append(f"again: python benchmarks/random_networks.py --seed {seed} --count 1")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        save(small.network, folder / f"seed{seed}.npz")
        (folder / f"seed{seed}.plan.json").write_text(small.plan.to_json())
        lines.append(f"saved {folder / f'seed{seed}.npz'} and {folder / f'seed{seed}.plan.json'}")
    return "\n".join(lines)


def run(seeds: range, jobs: int) -> tuple[dict[int, list[str]], Counter[str]]:
    """Differences of every seed that fails, and how many cases used each feature."""
    failed: dict[int, list[str]] = {}
    used: Counter[str] = Counter()
    begin = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        for number, (seed, differences, features) in enumerate(pool.map(check, seeds, chunksize=4), 1):
            used += features
            if differences:
                failed[seed] = differences
                print(f"seed {seed} ({kind(differences)}): {differences[0]}", file=sys.stderr)
            if number % 50 == 0:
                print(f"{number} of {len(seeds)}, {time.monotonic() - begin:.0f} s, {len(failed)} failed", file=sys.stderr)
    return failed, used


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="number of seeds (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="first seed (default: 0)")
    parser.add_argument("--jobs", type=int, default=cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--shrink", type=int, default=5, help="at most so many failures are made small (default: 5)")
    parser.add_argument("--save", type=Path, metavar="DIR", help="save what fails as models and plans")
    args = parser.parse_args()
    begin = time.monotonic()
    failed, used = run(range(args.seed, args.seed + args.count), args.jobs)
    for feature, count in sorted(used.items()):
        print(f"{count:6d}  {feature}")
    print(f"{args.count} networks in {time.monotonic() - begin:.0f} s, {len(failed)} failed")
    kinds: dict[str, int] = {}
    for seed, differences in failed.items():
        kinds.setdefault(kind(differences), seed)
    # One of each kind first: a hundred seeds may fail for one reason.
    first = [*kinds.values(), *(seed for seed in failed if seed not in kinds.values())][:args.shrink]
    for seed in first:
        print(report(seed, failed[seed], args.save))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
