"""Runs to look at: one HTML page with curves, dictionaries, histograms and a table, and its pictures as PNG files.

    collect.py   run folders to `Run` objects: what the recipe wanted, what the metrics say
    tracks.py    which value of one epoch's dictionary goes on as which value of the next
    plots.py     pictures, with matplotlib
    page.py      the page and its files
"""

from __future__ import annotations

from .collect import Run, read
from .page import write

__all__ = ["Run", "read", "write"]
