"""docs/costs.md shows what is in the repository: every family, and every picture."""

import re
from pathlib import Path

import lutq_hw
from benchmarks.fit_costs import samples
from benchmarks.recording import folder_of, read
from benchmarks.unit_points import POINTS
from lutq_hw.clock import delays
from lutq_hw.costing import coefficients
from lutq_hw.families import FAMILIES, ICE40
from lutq_hw.units import UNITS

DOCS = Path(lutq_hw.__file__).parent.parent / "docs"
PAGE = (DOCS / "costs.md").read_text()


def test_every_family_is_described():
    for family in FAMILIES.values():
        assert f"`{family.name}` {family.title.split(' and ')[0]}" in PAGE


def rows(name: str) -> dict[str, list[str]]:
    """Cells of a table between its marks, by their first word in quotes."""
    match = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)
    assert match is not None
    lines = [line.strip("| ").split(" | ") for line in match[1].splitlines()]
    return {next(cell.strip("`") for cell in line if cell.startswith("`")): line for line in lines[2:]}


def counts(cells: list[str]) -> list[int]:
    """Points in each cell."""
    return [0 if cell == "none" else int(cell.split(":")[0]) for cell in cells]


FAMILIES_IN_ORDER = sorted(FAMILIES.values(), key=lambda family: family is not ICE40)


def test_tables_are_those_of_the_recorded_points():
    """After new points, `python benchmarks/plot_costs.py` writes them again."""
    found = rows("units")
    assert list(found) == list(UNITS)
    for name, line in found.items():
        assert counts(line[1:]) == [len(read(folder_of(POINTS, family) / f"{name}.json")) for family in FAMILIES_IN_ORDER]
    recorded = {family: samples(family) for family in FAMILIES_IN_ORDER}
    for name, line in rows("parts").items():
        assert counts(line[1:]) == [len(recorded[family].get(name, ())) if name in coefficients(family) else 0
                                    for family in FAMILIES_IN_ORDER]
    assert set(rows("parts")) == {name for family in FAMILIES_IN_ORDER for name in coefficients(family)}
    placed = {name: counts(line[1:]) for name, line in rows("clocks").items()}
    for number, family in enumerate(FAMILIES_IN_ORDER):
        fitted = delays(family).get("parts", {})
        assert {name for name, counted in placed.items() if counted[number]} == set(fitted)
        assert all((placed[name][number] + 1) // 2 == count for name, count in fitted.items())


def test_pictures_exist():
    pictures = re.findall(r"\((costs-\S+\.svg)\)", PAGE)
    clocks = {"costs-clock.svg" if family is ICE40 else f"costs-clock-{name}.svg"
              for name, family in FAMILIES.items() if delays(family)}
    assert {f"costs-{name}.svg" for name in FAMILIES} | clocks == set(pictures)
    for name in pictures:
        assert (DOCS / name).read_text().rstrip().endswith("</svg>")
