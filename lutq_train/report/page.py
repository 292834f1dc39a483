"""The page: one HTML file that needs nothing else, and its pictures as PNG files beside it."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from lutq_hw.atomic import write_bytes, write_text
from lutq_hw.errors import InputError

from . import plots
from .collect import Run

NAME = "report.html"

STYLE = """
:root { color-scheme: light dark; --ink: #222; --page: #fff; --faint: #666; --line: #ddd; --rule: #999; --link: #1a5a96; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ddd; --page: #181a1d; --faint: #9aa0a6; --line: #3a3d42; --rule: #777; --link: #8ab8e6; }
  img { border-radius: 6px; filter: brightness(0.88); }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 76rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 0.3rem; }
p { max-width: 50rem; overflow-wrap: anywhere; }
p.note { color: var(--faint); font-size: 0.9rem; margin: 0.2rem 0; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { border-bottom: 2px solid var(--rule); vertical-align: bottom; white-space: normal; }
td.number, th.number { text-align: right; }
@media (min-width: 45rem) { th:first-child, td:first-child { position: sticky; left: 0; background: var(--page); } }
img { max-width: 100%; height: auto; display: block; }
@media (max-width: 60rem) { img { max-width: none; } }
a { color: var(--link); }
"""

Cell = tuple[str, str, bool]
"""Heading of a column, content, and whether it is a number."""


def write(runs: Sequence[Run], folder: Path) -> Path:
    """Write ``report.html`` and its pictures into ``folder``, made when absent; the page's path.

    Raises
    ------
    InputError
        If the folder cannot be made or written to.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out must be a folder to write the report into, and {folder} is a file")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out must be a folder, and {folder} cannot be made: {error.strerror or error}") from None
    pictures = _Pictures(folder)
    parts = [_table(runs), _comparison(runs, pictures)]
    for number, (stem, run) in enumerate(zip(_stems(runs), runs, strict=True)):
        parts.append(_section(run, number, stem, pictures))
    page = (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Training report</title>\n'
            f'<style>{STYLE}</style>\n</head>\n<body>\n<h1>Training report</h1>\n' + "\n".join(parts) +
            "\n</body>\n</html>\n")
    write_text(folder / NAME, page)
    return folder / NAME


