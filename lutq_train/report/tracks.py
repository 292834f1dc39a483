"""One line for each dictionary entry: metrics hold sorted values of every epoch, without names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def tracks(rows: Sequence[Sequence[float] | None]) -> np.ndarray:
    """Values of every entry over time.

    Parameters
    ----------
    rows
        The ascending values in use after each epoch; None where they were not recorded.

    Returns
    -------
    ``(len(rows), T)`` float64, NaN where an entry was not in use, T the most values that were in use at once; columns
    ascend by their last value.
    """
    found = np.full((len(rows), max((len(row) for row in rows if row), default=0)), np.nan)
    last = np.zeros(0)
    for number, row in enumerate(rows):
        now = np.asarray(row or [], np.float64)
        before, after = _pairs(last, now)
        fresh = np.setdiff1d(np.arange(len(now)), after)
        columns = np.concatenate([before, np.arange(len(last), len(last) + len(fresh))]).astype(np.int64)
        chosen = np.concatenate([after, fresh]).astype(np.int64)
        last = np.concatenate([last, now[fresh]])
        last[columns] = now[chosen]
        found[number, columns] = now[chosen]
    return found[:, np.argsort(last, kind="stable")]


def _pairs(last: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of entries and of the values they take: equal ones first, then the rest with the least movement."""
    _, before, after = np.intersect1d(last, now, return_indices=True)
    old = np.setdiff1d(np.arange(len(last)), before)
    new = np.setdiff1d(np.arange(len(now)), after)
    old, new = old[np.argsort(last[old], kind="stable")], new[np.argsort(now[new], kind="stable")]
    if len(old) <= len(new):
        chosen = _nearest(last[old], now[new])
        new = new[chosen]
    else:
        chosen = _nearest(now[new], last[old])
        old = old[chosen]
    return np.concatenate([before, old]), np.concatenate([after, new])


def _nearest(few: np.ndarray, many: np.ndarray) -> np.ndarray:
    """Ascending indices into ``many``, one for each of ``few``, both ascending, with the least sum of distances."""
    best, costs = np.zeros(len(many) + 1), []  # best[j]: least sum with the first j of many
    for value in few:
        cost = best[:-1] + np.abs(many - value)
        costs.append(cost)
        best = np.concatenate([[np.inf], np.minimum.accumulate(cost)])
    chosen, end = np.zeros(len(few), np.int64), len(many)
    for index in reversed(range(len(few))):
        chosen[index] = end = int(np.argmin(costs[index][:end]))
    return chosen
