"""How many results are right, as report keys and as a line for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from ..network import Network


def graded(network: Network, results: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
    """``correct`` and ``accuracy``, and both with ``_top`` for a network that gives the k largest; empty without labels."""
    from .. import golden
    if labels is None:
        return {}
    right = int((golden.predictions(network, results) == labels).sum())
    report = {"correct": right, "accuracy": right / len(labels)}
    if network.output.top > 1:
        among = int((results == labels[:, None]).any(axis=1).sum())
        report |= {"top": network.output.top, "correct_top": among, "accuracy_top": among / len(labels)}
    return report


def accuracy_lines(report: dict[str, Any], total: int) -> list[str]:
    """The same in words: no line without labels."""
    lines = []
    if "accuracy" in report:
        lines.append(f"accuracy {100 * report['accuracy']:.2f} % ({report['correct']:,} of {total:,})")
    if "top" in report:
        lines.append(f"top-{report['top']} accuracy {100 * report['accuracy_top']:.2f} % ({report['correct_top']:,} of "
                     f"{total:,})")
    return lines