class _Pictures:
    """Writes pictures beside the page, and gives them as elements that contain them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, content: bytes, words: str) -> str:
        write_bytes(self.folder / f"{name}.png", content)
        data = base64.b64encode(content).decode()
        # In a narrow window a picture scrolls in its place: made smaller, its labels could not be read.
        return f'<div class="wide"><img alt="{escape(words)}" src="data:image/png;base64,{data}"></div>'


def _stems(runs: Sequence[Run]) -> list[str]:
    """Beginnings of file names: labels of plain characters, all different."""
    found: list[str] = []
    for run in runs:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", run.label).strip("-.") or "run"
        stem, number = plain, 2
        while stem in found:
            stem, number = f"{plain}-{number}", number + 1
        found.append(stem)
    return found


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _range(values: Sequence[int]) -> str:
    return "–" if not values else str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _epochs(row: dict[str, Any]) -> str:
    done, planned = row["epochs"], row["epochs_planned"]
    return str(done) if done >= planned else f"{done} of {planned}"


def _cells(row: dict[str, Any]) -> list[Cell]:
    entropy = "–" if row["entropy"] is None else f"{row['entropy']:.2f}"
    return [("recipe", row["recipe"], False), ("data set", row["dataset"], False), ("network", row["network"], False),
            ("weights", row["weights"], False), ("weight levels", _range(row["weight_levels"]), True),
            ("activations", row["activations"], False), ("activation bits", _range(row["activation_bits"]), True),
            ("float accuracy", _percent(row["float_accuracy"]), True),
            ("quantised accuracy", _percent(row["quantized_accuracy"]), True),
            ("held-out accuracy", _percent(row["held_out_accuracy"]), True),
            ("weights kept", _percent(row["kept"]), True), ("entropy, bits per weight", entropy, True),
            ("epochs", _epochs(row), True), ("time", _time(row["seconds"]), True), ("seed", str(row["seed"]), True)]


def _table(runs: Sequence[Run]) -> str:
    """All runs side by side; columns in which no run has anything are left out."""
    rows = [_cells(run.row()) for run in runs]
    shown = [n for n in range(len(rows[0])) if any(row[n][1] != "–" for row in rows)]

    def element(kind: str, text: str, number: bool) -> str:
        return f'<{kind} class="number">{text}</{kind}>' if number else f"<{kind}>{text}</{kind}>"

    head = "".join(element("th", escape(rows[0][n][0]), rows[0][n][2]) for n in shown)
    body = ["<tr>" + element("td", f'<a href="#run{number}">{escape(run.label)}</a>', False)
            + "".join(element("td", escape(row[n][1]), row[n][2]) for n in shown) + "</tr>"
            for number, (run, row) in enumerate(zip(runs, rows, strict=True))]
    note = ("Float and quantised accuracy are those of the test set, after the float epochs (or of the weights to "
            "start from) and after the last epoch.")
    held = " Held-out accuracy is that of training images kept apart, after the last epoch." if any(
        run.held_out_accuracy is not None for run in runs) else ""
    return (f'<div class="wide"><table>\n<tr><th>run</th>{head}</tr>\n' + "\n".join(body) + "\n</table></div>\n"
            f'<p class="note">{note}{held}</p>')


def _comparison(runs: Sequence[Run], pictures: _Pictures) -> str:
    """Accuracy against bits, of the runs that have both."""
    ready = [run for run in runs if run.entropy is not None and run.quantized_accuracy is not None]
    missing = [run.label for run in runs if run not in ready]
    parts = ["<h2>Accuracy against bits per weight</h2>"]
    if ready:
        parts.append(pictures.add("accuracy", plots.scatter(ready), "accuracy against bits per weight"))
        parts.append('<p class="note">The short line above or below a point is the float network.</p>')
    if missing:
        parts.append(f'<p class="note">Not shown, because they are not finished or the number of their weights is not '
                     f'known: {escape(", ".join(missing))}.</p>')
    return "\n".join(parts)


def _section(run: Run, number: int, stem: str, pictures: _Pictures) -> str:
    """Everything about one run."""
    state = "finished" if run.finished else f"unfinished: {run.epochs} of {run.recipe.training.epochs} epochs"
    parts = [f'<h2 id="run{number}">{escape(run.label)}</h2>',
             f'<p class="note">{escape(str(run.folder))}, {state}</p>',
             pictures.add(f"{stem}-curves", plots.curves(run), f"loss and accuracy of {run.label}")]
    if not run.layers:
        return "\n".join([*parts, '<p class="note">No quantised epoch yet, so there are no dictionaries to show.</p>'])
    parts += ["<h3>Entropy of the indices</h3>",
              pictures.add(f"{stem}-entropy", plots.entropy(run), f"index entropy of the layers of {run.label}")]
    listed = plots.listed(run)
    if listed:
        parts += ["<h3>Dictionaries over time</h3>",
                  pictures.add(f"{stem}-dictionaries", plots.dictionaries(run), f"dictionaries of {run.label}"),
                  '<p class="note">A line is an entry of the dictionary; it pauses while no weight takes it.</p>',
                  "<h3>Weights at each entry, after the last epoch</h3>",
                  pictures.add(f"{stem}-usage", plots.usage(run), f"use of the dictionaries of {run.label}")]
    others = [name for name in run.layers if name not in listed]
    if others:
        parts.append('<p class="note">Dictionaries of more than 32 values are not kept in the metrics: '
                     f'{escape(", ".join(others))}.</p>')
    return "\n".join(parts)
