import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from extractors.spec import FeatureSpec, FrameSampler, Grid
from pipeline import blocks
from pipeline.layout import plan
from pipeline.manifest import Clip, Manifest
from pipeline.store import FeatureStore, NoRows, StoreError
from tests.pipeline import store_factory as factory

ROOT = Path(__file__).resolve().parents[2]
DEMO = factory.manifest(10)
AUDIO = factory.spec()


@pytest.fixture
def store(tmp_path):
    return factory.store(tmp_path / "S", DEMO, [AUDIO], absent={3}, job_clips=4)


def shard(store, block, name="values", axes=2):
    return store.path / AUDIO.key / name / "c" / str(block) / Path(*["0"] * axes)


def run_python(code, *arguments):
    """Run code in a fresh interpreter and return the process."""
    text = textwrap.dedent(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, text=True
    )


# ---- determinism -----------------------------------------------------------------------------------------------------


def tree(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_the_same_rows_give_the_same_bytes_in_any_order(tmp_path):
    one = factory.store(tmp_path / "one", DEMO, [AUDIO], job_clips=2)
    two = FeatureStore.create(tmp_path / "two", DEMO, [AUDIO], job_clips=2)
    for start in (8, 2, 0, 6, 4):
        factory.fill(two, DEMO, AUDIO.key, rows=range(start, start + 2))
    assert tree(one.path) == tree(two.path)


# ---- planning --------------------------------------------------------------------------------------------------------


def test_blocks_divide_the_job_and_stay_below_64_megabytes():
    for shape, job, expected in [((128,), 256, 256), ((7, 7, 512), 256, 64), ((7, 7, 512), 100, 50), ((4,), 96, 96)]:
        layout = plan(DEMO, factory.spec(shape=shape), job)
        assert layout.block_clips == expected
        assert job % layout.block_clips == 0
    with pytest.raises(ValueError, match="job_clips is 0"):
        plan(DEMO, AUDIO, 0)


def test_planning_twice_changes_nothing_and_another_manifest_is_refused(store):
    before = tree(store.path)
    FeatureStore.create(store.path, DEMO, [AUDIO], job_clips=4)
    assert tree(store.path) == before
    with pytest.raises(StoreError, match="belongs to another manifest"):
        FeatureStore.create(store.path, factory.manifest(9), [AUDIO], job_clips=4)
    with pytest.raises(StoreError, match="jobs of 4 clips, not 8"):
        FeatureStore.create(store.path, DEMO, [AUDIO], job_clips=8)
    (store.path.parent / "other").mkdir()
    (store.path.parent / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(StoreError, match=r"holds thesis\.tex"):
        FeatureStore.create(store.path.parent / "other", DEMO, [AUDIO])
    assert tree(store.path) == before


def test_planning_from_several_processes_at_once_gives_one_store(tmp_path):
    code = """
        import sys
        from pipeline.store import FeatureStore
        from tests.pipeline import store_factory as factory
        specs = [factory.spec(), factory.spec("vgg19", (2, 2, 3), modality="visual")]
        sys.stdout.write("ready"); sys.stdout.flush()
        while not __import__("os").path.exists(sys.argv[2]): pass
        FeatureStore.create(sys.argv[1], factory.manifest(10), specs)
    """
    jobs = [run_python(code, tmp_path / "S", tmp_path / "go") for _ in range(3)]
    for job in jobs:
        assert job.stdout.read(5) == "ready"
    (tmp_path / "go").touch()
    assert [job.wait(60) for job in jobs] == [0, 0, 0]
    store = FeatureStore.open(tmp_path / "S")
    assert len(store.keys()) == 2
    assert store.verify() == []


def test_planning_that_was_interrupted_continues(tmp_path):
    path = tmp_path / "S"
    path.mkdir()
    (path / "zarr.json.4711.partial").write_text('{"zarr_fo')
    (path / f".{AUDIO.key}.abc.partial").mkdir()
    (path / f".{AUDIO.key}.abc.partial" / "zarr.json").write_text("{")
    store = factory.store(path, DEMO, [AUDIO])
    assert store.keys() == [AUDIO.key]
    assert len(store.verify()) == 2
    assert store.sweep() == 2
    assert store.verify() == []


# ---- writing ---------------------------------------------------------------------------------------------------------


def test_a_writer_refuses_what_does_not_fit(store):
    store.forget(AUDIO.key, 1)
    writer = store.writer(AUDIO.key, 1)
    times = AUDIO.grid.segments(10.0)
    for values, segments, message in [
        (np.zeros((10, 5)), times, "rows of shape"),
        (np.zeros((11, 4)), np.zeros((11, 2)), "rows of shape"),
        (np.zeros((0, 4)), np.zeros((0, 2)), "planned are 1 to 10"),
        (np.zeros((9, 4)), times, "9 rows, but times of shape"),
    ]:
        with pytest.raises(StoreError, match=message):
            writer.put(4, values, segments)
    with pytest.raises(StoreError, match="not in block 1"):
        writer.put(0, np.zeros((10, 4)), times)
    writer.put(4, np.full((10, 4), np.nan, "float32"), times)
    with pytest.raises(StoreError, match=r"no outcome yet for clip rows \[5, 6, 7\]"):
        writer.commit()
    for row in (5, 6, 7):
        writer.put(row, np.zeros((10, 4), "float32"), times)
    assert writer.commit() == {"non-finite": 1, "ok": 3}


def test_a_second_writer_is_refused_while_the_first_lives(store):
    before = tree(store.path)
    code = """
        import sys
        from pipeline.store import FeatureStore
        store = FeatureStore(sys.argv[1], "r+")
        writer = store.writer(sys.argv[2], 1)
        print("writing", flush=True)
        sys.stdin.read()
    """
    other = run_python(code, store.path, AUDIO.key)
    try:
        assert other.stdout.readline() == "writing\n"
        with pytest.raises(StoreError, match="another process is writing this block"):
            store.writer(AUDIO.key, 1)
        assert store.sweep() == 0  # what a living process writes is not litter
        store.writer(AUDIO.key, 0)._scratch.release()  # other blocks are free
    finally:
        other.kill()
        other.wait()
    assert store.sweep() == 1
    assert tree(store.path) == before
    store.writer(AUDIO.key, 1)._scratch.release()


@pytest.mark.parametrize("step", [1, 3, 5])
def test_kill_nine_during_a_commit_loses_at_most_that_block(store, step):
    """Kill at the step-th rename: the block is the old one, the new one, or not counted; all others are intact."""
    code = """
        import os, signal, sys
        from pipeline.store import FeatureStore
        from tests.pipeline import store_factory as factory
        import numpy as np
        store = FeatureStore(sys.argv[1], "r+")
        writer = store.writer(sys.argv[2], 1)
        for row in writer.span:
            writer.put(row, np.full((10, 4), 7, "float32"), store.spec(sys.argv[2]).grid.segments(10.0))
        calls, rename = [], os.replace
        def replace(source, target):
            calls.append(target)
            if len(calls) == int(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)
        import pipeline.blocks, pipeline.run
        pipeline.blocks.os = pipeline.run.os = type("os", (), {**vars(os), "replace": staticmethod(replace)})
        writer.commit()
    """
    assert run_python(code, store.path, AUDIO.key, step).wait(60) == -signal.SIGKILL
    again = FeatureStore(store.path, "r+")
    assert [span.start for span in again.missing(AUDIO.key)] == [4]
    for row in (0, 1, 2, 8, 9):
        np.testing.assert_array_equal(again.read(DEMO.ids[row], AUDIO.key), factory.rows_of(AUDIO, row, 10))
    with pytest.raises(NoRows, match="no job has handled it"):
        again.read(DEMO.ids[5], AUDIO.key)
    assert again.sweep() == 2
    factory.fill(again, DEMO, AUDIO.key)
    assert again.verify() == []


def test_a_full_disk_leaves_the_earlier_block_as_it_was(store):
    """RLIMIT_FSIZE stands for the full disk: writing a shard fails half way."""
    before = tree(store.path)
    code = """
        import resource, sys
        from pipeline.run import command
        from pipeline.store import FeatureStore
        from tests.pipeline import store_factory as factory
        store = FeatureStore(sys.argv[1], "r+")
        writer = store.writer(sys.argv[2], 1)
        for row in writer.span:
            writer.put(row, factory.rows_of(writer.spec, row + 100, 10), writer.spec.grid.segments(10.0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        with command("extract"):
            writer.commit()
    """
    assert run_python(code, store.path, AUDIO.key).wait(60) == 1
    store.sweep()
    assert tree(store.path) == before


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX users")
def test_a_read_only_folder_is_refused_before_anything_is_computed(store):
    store.forget(AUDIO.key, 1)
    for folder in [store.path, *(path for path in store.path.rglob("*") if path.is_dir())]:
        folder.chmod(0o555)
    child = os.fork()
    if child == 0:  # root may write anywhere, so become somebody else
        status = 9
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            store.writer(AUDIO.key, 1)
        except PermissionError:
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for folder in [store.path, *(path for path in store.path.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)
    assert status == 0


def test_a_store_opened_for_reading_gives_no_writer(store):
    with pytest.raises(StoreError, match="opened for reading"):
        FeatureStore.open(store.path).writer(AUDIO.key, 0)


# ---- damage ----------------------------------------------------------------------------------------------------------


def test_a_sound_store_has_nothing_to_report(store):
    assert store.verify() == []
    assert store.missing(AUDIO.key) == []


@pytest.mark.parametrize("where", ["value", "index", "torn", "gone"])
def test_damage_is_named_refused_and_repaired_in_its_block_only(store, where):
    path = shard(store, 1)
    intact = tree(store.path)
    if where == "value":
        factory.flip(path)
    elif where == "index":
        factory.flip(path, path.stat().st_size - 10)
    elif where == "torn":
        path.write_bytes(path.read_bytes()[:-30])
    else:
        path.unlink()
    (found,) = store.verify()
    assert found.startswith(f"{AUDIO.key} block 1: clips 4..7: {path.relative_to(store.path)} ")
    with pytest.raises(StoreError, match=r"pipeline\.verify"):
        FeatureStore.open(store.path).read(DEMO.ids[4], AUDIO.key)
    np.testing.assert_array_equal(store.read(DEMO.ids[0], AUDIO.key), factory.rows_of(AUDIO, 0, 10))
    store.forget(AUDIO.key, 1)
    factory.fill(store, DEMO, AUDIO.key)
    assert store.verify() == []
    assert tree(store.path) == intact


def test_a_flipped_byte_in_a_ragged_key_is_found_by_its_checksum(tmp_path):
    made = factory.manifest(6, durations=(10.0, 3.0))
    spec = factory.spec(count=None)
    store = factory.store(tmp_path / "S", made, [spec])
    factory.flip(store.path / spec.key / "values/c/0/0/0", 60)
    with pytest.raises(StoreError, match="cannot be decoded"):
        FeatureStore.open(store.path).read(made.ids[0], spec.key)


def test_a_deleted_or_damaged_commit_record_costs_its_block_only(store):
    store.commit_path(AUDIO.key, 2).unlink()
    store.commit_path(AUDIO.key, 1).write_text('{"key": ')
    assert [span.start for span in store.missing(AUDIO.key)] == [8]
    assert set(store.outcomes(AUDIO.key).values()) == {"ok", "absent", "pending"}
    (problem,) = store.verify()
    assert "damaged commit record" in problem
    store.forget(AUDIO.key, 1)
    factory.fill(store, DEMO, AUDIO.key)
    assert store.verify() == []


def test_nan_and_times_that_disagree_are_found_even_if_the_hashes_are_right(store):
    """A writer with a defect would hash what it wrote; the content has to be checked too."""
    writer = store.writer(AUDIO.key, 2)
    for row in (8, 9):
        writer.put(row, factory.rows_of(AUDIO, row, 10), AUDIO.grid.segments(10.0))
    writer._values[0, 2, 1] = np.inf
    writer._segments[1, 4] = np.nan
    writer._segments[0, 5:] = writer._segments[0, 4]
    writer.commit()
    found = " | ".join(store.verify())
    assert f"clip {DEMO.ids[8]} holds NaN or infinity" in found
    assert f"clip {DEMO.ids[9]} has 10 rows, but times for another number" in found
    assert f"clip {DEMO.ids[8]} has times that do not run forward" in found
    assert len(store.verify(deep=False)) == 0


def test_clips_without_rows_take_no_room(tmp_path):
    manifest = Manifest("x", tuple(Clip(f"c{number}", f"c{number}", duration_s=10.0) for number in range(64)))
    spec = FeatureSpec("e", "r", "visual", "map", (), (), Grid(), FrameSampler(), (7, 7, 512))
    store = FeatureStore.create(tmp_path / "s", manifest, [spec])
    for block, span in store.blocks(spec.key):
        writer = store.writer(spec.key, block)
        for row in span:
            if row == 3:
                writer.put(row, np.ones((10, 7, 7, 512), np.float32), spec.grid.segments(10.0))
            else:
                writer.fail(row, "absent", "no file")
        writer.commit()
    size = sum(file.stat().st_size for file in (tmp_path / "s" / spec.key).rglob("*") if file.is_file())
    assert size < 2 * 10 * 7 * 7 * 512 * 4
    assert store.verify() == []
    np.testing.assert_array_equal(FeatureStore.open(tmp_path / "s").read("c3", spec.key), 1.0)


def test_rows_of_nothing_but_zeros_are_rows(tmp_path):
    manifest = Manifest("x", (Clip("a", "a", duration_s=2.0), Clip("b", "b", duration_s=2.0)))
    for dtype in ("uint8", "float32"):
        spec = FeatureSpec("e", "r", "visual", "map", (), (), Grid(), FrameSampler(), (4,), dtype=dtype)
        store = FeatureStore.create(tmp_path / dtype, manifest, [spec])
        writer = store.writer(spec.key, 0)
        for row in (0, 1):
            writer.put(row, np.zeros((2, 4), dtype), spec.grid.segments(2.0))
        writer.commit()
        np.testing.assert_array_equal(FeatureStore.open(tmp_path / dtype).read("b", spec.key), np.zeros((2, 4)))
        assert store.verify() == []


def test_a_block_in_which_no_clip_has_rows_is_sound(tmp_path):
    made = factory.manifest(10)
    wide = factory.spec("vgg19", (2, 2, 3), modality="visual")
    counted = factory.spec("labels", dtype="uint8")
    store = factory.store(tmp_path / "s", made, [wide, counted], absent={4, 5, 6, 7}, job_clips=4)
    assert not (store.path / wide.key / "values/c/1").exists()
    assert store.verify() == []
    assert store.missing(wide.key) == []
    (store.path / wide.key / "values/c/0/0/0/0/0").unlink()
    assert [line for line in store.verify() if "block 0" in line]


def test_rows_that_lie_there_for_nobody_are_removed_with_the_commit(tmp_path):
    made, spec = factory.manifest(4), factory.spec()
    store = factory.store(tmp_path / "s", made, [spec], job_clips=4)
    values = store.path / spec.key / "values/c/0/0/0"
    assert values.exists()
    writer = store.writer(spec.key, 0)
    for row in range(4):
        writer.fail(row, "removed", "gone")
    writer.commit()
    assert not values.exists()
    assert store.verify() == []


def test_without_locks_two_writers_of_a_block_leave_the_later_ones_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "_lock", lambda handle: None)
    made, spec = factory.manifest(4), factory.spec()
    store = FeatureStore.create(tmp_path / "s", made, [spec], job_clips=4)
    first, second = store.writer(spec.key, 0), store.writer(spec.key, 0)
    for value, writer in enumerate((first, second), start=1):
        for row in range(4):
            writer.put(row, np.full((10, 4), value, "float32"), spec.grid.segments(10.0))
    assert first.commit() == {"ok": 4}
    assert second.commit() == {"ok": 4}
    np.testing.assert_array_equal(FeatureStore.open(store.path).read(made.ids[2], spec.key), 2.0)
    assert store.verify() == []


def test_a_block_that_is_written_again_keeps_what_was_said_of_its_other_clips(tmp_path):
    made, spec = factory.manifest(4), factory.spec()
    store = factory.store(tmp_path / "s", made, [spec], absent={1, 2}, job_clips=4)
    writer = store.writer(spec.key, 0)
    writer.keep({2})
    writer.put(2, factory.rows_of(spec, 2, 10), spec.grid.segments(10.0))
    writer.commit()
    assert store.outcomes(spec.key)[made.ids[1]] == "absent"
    assert store.reasons(spec.key) == {made.ids[1]: f"no file for {made.ids[1]}"}
    np.testing.assert_array_equal(store.read(made.ids[0], spec.key), factory.rows_of(spec, 0, 10))
    assert store.verify() == []
