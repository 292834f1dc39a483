"""Output folders that appear whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError

WORK_MARKER = ".lutq-work"


@contextmanager
def whole_folder(output: Path, *, marker: str) -> Iterator[Path]:
    """A work folder ``OUTPUT.partial`` that becomes ``output`` when the block ends well.

    When it ends with an exception only its logs (``*.log``) stay, in the work folder.

    Parameters
    ----------
    output
        Need not exist; an older one is replaced.
    marker
        File that every finished folder of this kind has. A folder with files but without it is not ours.

    Raises
    ------
    InputError
        If ``output`` or the work folder holds somebody else's files, or cannot be made.
    """
    work = output.with_name(output.name + ".partial")
    for folder, mark in ((output, marker), (work, WORK_MARKER)):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"output folder {folder} must be a folder, not a file")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).exists():
            raise InputError(f"output folder {folder} must be new, empty or from an earlier run, but it holds other "
                             "files; choose another name or remove it")
    try:
        if work.exists():
            shutil.rmtree(work)
        work.mkdir(parents=True)
        (work / WORK_MARKER).touch()
    except OSError as error:
        raise InputError(f"output folder {output} cannot be made: {error.strerror}") from None
    try:
        yield work
    except BaseException:
        _keep_logs(work)
        raise
    (work / WORK_MARKER).unlink()
    if output.exists():
        shutil.rmtree(output)
    work.rename(output)


def _keep_logs(work: Path) -> None:
    """Removes all but logs, and the folder if none is left."""
    kept = 0
    for path in sorted(work.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.suffix == ".log":
            kept += 1
        elif path.name != WORK_MARKER:
            path.unlink()
    if not kept:
        shutil.rmtree(work)
