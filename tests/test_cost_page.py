"""docs/costs.md shows what is in the repository: every family, and every picture."""

import re
from pathlib import Path

import lutq_hw
from lutq_hw.families import FAMILIES

DOCS = Path(lutq_hw.__file__).parent.parent / "docs"
PAGE = (DOCS / "costs.md").read_text()


def test_every_family_is_described():
    for family in FAMILIES.values():
        assert f"`{family.name}` {family.title.split(' and ')[0]}" in PAGE


def test_pictures_exist():
    pictures = re.findall(r"\((costs-\S+\.svg)\)", PAGE)
    assert {f"costs-{name}.svg" for name in FAMILIES} | {"costs-clock.svg"} == set(pictures)
    for name in pictures:
        assert (DOCS / name).read_text().rstrip().endswith("</svg>")
