"""Files that are either whole or not there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import InputError, LutqError


def write_bytes(path: Path, content: bytes, *, error: type[LutqError] = InputError) -> None:
    """Write a file: to a neighbour first, then renamed over ``path``, so that no reader ever sees half of it.

    Raises
    ------
    error
        With one sentence, if the file cannot be written; what stood at ``path`` before is still there.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            Path(name).chmod(0o666 & ~umask)  # mkstemp makes files for their owner only
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as problem:
        raise error(f"{path}: cannot be written ({problem.strerror or problem})") from None


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for text."""
    write_bytes(path, text.encode())
