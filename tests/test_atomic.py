"""Files that are whole or not there."""

import os
from pathlib import Path

import pytest

from lutq_hw.atomic import write_bytes, write_text
from lutq_hw.errors import InputError, ModelError


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_what_stood_there_stays_when_writing_is_interrupted(where, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(*((os, "fsync") if where == "fsync" else (Path, "replace")), interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"] and path.read_text() == "old"


def test_a_file_is_replaced_and_readable_as_others_are(tmp_path):
    path, plain = tmp_path / "file", tmp_path / "plain"
    path.write_text("old")
    plain.touch()
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new" and path.stat().st_mode == plain.stat().st_mode
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "plain"]


@pytest.mark.parametrize("kind", [InputError, ModelError])
def test_a_folder_that_is_not_there(kind, tmp_path):
    path = tmp_path / "no" / "file"
    with pytest.raises(kind) as caught:
        write_bytes(path, b"", error=kind)
    assert str(caught.value) == f"{path}: cannot be written (No such file or directory)"
