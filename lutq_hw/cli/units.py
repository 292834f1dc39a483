"""List the MAC units and output stages: the structure each needs, whether the planner takes it by itself, and where its
price comes from.

With --model, every layer is marked with the units and stages that can be used for it, and why the others cannot.

  python -m lutq_hw units
  python -m lutq_hw units --model examples/mnist_cnn.npz
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ._options import add_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..catalogue import Entry, Use

HELP = "list MAC units and output stages, what each needs and what its price is based on"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--model", metavar="FILE", type=Path, help="mark which layers of this network can use which")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Collect, print."""
    from dataclasses import asdict

    from ..catalogue import entries, uses
    from ..modelfile import load
    found = entries()
    marks = uses(load(args.model)) if args.model else None
    if args.json:
        description: dict[str, object] = {"entries": [asdict(entry) for entry in found]}
        if marks is not None:
            description["uses"] = [asdict(use) for use in marks]
        print(json.dumps(description, indent=2))
    else:
        print(_text(found, marks))
    return 0


def _text(found: Sequence[Entry], marks: Sequence[Use] | None) -> str:
    """Tables for people."""
    from ..table import table
    parts = []
    for kind, title in (("unit", "MAC unit"), ("output stage", "output stage")):
        rows = [[entry.name, entry.needs, "yes" if entry.default else "when asked", _points(entry)]
                for entry in found if entry.kind == kind]
        parts.append(table([title, "needs", "by default", "synthesis points behind its price"], rows))
    if marks is not None:
        rows = [[use.layer, use.name, "" if use.reason else "yes", use.reason or ""] for use in marks]
        parts.append(table(["layer", "unit or stage", "usable", "why not"], rows))
    return "\n\n".join(parts)


def _points(entry: Entry) -> str:
    return ", ".join(f"{count} {family}" for family, count in entry.points.items()) or "none: not priced yet"
