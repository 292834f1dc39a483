"""The pictures of a report, as PNG bytes. Nothing here opens a window or keeps state between two calls."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lutq_hw.errors import InputError

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter
except ImportError:
    raise InputError("the report needs the package matplotlib, which is not installed; install it with: "
                     "pip install 'lutq[train]'") from None

from .collect import Run
from .tracks import tracks

STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "axes.axisbelow": True, "axes.titlesize": 9, "legend.frameon": False, "figure.dpi": 110,
}
SHADES = {"float": "#ffffff", "pruned": "#fdf1e2", "quantized": "#eaf2fa"}
PHASES = {"float": "float", "pruned": "pruned", "quantized": "quantised"}
COLUMNS = 4
CELL = (2.6, 1.9)
"""Inches of one layer's picture, where every layer has one."""
LEGEND = 20
"""Layers in one column of a legend."""
DOMINANT = 8
"""A histogram has a logarithmic axis where one entry (that of pruned weights, mostly) has so many times the median."""
NAME, NAME_POINTS = (0.0115, 0.042), 215
"""Size of a name's letter in the scatter's axes, as parts of them, and the height of the axes in points: about."""
GREY = "#8a8a8a"


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _finite(values: Sequence[Any]) -> np.ndarray:
    """Numbers to draw, NaN where there is none or it is infinite."""
    found = np.array([math.nan if value is None else value for value in values], np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def _phases(axes: Axes, run: Run) -> None:
    """Shade the phases, and name them above."""
    counts = Counter(str(entry["phase"]) for entry in run.metrics)
    begin = 0
    for phase, count in counts.items():
        axes.axvspan(begin + 0.5, begin + count + 0.5, color=SHADES.get(phase, "#ffffff"), zorder=0, linewidth=0)
        axes.text(begin + 0.5 + count / 2, 1.01, PHASES.get(phase, phase), transform=axes.get_xaxis_transform(),
                  ha="center", va="bottom", color=GREY, fontsize=8)
        begin += count
    _epochs(axes, 0.5, begin + 0.5)


def _epochs(axes: Axes, low: float, high: float) -> None:
    axes.set_xlim(low, high)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def curves(run: Run) -> bytes:
    """Loss, accuracy, and with pruning the part of the weights that is kept, against epochs."""
    epochs = [entry["epoch"] for entry in run.metrics]
    pruned = any("kept" in entry for entry in run.metrics)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3), layout="constrained")
        axes = figure.subplots(1, 2 + pruned, squeeze=False)[0]
        for place in axes:
            _phases(place, run)
        loss = _finite([entry["loss"] for entry in run.metrics])
        marker = "." if len(epochs) < 40 else ""
        axes[0].plot(epochs, loss, color="tab:red", marker=marker)
        axes[0].set_ylabel("loss")
        known = loss[np.isfinite(loss)]
        if len(known) and known.min() > 0 and known.max() > 10 * known.min():
            axes[0].set_yscale("log")
        _accuracies(axes[1], run, epochs, marker)
        if pruned:
            axes[2].plot(epochs, _finite([entry.get("kept") for entry in run.metrics]), color="tab:orange")
            axes[2].set_ylabel("weights kept")
            axes[2].set_ylim(0, 1.02)
            axes[2].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        return _png(figure)


