"""Worker processes that die, hang or raise cost one clip each."""

import contextlib
import dataclasses
import errno
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import pytest

from extractors.base import build
from extractors.recipes import recipe
from extractors.spec import Grid
from extractors.vggish import VGGish
from pipeline import forkserver, mediafile, preparation, workers
from pipeline.access import AccessError
from pipeline.manifest import Clip
from pipeline.preparation import Failure, Part, Task, prepare_clip
from pipeline.workers import WorkerPool
from tests import media_factory as make

ROOT = Path(__file__).resolve().parents[2]


def tasks(*names, keys=("k",)):
    return [Task(row, Clip(name, name), keys, (100,) * len(keys)) for row, name in enumerate(names)]


@pytest.fixture
def vggish_spec():
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


@pytest.mark.parametrize(("fault", "outcome"), [(_die_on_b, "crashed"), (_hang_on_b, "timeout")])
def test_a_bad_clip_costs_only_itself(folder, vggish_spec, monkeypatch, fault, outcome):
    # Children are forked from this process here, so that they inherit the fault.
    monkeypatch.setattr(workers, "prepare_clip", fault)
    monkeypatch.setattr(forkserver, "METHOD", "fork")
    pool = WorkerPool({"k": vggish_spec}, folder, 1, timeout_s=4.0)
    items = list(pool.run(tasks("a", "b", "c")))
    assert outcomes(items) == {0: "ok", 1: outcome, 2: "ok"}
    assert any("clip b" in item.message for item in items if isinstance(item, Failure))


def _litter(task, encoders, folder, *settings):
    (Path(tempfile.mkdtemp()) / "000001.jpg").touch()
    yield from (_hang_on_b if task.row == 3 else _die_on_b)(task, encoders, folder, *settings)


def test_what_dead_decoders_left_in_the_temporary_folder_is_removed(folder, tmp_path_factory, vggish_spec, monkeypatch):
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(workers, "prepare_clip", _litter)
    monkeypatch.setattr(forkserver, "METHOD", "fork")
    items = list(WorkerPool({"k": vggish_spec}, folder, 1, timeout_s=4.0).run(tasks("a", "b", "c", "b")))
    assert outcomes(items) == {0: "ok", 1: "crashed", 2: "ok", 3: "timeout"}
    assert list(scratch.iterdir()) == []


# Says so once its decoder hangs.
HANGING = """
import sys, tempfile, time
from pathlib import Path
from pipeline import forkserver, workers
from pipeline.manifest import Clip
from pipeline.preparation import Task

def hang(*arguments):
    tempfile.mkdtemp()
    print("hangs", flush=True)
    while True:
        time.sleep(1)

workers.prepare_clip, forkserver.METHOD = hang, "fork"
list(workers.WorkerPool({}, Path(), 1).run([Task(0, Clip("a", "a"), ("k",), (1,))]))
"""


def test_a_decoder_that_hangs_does_not_outlive_a_killed_command(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", HANGING]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "hangs\n"
        process.kill()
        assert process.stderr.read() == ""  # at the end of both, for both have it open
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize(
    ("error", "outcome"), [(ZeroDivisionError("odd header"), "decode-error"), (MemoryError(), "crashed")]
)
def test_a_surprise_costs_only_its_clip(folder, vggish_spec, monkeypatch, count, error, outcome):
    def find(clip, folder):
        if clip.id == "b":
            raise error
        return mediafile.find(clip, folder)

    monkeypatch.setattr(preparation, "find", find)
    monkeypatch.setattr(forkserver, "METHOD", "fork")
    items = list(WorkerPool({"k": vggish_spec}, folder, count).run(tasks("a", "b", "c")))
    assert outcomes(items) == {0: "ok", 1: outcome, 2: "ok"}
    assert any("clip b" in item.message for item in items if isinstance(item, Failure))


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT], ids=os.strerror
)
def test_a_clip_that_this_machine_cannot_read_ends_the_run(folder, vggish_spec, monkeypatch, count, number):
    real = av.open

    def refuse(path, *arguments, **more):
        if path.endswith("b.mp4"):
            raise av.error.classes[number](number, os.strerror(number), path)
        return real(path, *arguments, **more)

    monkeypatch.setattr(av, "open", refuse)
    monkeypatch.setattr(forkserver, "METHOD", "fork")
    items = WorkerPool({"k": vggish_spec}, folder, count).run(tasks("a", "b", "c"))
    assert outcomes([next(items)]) == {0: "ok"}
    with pytest.raises(AccessError, match=f"clip b cannot be read: {os.strerror(number)}; .*run the same") as caught:
        list(items)
    assert (caught.value.errno, caught.value.filename) == (number, str(folder / "b.mp4"))


