"""Temporary folders of processes that may be killed."""

import tempfile
from pathlib import Path

from pipeline import temporary


def test_everything_temporary_goes_there_and_goes_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = temporary.make()
    assert folder.parent == tmp_path
    temporary.use(folder)
    (Path(tempfile.mkdtemp()) / "a").touch()
    assert len(list(folder.rglob("a"))) == 1
    temporary.remove(folder)
    temporary.remove(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_removal_that_was_killed_half_way_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = temporary.make()
    (folder / "a").touch()
    folder.rename(folder.with_name(f"{folder.name}.gone"))
    temporary.remove(folder)
    assert list(tmp_path.iterdir()) == []
