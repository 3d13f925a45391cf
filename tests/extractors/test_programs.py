"""Converted networks come back whole and only for what they were made for, or not at all."""

import dataclasses
import os
import time

import pytest

from extractors import programs
from extractors.recipes import recipe
from extractors.weights import sha256_of

SPEC = recipe("vggish").spec
SHAPE = (16, 1, 96, 64)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(programs.VARIABLE, str(tmp_path / "programs"))
    return tmp_path / "programs"


def save(folder):
    (folder / "model.xml").write_text("layers")
    (folder / "model.bin").write_bytes(bytes(range(256)))


def kept(spec=SPEC, processor="p"):
    shelf = programs.Shelf(spec, processor)
    shelf.keep(SHAPE, 2.5, save)
    return shelf


def test_what_was_kept_is_found_by_another_process():
    assert not programs.Shelf(SPEC, "p")
    kept()
    shelf = programs.Shelf(SPEC, "p")
    assert shelf
    program = shelf.find(SHAPE)
    assert program.flop == 2.5
    assert (program.folder / "model.bin").read_bytes() == bytes(range(256))
    assert shelf.find((32, 1, 96, 64)) is None


@pytest.mark.parametrize(
    "change", ["weights", "precision", "recipe", "processor", "source", "version"], ids=lambda name: name
)
def test_whatever_decides_the_numbers_makes_another_network(change, monkeypatch):
    kept()
    spec, processor = SPEC, "p"
    if change == "weights":
        spec = dataclasses.replace(SPEC, weights="random:7")
    elif change == "precision":
        spec = dataclasses.replace(SPEC, precision="bf16")
    elif change == "recipe":
        spec = recipe("vggish:preactivation").spec
    elif change == "processor":
        processor = "q"
    elif change == "source":
        monkeypatch.setattr(programs, "_source", lambda: "edited")
    else:
        monkeypatch.setattr(programs, "_version", lambda name: "99")
    assert not programs.Shelf(spec, processor)
    assert programs.Shelf(spec, processor).find(SHAPE) is None


def test_an_edit_of_an_encoder_changes_the_source(tmp_path, monkeypatch):
    before = programs._source()
    (tmp_path / "copy" / "nets").mkdir(parents=True)
    for name in ("programs.py", "nets/vggish.py"):
        (tmp_path / "copy" / name).write_text("a = 1\n")
    monkeypatch.setattr(programs, "__file__", str(tmp_path / "copy" / "programs.py"))
    first = programs._source()
    (tmp_path / "copy" / "nets" / "vggish.py").write_text("a = 2\n")
    assert len({before, first, programs._source()}) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "record"])
def test_a_damaged_network_is_dropped_and_made_again(damage):
    shelf = kept()
    folder = shelf.find(SHAPE).folder
    if damage == "flip":
        (folder / "model.bin").write_bytes(bytes(range(255)) + b"\0")
    elif damage == "cut":
        (folder / "model.bin").write_bytes(b"")
    elif damage == "gone":
        (folder / "model.xml").unlink()
    else:
        (folder / "record.json").write_text('{"files": 3')
    assert shelf.find(SHAPE) is None
    kept()
    assert sha256_of(shelf.find(SHAPE).folder / "model.bin") == sha256_of(folder / "model.bin")


def test_the_first_of_two_jobs_that_convert_at_once_wins_and_nothing_else_stays(folder):
    shelf = kept()
    before = (shelf.find(SHAPE).folder / "model.bin").stat().st_ino
    kept()
    assert (shelf.find(SHAPE).folder / "model.bin").stat().st_ino == before
    assert [path.name for path in folder.iterdir()] == [shelf.folder.name]
    assert [path.name for path in shelf.folder.iterdir()] == ["16x1x96x64"]


def test_a_folder_that_cannot_be_written_costs_only_the_keeping(folder):
    def full(made):
        (made / "model.xml").write_text("half")
        raise OSError(28, "No space left on device")

    shelf = programs.Shelf(SPEC, "p")
    shelf.keep(SHAPE, 1.0, full)
    assert shelf.find(SHAPE) is None
    assert not list(folder.glob(".*"))
    folder.rename(folder.with_name("elsewhere"))
    folder.write_text("a file where the folder should be")
    kept()
    assert not shelf
    assert shelf.find(SHAPE) is None


def test_a_user_without_a_home_keeps_nothing(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in (programs.VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(programs.Path, "home", homeless)
    shelf = kept()
    assert not shelf
    assert shelf.find(SHAPE) is None


def test_what_nobody_used_for_a_month_goes(folder):
    old, used = kept(), kept(dataclasses.replace(SPEC, weights="random:1"))
    torn = folder / ".partial-x"
    torn.mkdir()
    long_ago_s = time.time() - 40 * 24 * 3600
    for path in (old.find(SHAPE).folder / "record.json", used.find(SHAPE).folder / "record.json", torn):
        os.utime(path, (long_ago_s, long_ago_s))
    assert used.find(SHAPE)
    newest = kept(dataclasses.replace(SPEC, weights="random:2"))
    assert not old
    assert {path.name for path in folder.iterdir()} == {used.folder.name, newest.folder.name}