def _accuracies(axes: Axes, run: Run, epochs: Sequence[int], marker: str) -> None:
    axes.set_ylabel("accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    held = _finite([entry.get("held_out_accuracy") for entry in run.metrics])
    test = _finite([entry.get("test_accuracy") for entry in run.metrics])
    if np.isfinite(held).any():
        axes.plot(epochs, held, color="tab:blue", marker=marker, label="held-out training images")
    if np.isfinite(test).any():
        axes.plot(epochs, test, "o", color="black", label="test set", clip_on=False)
        for epoch, value in zip(epochs, test, strict=True):
            if np.isfinite(value):
                axes.annotate(f"{value:.2%}", (epoch, value), xytext=(-5, 5), textcoords="offset points", ha="right",
                              fontsize=8)
    if run.start_accuracy is not None:
        axes.axhline(run.start_accuracy, color=GREY, linestyle="--", linewidth=1,
                     label=f"weights to start from, test set ({run.start_accuracy:.2%})")
    if axes.get_legend_handles_labels()[0]:
        axes.margins(y=0.2)
        axes.legend(fontsize=8)
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not measured yet", transform=axes.transAxes, ha="center", color=GREY)


def entropy(run: Run) -> bytes:
    """Entropy of the indices of every layer against epochs, and log2 K of every K among the layers, dashed."""
    entries = run.quantized
    epochs = [entry["epoch"] for entry in entries]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.2), layout="constrained")
        axes = figure.subplots()
        shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(run.layers)))
        for name, shade in zip(run.layers, shades, strict=True):
            values = _finite([entry["layers"].get(name, {}).get("entropy") for entry in entries])
            axes.plot(epochs, values, color=shade, marker="." if len(epochs) < 40 else "", label=name, linewidth=1.2)
        for count in sorted(set(run.levels.values())):
            axes.axhline(math.log2(count), color=GREY, linestyle="--", linewidth=1)
            axes.annotate(f"log2 {count}", (1, math.log2(count)), xycoords=("axes fraction", "data"), xytext=(-2, 2),
                          textcoords="offset points", ha="right", fontsize=8, color=GREY)
        _epochs(axes, epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.margins(y=0.1)
        least = min(layer["entropy"] for entry in entries for layer in entry["layers"].values())
        axes.set_ylim(bottom=math.floor(least))
        axes.set_ylabel("bits per weight")
        figure.legend(loc="outside right upper", fontsize=7, ncols=math.ceil(len(run.layers) / LEGEND))
        return _png(figure)


def _grid(count: int) -> tuple[Figure, list[Axes]]:
    """A picture with a place for each of ``count`` layers."""
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    width = max(CELL[0] * columns, 5.0)
    figure = Figure(figsize=(width, CELL[1] * rows))
    places = list(figure.subplots(rows, columns, squeeze=False).flat)
    # Margins in inches, by hand: a layout engine takes seconds for the layers of a deep network.
    figure.subplots_adjust(left=0.5 / width, right=1 - 0.1 / width, bottom=0.42 / (CELL[1] * rows),
                           top=1 - 0.25 / (CELL[1] * rows), wspace=0.28, hspace=0.5)
    for place in places[count:]:
        place.remove()
    return figure, places[:count]


def _shades(values: Sequence[float]) -> list[Any]:
    """A colour for every entry, from blue to red; zero is grey."""
    scale = matplotlib.colormaps["turbo"](np.linspace(0.08, 0.92, max(len(values), 2)))
    return [GREY if value == 0 else shade for value, shade in zip(values, scale, strict=False)]


def listed(run: Run) -> list[str]:
    """Layers whose dictionaries are in the metrics: those of 32 values or fewer."""
    return [name for name, layer in run.layers.items() if layer.get("dictionary")]


def dictionaries(run: Run) -> bytes:
    """Every entry of the dictionary of every `listed` layer against epochs, one line each."""
    entries, names = run.quantized, listed(run)
    epochs = [entry["epoch"] for entry in entries]
    with matplotlib.rc_context(STYLE):
        figure, places = _grid(len(names))
        for place, name in zip(places, names, strict=True):
            lines = tracks([entry["layers"].get(name, {}).get("dictionary") for entry in entries])
            ends = [column[np.isfinite(column)][-1] for column in lines.T]
            for column, shade in zip(lines.T, _shades(ends), strict=True):
                place.plot(epochs, column, color=shade, linewidth=1.1, marker="." if len(epochs) < 40 else "",
                           markersize=3)
            place.set_title(name, loc="left")
            _epochs(place, epochs[0] - 0.5, epochs[-1] + 0.5)
            if place not in places[-COLUMNS:]:
                place.set_xlabel("")
        return _png(figure)


def usage(run: Run) -> bytes:
    """Share of the weights at each dictionary entry of every `listed` layer, after the last epoch."""
    names = listed(run)
    with matplotlib.rc_context(STYLE):
        figure, places = _grid(len(names))
        for place, name in zip(places, names, strict=True):
            values, counts = run.layers[name]["dictionary"], np.array(run.layers[name]["usage"])
            place.bar(range(len(values)), counts / counts.sum(), color=_shades(values))
            place.set_title(f"{name}  ({counts.sum():,} weights)", loc="left")
            if counts.max() > DOMINANT * np.median(counts):
                place.set_yscale("log")
                place.yaxis.set_minor_formatter(NullFormatter())
            else:
                place.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
            place.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
            shown = range(0, len(values), math.ceil(len(values) / 8))
            place.set_xticks(list(shown), [f"{values[n]:.2g}" for n in shown], fontsize=7, rotation=45)
            place.grid(visible=False, axis="x")
        return _png(figure)


def scatter(runs: Sequence[Run]) -> bytes:
    """Test accuracy against bits of entropy per weight, one place for each data set; the tick is the float network."""
    sets: dict[str, list[tuple[Run, Mapping[str, Any]]]] = {}
    for run in runs:
        sets.setdefault(run.recipe.dataset, []).append((run, run.row()))
    methods = list(dict.fromkeys(run.recipe.weights.method for run in runs))
    colour = {method: f"C{number % 10}" for number, method in enumerate(methods)}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(6.0, 5.2 * min(2, len(sets))), 3.8 * math.ceil(len(sets) / 2)),
                        layout="constrained")
        places = figure.subplots(math.ceil(len(sets) / 2), min(2, len(sets)), squeeze=False).flatten()
        for place, (name, found) in zip(places, sets.items(), strict=False):
            for run, row in found:
                _point(place, row, colour[run.recipe.weights.method])
            place.set_title(name, loc="left")
            place.set_xlabel("bits per weight (entropy of the indices)")
            place.set_ylabel("test accuracy")
            place.yaxis.set_major_formatter(PercentFormatter(1.0))
            place.margins(x=0.25, y=0.15)
            _names(place, [(row["entropy"], row["quantized_accuracy"], run.label) for run, row in found])
        for place in places[len(sets):]:
            place.remove()
        if len(methods) == 1:
            return _png(figure)
        handles = [Line2D([], [], marker="o", linestyle="", color=colour[name], label=name)
                   for name in methods]
        figure.legend(handles=handles, loc="outside upper right", ncols=len(methods), fontsize=8)
        return _png(figure)


def _point(axes: Axes, row: Mapping[str, Any], colour: str) -> None:
    x, y, before = row["entropy"], row["quantized_accuracy"], row["float_accuracy"]
    if before is not None:
        axes.plot([x, x], [before, y], color=colour, linewidth=0.8, alpha=0.5)
        axes.plot([x], [before], marker="_", markersize=9, color=colour)
    axes.plot([x], [y], marker="o", color=colour)


def _names(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """The name of every point to its right; where names would lie upon each other, the lower points' go further down."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    taken: list[tuple[float, float, float]] = []
    for x, y, label in sorted(points, key=lambda point: (-point[1], point[0])):
        begin, height = (x - left) / (right - left), (y - bottom) / (top - bottom)
        end, wanted = begin + NAME[0] * (len(label) + 2), height
        for other, until, at in taken:  # from top to bottom
            if begin < until and other < end and wanted > at - NAME[1]:
                wanted = at - NAME[1]
        taken.append((begin, end, wanted))
        taken.sort(key=lambda place: -place[2])
        paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}
        axes.annotate(label, (x, y), xytext=(6, (wanted - height) * NAME_POINTS), textcoords="offset points", va="center",
                      fontsize=7, parse_math=False, bbox=paper)
