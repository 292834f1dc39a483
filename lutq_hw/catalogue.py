"""What there is to build with: MAC units and output stages, the structure each needs, and where its price comes from."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from .errors import PlanError
from .families import FAMILIES, ICE40
from .mac import MacUnit
from .network import Conv2d, Dense, Network
from .output import OutputStage
from .outputs import OUTPUTS
from .pipeline import hardware_nodes
from .planning.candidates import PATENTED, unit_verdicts
from .sums import sums_of
from .units import UNITS


@dataclass(frozen=True)
class Entry:
    """One unit or stage.

    ``needs`` is the structure that it needs, ``summary`` the first sentence of its docstring; ``points`` counts the recorded
    synthesis points that its price was fitted to or is tested against, by family.
    """

    kind: str
    name: str
    summary: str
    needs: str
    default: bool
    points: dict[str, int]


@dataclass(frozen=True)
class Use:
    """Whether ``name`` can be used for a layer: ``reason`` says why not, and is None if it can."""

    layer: str
    kind: str
    name: str
    reason: str | None


def entries() -> list[Entry]:
    """All MAC units, then all output stages, by name."""
    found = [_entry("unit", unit, _unit_points(name)) for name, unit in sorted(UNITS.items())]
    return found + [_entry("output stage", stage, _output_points(name)) for name, stage in sorted(OUTPUTS.items())]


def uses(network: Network) -> list[Use]:
    """Every weight layer with every unit and every output stage."""
    found = []
    for node in hardware_nodes(network):
        if isinstance(node, Dense | Conv2d):
            x = network.input_type(node)
            found += [Use(node.name, "unit", name, reason) for name, reason in sorted(unit_verdicts(node, x).items())]
            sums = sums_of(node, x)
            found += [Use(node.name, "output stage", name, OUTPUTS[name].reject(sums)) for name in sorted(OUTPUTS)]
    if not found:
        raise PlanError(f"{network.name} must have at least one layer with weights to mark units for")
    return found


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, on one line."""
    line = " ".join(text.split("\n\n")[0].split())
    return line.split(". ")[0].removesuffix(".") + "."


def _entry(kind: str, of: type[MacUnit] | type[OutputStage], points: dict[str, int]) -> Entry:
    summary = first_sentence(inspect.getdoc(of) or "")
    needs = getattr(of, "needs", "")
    return Entry(kind, of.name, summary, needs or summary, of.name != PATENTED, points)


def _folders(root: Traversable) -> Iterator[tuple[str, Traversable]]:
    """Family and folder of its points: those of iCE40 lie in the folder itself, others in one of their name."""
    yield ICE40.name, root
    for family in FAMILIES:
        if (root / family).is_dir():
            yield family, root / family


def _unit_points(name: str) -> dict[str, int]:
    root = resources.files("lutq_hw") / "units" / "points"
    found = {family: folder / f"{name}.json" for family, folder in _folders(root)}
    return {family: len(json.loads(file.read_text())) for family, file in found.items() if file.is_file()}


def _output_points(name: str) -> dict[str, int]:
    counts = {}
    for family, folder in _folders(resources.files("lutq_hw") / "points"):
        file = folder / "output.json"
        recorded = json.loads(file.read_text()) if file.is_file() else []
        count = sum(point["parameters"]["name"] == name for point in recorded)
        if count:
            counts[family] = count
    return counts
