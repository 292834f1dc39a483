"""Text tables for reports: aligned columns, numbers to the right."""

from __future__ import annotations

from collections.abc import Sequence

Cell = str | int | float | None


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _is_number(text: str) -> bool:
    text = text.removesuffix("%").rstrip().replace(",", "")
    if text in ("", "-"):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]], footer: Sequence[Cell] | None = None) -> str:
    """``rows`` under ``header`` as lines of text, without a final newline.

    Integers get thousands separators, floats four significant digits, None is blank, text stays as it is. A column
    whose cells are all numbers, percentages, ``-`` or blank is aligned to the right. ``footer`` is one more row below a
    rule.
    """
    body = [[_text(cell) for cell in row] for row in [*rows, *([] if footer is None else [footer])]]
    for row in body:
        if len(row) != len(header):
            raise ValueError(f"row must have {len(header)} cells like the header, not {len(row)}")
    columns = list(zip(header, *body, strict=True))
    widths = [max(len(text) for text in column) for column in columns]
    right = [bool(body) and all(map(_is_number, column[1:])) for column in columns]

    def line(cells: Sequence[str]) -> str:
        padded = (text.rjust(width) if r else text.ljust(width)
                  for text, width, r in zip(cells, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    lines = [line(header), rule, *map(line, body)]
    if footer is not None:
        lines.insert(-1, rule)
    return "\n".join(lines)


def bar(value: float, largest: float, width: int) -> str:
    """A horizontal bar of up to ``width`` characters, at least one for a positive value."""
    if value <= 0:
        return ""
    return "#" * max(1, round(width * value / largest))
