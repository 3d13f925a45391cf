"""Worker processes that die, hang or raise cost one clip each."""

import os
import time

import numpy as np
import pytest

from extractors.spec import Grid
from pipeline import forkserver, preparation, workers
from pipeline.manifest import Clip
from pipeline.preparation import Failure, Part, Task, prepare_clip
from pipeline.workers import WorkerPool
from tests import media_factory as make


def tasks(*names, keys=("k",)):
    return [Task(row, Clip(name, name), keys, (100,) * len(keys)) for row, name in enumerate(names)]


@pytest.fixture
def vggish_spec():
    from extractors.recipes import recipe

    return recipe("vggish").spec


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "c"):
        make.numbered(tmp_path / f"{name}.mp4", duration_s=2.0)
    return tmp_path


def outcomes(items):
    return {item.row: item.outcome if isinstance(item, Failure) else "ok" for item in items}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_every_clip_ends_once(folder, vggish_spec, count):
    pool = WorkerPool({"k": vggish_spec}, folder, count)
    items = list(pool.run(tasks("a", "gone", "b", "c")))
    assert outcomes(items) == {0: "ok", 1: "absent", 2: "ok", 3: "ok"}
    assert all(item.last and item.batch.shape[0] == 2 for item in items if isinstance(item, Part))


def _die_on_b(task, encoders, folder, *settings):
    if task.clip.id == "b":
        os._exit(9)
    yield from prepare_clip(task, encoders, folder, *settings)


def _hang_on_b(task, encoders, folder, *settings):
    if task.clip.id == "b":
        time.sleep(60)
    yield from prepare_clip(task, encoders, folder, *settings)


def _raise_on_b(task, encoders, folder, *settings):
    if task.clip.id == "b":
        raise ZeroDivisionError("odd header")
    yield from prepare_clip(task, encoders, folder, *settings)


@pytest.mark.parametrize(
    ("fault", "outcome"), [(_die_on_b, "crashed"), (_hang_on_b, "timeout"), (_raise_on_b, "decode-error")]
)
def test_a_bad_clip_costs_only_itself(folder, vggish_spec, monkeypatch, fault, outcome):
    # Children are forked from this process here, so that they inherit the fault.
    monkeypatch.setattr(workers, "prepare_clip", fault)
    monkeypatch.setattr(forkserver, "METHOD", "fork")
    pool = WorkerPool({"k": vggish_spec}, folder, 1, timeout_s=4.0)
    items = list(pool.run(tasks("a", "b", "c")))
    assert outcomes(items) == {0: "ok", 1: outcome, 2: "ok"}
    assert any("clip b" in item.message for item in items if isinstance(item, Failure))


def test_a_long_clip_comes_in_parts(folder, vggish_spec, monkeypatch):
    from extractors.base import build

    monkeypatch.setattr(preparation, "_blocks", lambda *_: iter([(0.0, 1.0), (1.0, 2.0)]))
    parts = list(prepare_clip(tasks("a")[0], {"k": build(vggish_spec)}, folder))
    monkeypatch.undo()
    whole = list(prepare_clip(tasks("a")[0], {"k": build(vggish_spec)}, folder))
    assert [(part.offset, part.last) for part in parts] == [(0, False), (1, True)]
    np.testing.assert_array_equal(np.concatenate([part.batch for part in parts]), whole[0].batch)


def test_tail_policy(folder, vggish_spec):
    import dataclasses

    from extractors.base import build

    spec = dataclasses.replace(vggish_spec, grid=Grid(count=5))
    padded = list(prepare_clip(tasks("a")[0], {"k": build(spec)}, folder, "pad"))
    assert len(padded[0].places) == 5
    (failure,) = prepare_clip(tasks("a")[0], {"k": build(spec)}, folder, "drop")
    assert failure.outcome == "too-short"
    assert "clip a: audio ends at 2.0" in failure.message
    assert "the grid needs 5.00 s" in failure.message
