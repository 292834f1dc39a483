"""Breaks every MAC unit, output stage and part of the engines in small ways, and shows that the checks notice each.

    python benchmarks/mutate.py                              # every change of every target
    python benchmarks/mutate.py --sample 12 --seed 3         # twelve of each
    python benchmarks/mutate.py "unit shift-add" "part skid"

A change is one of the syntax tree: a width one less, < for <=, + for -, an index or the arms of a multiplexer swapped, a
reset, an enable or an assignment dropped, a sign inverted. What survives is built and compared with the original: the same
RTLIL is no change at all, and a difference that can never be seen is proved so (Yosys and ABC, see docs/proof.md). The exit
status is 1 if anything else survives, or if a line that builds hardware is reached by no check. Results are kept in --state,
so that an interrupted run goes on; they hold as long as the source of the target does not change.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from mutation.campaign import EQUIVALENT, KILLED, REFUSED, SAME, SURVIVED, Campaign, append, load
from mutation.targets import targets

VERDICTS = (KILLED, REFUSED, SAME, EQUIVALENT, SURVIVED)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="what to break (default: everything)")
    parser.add_argument("--list", action="store_true", help="print the targets")
    parser.add_argument("--sample", type=int, metavar="N", help="N changes of each target, at random (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default: 1)")
    parser.add_argument("--state", type=Path, default=Path("build/mutation.jsonl"), metavar="FILE",
                        help="results so far (default: build/mutation.jsonl)")
    args = parser.parse_args()
    every = targets()
    if args.list:
        print("\n".join(every))
        return 0
    unknown = set(args.targets) - set(every)
    if unknown:
        parser.error(f"no target is called {unknown.pop()!r}; --list prints the names")
    known = load(args.state)
    print(f"{'target':28}" + "".join(f"{verdict:>12}" for verdict in VERDICTS) + f"{'seconds':>9}")
    bad = []
    for name in args.targets or every:
        begin = time.monotonic()
        campaign = Campaign(every[name], known)
        chosen = campaign.mutants if args.sample is None else campaign.sample(args.sample, args.seed)
        fates = campaign.run(chosen, lambda key, fate: append(args.state, key, fate))
        counts = Counter(fate.verdict for fate in fates)
        print(f"{name:28}" + "".join(f"{counts[verdict]:12d}" for verdict in VERDICTS) + f"{time.monotonic() - begin:9.0f}",
              flush=True)
        bad += [f"{name}, line {fate.mutant}: {fate.why}" for fate in fates if fate.verdict == SURVIVED]
        bad += [f"{name}, line {line}: no check reaches it" for line in campaign.unreached]
    print("\n".join(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
