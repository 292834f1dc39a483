"""Reading .npz files that anyone may have written."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lutq_hw.errors import InputError


def read_npz(path: Path, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The arrays ``names`` of an .npz, or all of them; nothing in the file is ever unpickled.

    Raises
    ------
    InputError
        If the file cannot be read, is no such archive, or lacks one of ``names``.
    """
    try:
        # Opened here, since np.load leaves a file open that it then refuses.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for name in names:
                if name not in archive.files:
                    raise InputError(f"{path} must hold arrays {', '.join(names)}, but {name} is missing")
            return {name: archive[name] for name in names or archive.files}
    except (OSError, EOFError, ValueError, TypeError, AttributeError, NotImplementedError, MemoryError, RuntimeError,
            zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} must be an .npz archive of plain arrays ({error or type(error).__name__})") from None
