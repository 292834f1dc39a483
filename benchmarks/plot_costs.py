"""Draws every formula against its recorded points for docs/costs.md, and rewrites the tables of errors there.

    python benchmarks/plot_costs.py     # writes docs/costs-FAMILY.svg, docs/costs-clock.svg and the tables in docs/costs.md

Needs no tool: points and coefficients are those in the repository.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

import fit_clocks
import fit_costs
import fit_units
import matplotlib
import numpy as np
from recording import folder_of, read
from unit_points import POINTS, unit_of

from lutq_hw.clock import delays
from lutq_hw.costing import coefficients
from lutq_hw.families import FAMILIES, ICE40
from lutq_hw.family import Family
from lutq_hw.outputs import OUTPUTS
from lutq_hw.unit_cost import unit_coefficients, unit_cost, weigh
from lutq_hw.units import UNITS

matplotlib.use("svg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).parent.parent / "docs"

Pairs = list[tuple[float, float]]
"""Measured and estimated, in recorded order."""

FITTED, CHECKED = "#8c8c8c", "#0b62a4"


def unit_pairs(name: str, family: Family) -> Pairs:
    """Luts of a unit's points."""
    points = read(folder_of(POINTS, family) / f"{name}.json")
    return [(point["luts"], unit_cost(unit_of(name, point), family).cost.luts) for point in points]


def part_pairs(family: Family) -> dict[str, Pairs]:
    """Luts of the parts of stages, those without coefficients in the family left out."""
    known = coefficients(family)
    return {part: [(point["luts"], weigh(known[part]["luts"], features)) for features, point in rows]
            for part, rows in fit_costs.samples(family).items() if part in known}


def clock_pairs(family: Family) -> dict[str, Pairs]:
    """Periods in nanoseconds of all parts that were placed and routed."""
    found = delays(family)
    rows = {unit: fit_clocks.unit_samples(unit, family) for unit in UNITS}
    rows |= {part: fit_clocks.part_samples(part, family) for part in (*OUTPUTS, "window")}
    return {part: [(sample[2], fit_clocks.estimate(sample, found["shared"], found["offset"])) for sample in samples]
            for part, samples in rows.items() if part in found.get("parts", ())}


def worst(pairs: Iterable[tuple[float, float]], small: float) -> float:
    """Largest error in percent; of points below ``small`` relative to that."""
    return max((100 * abs(estimate - measured) / max(small, measured) for measured, estimate in pairs), default=0.0)


def spread(pairs: Pairs, small: float) -> float:
    """Root of the mean squared error in percent, in the same way."""
    return float(np.sqrt(np.mean([worst([pair], small) ** 2 for pair in pairs])))


def draw(path: Path, panels: dict[str, Pairs], quantity: str, *, tolerance: float, whole: Container[str],
         logarithmic: bool) -> None:
    """One panel for each part: measured across, estimated up, with the line where they agree and the tolerance around it.

    Nothing was fitted to the points of those that are ``whole``, every other one of the rest was.
    """
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    plt.rcParams.update({"svg.hashsalt": "lutq", "svg.fonttype": "none", "font.size": 8})
    figure, axes = plt.subplots(rows, columns, figsize=(2.3 * columns, 2.3 * rows + 0.3), squeeze=False, layout="constrained")
    for ax in axes.flat[len(panels):]:
        ax.set_visible(False)
    for ax, (name, pairs) in zip(axes.flat, panels.items(), strict=False):
        every = np.array(pairs)
        low, high = 0.85 * every.min(), 1.15 * every.max()
        line = np.array([low, high])
        ax.fill_between(line, line * (1 - tolerance), line * (1 + tolerance), color="#e8eef4", linewidth=0)
        ax.plot(line, line, color="#b0b0b0", linewidth=0.8)
        halves = [(every[::2], FITTED, "fitted"), (every[1::2], CHECKED, "checked")]
        if name in whole:
            halves = [(every, CHECKED, "points")]
        for half, colour, label in halves:
            ax.scatter(half[:, 0], half[:, 1], s=9, color=colour, label=label, linewidths=0)
        if logarithmic:
            ax.set_xscale("log")
            ax.set_yscale("log")
        ax.set(xlim=(low, high), ylim=(low, high), title=name)
        ax.set_aspect("equal")
    axes.flat[len(panels) - 1].legend(frameon=False, loc="upper left")
    figure.supxlabel(f"{quantity}, measured")
    figure.supylabel(f"{quantity}, estimated")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def cell(pairs: Pairs, small: float, split: bool) -> str:
    """Points; the usual (root mean square) and the worst error on those that were not fitted."""
    if not pairs:
        return "none"
    checked = pairs[1::2] if split else pairs
    return f"{len(pairs)}: {spread(checked, small):.0f}, {worst(checked, small):.0f} %"


def replace_table(name: str, text: str) -> None:
    """Puts ``text`` between the marks of ``name`` in docs/costs.md."""
    page = DOCS / "costs.md"
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
    found, count = re.subn(pattern, lambda match: f"{match[1]}{text}\n{match[2]}", page.read_text(), flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"docs/costs.md must have the mark <!-- {name} --> once, with <!-- end --> behind it")
    page.write_text(found)


def main() -> int:
    """Pictures and tables."""
    families = sorted(FAMILIES.values(), key=lambda family: family is not ICE40)  # that of the formulas first
    units = {family.name: {name: unit_pairs(name, family) for name in UNITS} for family in families}
    parts = {family.name: part_pairs(family) for family in families}
    for family in families:
        counted = UNITS if family is ICE40 else ()
        panels = {name: pairs for name, pairs in units[family.name].items()
                  if len(pairs) > 1 and (name in counted or name in unit_coefficients(family.name))}
        panels |= {name: pairs for name, pairs in parts[family.name].items() if len(pairs) > 1}
        if panels:
            draw(DOCS / f"costs-{family.name}.svg", panels, f"luts on {family.title}", tolerance=0.15, whole=counted,
                 logarithmic=True)
    small = fit_units.SMALL["luts"]
    header = ["", *(family.title for family in families)]
    replace_table("units", table(header, [
        [f"`{name}`", *(cell(units[f.name][name], small, f is not ICE40) for f in families)] for name in UNITS]))
    names = dict.fromkeys(name for found in parts.values() for name in found)
    replace_table("parts", table(header, [
        [f"`{name}`", *(cell(parts[f.name].get(name, []), fit_costs.SMALL, True) for f in families)]
        for name in names]))
    clocks = {family.name: clock_pairs(family) for family in families}
    for family in families:
        if clocks[family.name]:
            name = "costs-clock.svg" if family is ICE40 else f"costs-clock-{family.name}.svg"
            draw(DOCS / name, clocks[family.name], f"period in ns on {family.title}", tolerance=0.1, whole=(),
                 logarithmic=False)
    names = dict.fromkeys(name for found in clocks.values() for name in found)
    replace_table("clocks", table(header, [
        [f"`{name}`", *(cell(clocks[f.name].get(name, []), 0.0, True) for f in families)] for name in names]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