def test_a_full_temporary_folder_is_told_as_such():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere")
    with pytest.raises(AccessError, match="free the folder of temporary files, or name another in TMPDIR") as caught:
        preparation.failures(tasks("a")[0], ("k",), full)
    assert caught.value.filename == "/somewhere"


def test_a_machine_without_free_file_handles_ends_the_run(folder, vggish_spec):
    import resource

    pool = WorkerPool({"k": vggish_spec}, folder, 0)
    assert outcomes(pool.run(tasks("a"))) == {0: "ok"}  # what is imported late is imported now
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 8, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(AccessError, match="clip a cannot be read: Too many open files"):
            list(pool.run(tasks("a")))
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _Broken(VGGish):
    """A front end that trips over the second block of every clip."""

    front_end = ("broken",)

    def collect(self, media, segments):
        if segments[0, 0] > 0:
            raise KeyError("odd sound")
        return super().collect(media, segments)


@pytest.mark.parametrize("prepared", [True, False])
def test_a_front_end_that_fails_costs_only_its_own_rows(folder, vggish_spec, monkeypatch, prepared):
    monkeypatch.setattr(preparation, "_blocks", lambda *_: iter([(0.0, 1.0), (1.0, 2.0)]))
    broken = _Broken(dataclasses.replace(vggish_spec, grid=Grid(count=2)))
    encoders = {"bad": broken, "good": build(vggish_spec)}
    items = list(prepare_clip(tasks("a", keys=("bad", "good"))[0], encoders, folder, prepared=prepared))
    (failure,) = (item for item in items if isinstance(item, Failure))
    assert (failure.key, failure.outcome) == ("bad", "decode-error")
    assert failure.message == "clip a: KeyError: 'odd sound'"
    good = [item for item in items if isinstance(item, Part) and "good" in item.keys]
    assert [part.last for part in good] == [False, True]


def test_pictures_that_do_not_decode_cost_no_sound(folder, vggish_spec):
    make.damaged(folder / "d.mp4", range(5, 45), video=True)
    encoders = {"sound": build(vggish_spec), "pictures": build(recipe("resnet50").spec)}
    items = list(prepare_clip(tasks("d", keys=("sound", "pictures"))[0], encoders, folder))
    assert {(item.key, item.outcome) for item in items if isinstance(item, Failure)} == {("pictures", "decode-error")}
    assert any(item.last for item in items if isinstance(item, Part) and item.keys == ("sound",))


@pytest.mark.parametrize("lost", ["video", "audio"])
def test_a_stream_that_has_no_decoder_costs_no_other(folder, vggish_spec, lost):
    make.unknown_coding(folder / "d.mp4", video=lost == "video")
    encoders = {"audio": build(vggish_spec), "video": build(recipe("resnet50").spec)}
    items = list(prepare_clip(tasks("d", keys=("audio", "video"))[0], encoders, folder))
    (failure,) = (item for item in items if isinstance(item, Failure))
    assert (failure.key, failure.outcome) == (lost, "decode-error")
    assert failure.message == f"d.mp4: this FFmpeg has no decoder for its {lost} stream"
    assert any(item.last for item in items if isinstance(item, Part))


def test_a_long_clip_comes_in_parts(folder, vggish_spec, monkeypatch):
    monkeypatch.setattr(preparation, "_blocks", lambda *_: iter([(0.0, 1.0), (1.0, 2.0)]))
    parts = list(prepare_clip(tasks("a")[0], {"k": build(vggish_spec)}, folder))
    monkeypatch.undo()
    whole = list(prepare_clip(tasks("a")[0], {"k": build(vggish_spec)}, folder))
    assert [(part.offset, part.last) for part in parts] == [(0, False), (1, True)]
    np.testing.assert_array_equal(np.concatenate([part.batch for part in parts]), whole[0].batch)


def test_tail_policy(folder, vggish_spec):
    spec = dataclasses.replace(vggish_spec, grid=Grid(count=5))
    padded = list(prepare_clip(tasks("a")[0], {"k": build(spec)}, folder, "pad"))
    assert len(padded[0].places) == 5
    (failure,) = prepare_clip(tasks("a")[0], {"k": build(spec)}, folder, "drop")
    assert failure.outcome == "too-short"
    assert "clip a: audio ends at 2.0" in failure.message
    assert "the grid needs 5.00 s" in failure.message
