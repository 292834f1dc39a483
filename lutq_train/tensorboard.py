"""The metrics of a run as TensorBoard shows them: curves of every epoch, and histograms of the dictionaries' use."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lutq_hw.errors import InputError

Entry = Mapping[str, Any]
"""The metrics of one epoch."""

SCALARS = {"loss": "loss", "held_out_accuracy": "accuracy/held_out", "test_accuracy": "accuracy/test", "kept": "kept"}
"""Keys of an entry and what TensorBoard calls them; the entropy of a layer is ``entropy/LAYER``."""


def check(folder: Path) -> None:
    """Make the folder for the event files, before any training.

    Raises
    ------
    InputError
        If the package ``tensorboard`` is not installed, or the folder cannot be made.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard needs the package tensorboard, which is not installed; install it with: "
                         "pip install 'lutq[tensorboard]'")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--tensorboard must be a folder, and {folder} cannot be made: {error.strerror or error}"
                         ) from None


@contextlib.contextmanager
def writing(folder: Path | None, metrics: Iterable[Entry] = ()) -> Iterator[Callable[[Entry], None]]:
    """A function that logs one epoch; each is on disk when it returns. Without a folder it does nothing.

    Parameters
    ----------
    metrics
        Epochs that are done already: logged at once, in place of whatever the folder's earlier logs say. A run that
        was interrupted, or begun without TensorBoard, is therefore shown whole.
    """
    if folder is None:
        yield lambda entry: None
        return
    from torch.utils.tensorboard import SummaryWriter  # here: it needs the optional package

    with _told(folder):
        # purge_step 0: TensorBoard forgets what an earlier process logged, all of which comes again.
        writer = SummaryWriter(str(folder), purge_step=0)

    def log(*entries: Entry) -> None:
        with _told(folder):
            for entry in entries:
                _log(writer, entry)
            writer.flush()

    try:
        log(*metrics)
        yield log
    finally:
        writer.close()


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from None


def _log(writer: Any, entry: Entry) -> None:
    epoch = entry["epoch"]
    for key, tag in SCALARS.items():
        if key in entry:
            writer.add_scalar(tag, entry[key], epoch)
    for name, layer in entry.get("layers", {}).items():
        writer.add_scalar(f"entropy/{name}", layer["entropy"], epoch)
        if layer.get("dictionary"):
            _histogram(writer, f"dictionary/{name}", layer["dictionary"], layer["usage"], epoch)


def _histogram(writer: Any, tag: str, values: list[float], usage: list[int], epoch: int) -> None:
    """The use of every value: a bucket ends halfway to the next value, the last as far behind its own."""
    gaps = [after - before for before, after in itertools.pairwise(values)] or [1.0]
    limits = [value + gap / 2 for value, gap in zip(values, [*gaps, gaps[-1]], strict=False)]
    pairs = list(zip(values, usage, strict=True))
    writer.add_histogram_raw(
        tag, min=values[0], max=values[-1], num=sum(usage), sum=math.fsum(v * n for v, n in pairs),
        sum_squares=math.fsum(v * v * n for v, n in pairs), bucket_limits=limits, bucket_counts=usage,
        global_step=epoch)
