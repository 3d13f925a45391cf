"""The extract command on odd media: every clip ends as rows or as one reason, and a kill changes no byte."""

import dataclasses
import errno
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import pipeline.extraction
import pipeline.forkserver
import pipeline.workers
from extractors import base
from extractors.vggish import VGGish
from pipeline.datasets import folder
from pipeline.extract import main
from pipeline.manifest import Clip, Manifest
from pipeline.store import FeatureStore
from tests import media_factory as make

ROOT = Path(__file__).resolve().parents[2]


def save(folder: Path, clips) -> Path:
    path = folder / "manifest.parquet"
    Manifest("folder", tuple(clips)).check().save(path)
    return path


def many(folder: Path, count: int) -> None:
    """Media and manifest of clips that are one file of four seconds under many names."""
    (folder / "media").mkdir()
    clip = make.numbered(folder / "clip.mp4", duration_s=4.0)
    names = [f"c{number:02d}" for number in range(count)]
    for name in names:
        os.link(clip, folder / "media" / f"{name}.mp4")
    save(folder, [Clip(name, name, duration_s=4.0) for name in names])


def flags(folder: Path, store: str = "store", *more: str) -> list[str]:
    return [
        "--manifest", str(folder / "manifest.parquet"), "--media", str(folder / "media"),
        "--store", str(folder / store), "--encoders", "vggish", "--weights", "random:0", "--workers", "0", *more,
    ]  # fmt: skip


def tree(path: Path) -> dict[str, str]:
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(autouse=True, scope="module")
def _one_load():
    """The same encoder for every call of the command in this process: drawing 72 million weights takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "load", functools.cache(base.load))
        yield


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """One clip of every odd kind."""
    folder = tmp_path_factory.mktemp("odd")
    media = folder / "media"
    media.mkdir()
    writers = {
        "zero": make.zero_byte, "text": make.not_media, "cut": make.truncated, "silent": make.no_audio,
        "blind": make.no_video, "short": make.short, "still": make.one_frame, "odd": make.odd_size,
        "surround": make.six_channels, "phone": make.eight_khz, "turned": make.rotated,
        "plain": make.numbered,
    }  # fmt: skip
    for name, write in writers.items():
        write(media / f"{name}.mp4")
    make.variable_rate(media / "vfr.mp4")
    save(folder, [Clip(name, name, duration_s=2.0) for name in [*writers, "vfr", "gone"]])
    return folder


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_clip_that_cannot_be_read_here_and_now_ends_the_job_and_the_next_continues(
    tmp_path, monkeypatch, capsys, workers
):
    many(tmp_path, 18)  # more rows than the network takes at once
    real = av.open

    def refuse(path, *arguments, **more):
        if path.endswith("c17.mp4"):
            raise av.error.PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, *arguments, **more)

    arguments = flags(tmp_path, "store", "--job-clips", "2", "--workers", workers)
    with monkeypatch.context() as patch:
        patch.setattr(av, "open", refuse)
        patch.setattr(pipeline.forkserver, "METHOD", "fork")
        with pytest.raises(SystemExit) as caught:
            main(arguments)
    assert caught.value.code == 1
    told = capsys.readouterr().err
    assert "extract: clip c17 cannot be read: Permission denied" in told
    assert "c17.mp4" in told
    assert "Traceback" not in told
    store = FeatureStore.open(tmp_path / "store")
    assert set(store.outcomes(store.key("vggish")).values()) == {"ok", "pending"}
    assert main(arguments) == 0
    assert set(FeatureStore.open(tmp_path / "store").outcomes(store.key("vggish")).values()) == {"ok"}


def test_every_odd_clip_has_exactly_one_outcome(odd, capsys):
    receipt = odd / "receipt.json"
    assert main(flags(odd, "store", "--receipt", str(receipt))) == 0
    store = FeatureStore.open(odd / "store")
    key = store.key("vggish")
    found = store.outcomes(key)
    failed = {name: outcome for name, outcome in found.items() if outcome != "ok"}
    assert failed == {
        "zero": "not-media", "text": "not-media", "cut": "truncated", "silent": "no-audio", "gone": "absent",
    }  # fmt: skip
    assert set(store.reasons(key)) == set(failed)
    assert store.verify() == []
    for name, outcome in found.items():
        if outcome == "ok":
            assert store.read(name, key).shape == (2, 128)
    record = json.loads(receipt.read_text())
    assert sum(record["features"][key]["outcomes"].values()) == 14
    for file, digest in record["files"].items():
        assert hashlib.sha256((odd / "store" / file).read_bytes()).hexdigest() == digest
    assert "9 ok" in capsys.readouterr().out


def test_xarray_opens_the_store_with_names_and_times(odd):
    xarray = pytest.importorskip("xarray")
    main(flags(odd))
    key = FeatureStore.open(odd / "store").key("vggish")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = xarray.open_zarr(odd / "store", group=key)
    assert opened["values"].dims == ("clip", "segment", "feature")
    assert opened["segments"].attrs["units"] == "s"
    row = opened.sel(clip="plain")
    np.testing.assert_allclose(row["segments"].values, [[0, 1], [1, 2]])
    assert opened["outcome"].attrs["flag_meanings"].split()[int(row["outcome"])] == "ok"


def test_more_failures_than_allowed_is_exit_3(odd, capsys):
    assert main(flags(odd, "store", "--max-failed", "4")) == 3
    assert main(flags(odd, "store", "--max-failed", "5")) == 0


def test_names_that_no_encoder_has_are_a_usage_error_all_at_once(tmp_path, capsys):
    (tmp_path / "media").mkdir()
    save(tmp_path, [Clip("a", "a", duration_s=2.0)])
    with pytest.raises(SystemExit) as caught:
        main(flags(tmp_path, "store", "--encoders", "vgish,vggish,clip-b23"))
    assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert "'vgish'" in shown
    assert "'clip-b23'" in shown
    assert not (tmp_path / "store").exists()


def test_redo_takes_up_clips_that_arrived_later(tmp_path, capsys):
    media = tmp_path / "media"
    media.mkdir()
    make.numbered(media / "a.mp4")
    save(tmp_path, [Clip("a", "a", duration_s=2.0), Clip("b", "b", duration_s=2.0)])
    assert main(flags(tmp_path)) == 0
    key = FeatureStore.open(tmp_path / "store").key("vggish")
    before = FeatureStore.open(tmp_path / "store").read("a", key)
    make.numbered(media / "b.mp4")
    assert main(flags(tmp_path)) == 0
    assert FeatureStore.open(tmp_path / "store").outcomes(key)["b"] == "absent"
    assert "tried anew only with --redo absent" in capsys.readouterr().err
    assert main(flags(tmp_path, "store", "--redo", "absent")) == 0
    assert "--redo" not in capsys.readouterr().err
    store = FeatureStore.open(tmp_path / "store")
    assert store.outcomes(key) == {"a": "ok", "b": "ok"}
    np.testing.assert_array_equal(store.read("a", key), before)
    assert store.verify() == []


def test_same_bytes_for_any_shard_and_worker_count(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    names = [f"c{number}" for number in range(6)]
    for number, name in enumerate(names):
        make.numbered(media / f"{name}.mp4", duration_s=1.0 + number % 3, rate_hz=16_000 + 8_000 * (number % 2))
    save(tmp_path, [Clip(name, name, duration_s=3.0) for name in names])
    assert main(flags(tmp_path, "whole", "--job-clips", "2")) == 0
    for shard in (2, 0, 1):
        assert main([*flags(tmp_path, "parts", "--job-clips", "2"), "--shard", f"{shard}/3", "--workers", "1"]) == 0
    assert tree(tmp_path / "whole") == tree(tmp_path / "parts")


def test_same_bytes_from_two_devices_at_once(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    for number in range(4):
        make.numbered(media / f"c{number}.mp4", duration_s=2.0, rate_hz=16_000)
    save(tmp_path, [Clip(f"c{number}", f"c{number}", duration_s=2.0) for number in range(4)])
    assert main(flags(tmp_path, "one", "--job-clips", "2")) == 0
    receipt = tmp_path / "receipt.json"
    more = ("--job-clips", "2", "--devices", "cpu,cpu", "--receipt", str(receipt))
    assert main(flags(tmp_path, "two", *more)) == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert len(json.loads(receipt.read_text())["features"]) == 1
    with pytest.raises(SystemExit):
        main(flags(tmp_path, "two", "--devices", "cpu,cpu", "--job", "0"))


def test_encoders_with_one_front_end_prepare_once_and_load_only_when_needed(tmp_path, monkeypatch):
    media = tmp_path / "media"
    media.mkdir()
    make.numbered(media / "a.mp4", duration_s=2.0, rate_hz=16_000)
    save(tmp_path, [Clip("a", "a", duration_s=2.0)])
    assert main([*flags(tmp_path, "single"), "--encoders", "vggish:preactivation"]) == 0
    assert main(flags(tmp_path)) == 0
    prepared, loaded = [], []
    monkeypatch.setattr(base, "load", lambda name, *rest, real=base.load: loaded.append(name) or real(name, *rest))
    monkeypatch.setattr(
        VGGish, "prepare", lambda *call, real=VGGish.prepare: prepared.append(call[0].spec.name) or real(*call)
    )
    both = [*flags(tmp_path), "--encoders", "vggish,vggish:preactivation"]
    assert main(both) == 0
    assert loaded == ["vggish:preactivation"], "the finished feature's encoder was loaded"
    assert main([*flags(tmp_path, "together"), "--encoders", "vggish,vggish:preactivation"]) == 0
    assert len(prepared) == 2, "two encoders of one front end prepared twice"
    stores = [FeatureStore.open(tmp_path / name) for name in ("single", "store", "together")]
    key = stores[0].key("vggish:preactivation")
    for store in stores[1:]:
        np.testing.assert_array_equal(store.read("a", key), stores[0].read("a", key))
    loaded.clear()
    assert main(both) == 0
    assert loaded == []


@pytest.mark.parametrize("workers", ["0", "2"])
def test_rows_transformed_beside_the_network_are_the_same_bytes(tmp_path, monkeypatch, workers):
    """Clips of several sizes, one so large that a row of frames fits no slot of shared memory, and one that is gone."""
    monkeypatch.setattr(pipeline.workers, "_FRAMES_SLOT_BYTES", 20_000)
    media = tmp_path / "media"
    media.mkdir()
    sizes = {"a": (64, 48), "b": (48, 64), "c": (160, 120)}
    for name, (width, height) in sizes.items():
        make.numbered(media / f"{name}.mp4", width=width, height=height, duration_s=3.0)
    save(tmp_path, [Clip(name, name, duration_s=3.0) for name in (*sizes, "gone")])
    encoders = ["--encoders", "clip-tiny,vggish", "--workers", workers]
    assert main([*flags(tmp_path, "workers"), *encoders]) == 0
    assert main([*flags(tmp_path, "device"), *encoders, "--transforms", "device"]) == 0
    assert tree(tmp_path / "workers") == tree(tmp_path / "device")


def _children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.parametrize("fault", ["interrupt", "worker", "server"])
def test_interrupted_or_robbed_of_a_decoder_it_ends_cleanly(tmp_path, fault):
    """Ctrl-C keeps what is committed and leaves no process; a decoder or their server killed costs at most a clip."""
    many(tmp_path, 60)
    arguments = [*flags(tmp_path, "store", "--job-clips", "4"), "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.extract", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a script is deaf to Ctrl-C, and so would be its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    commits = tmp_path / "store" / "commits"
    deadline_s = time.monotonic() + 120
    while not list(commits.glob("*/*.json")) and time.monotonic() < deadline_s and process.poll() is None:
        time.sleep(0.02)
    children = _children(process.pid)
    (server,) = [child for child in children if _children(child)]
    decoders = _children(server)
    children += decoders
    victim, blow = {
        "interrupt": (process.pid, signal.SIGINT),
        "worker": (decoders[0], signal.SIGKILL),
        "server": (server, signal.SIGKILL),
    }[fault]
    os.kill(victim, blow)
    said = process.communicate(timeout=120)[1]
    if fault == "interrupt":
        assert process.returncode != 0
        assert "Traceback" not in said
        assert len(list(commits.glob("*/*.json"))) >= 1
    else:
        assert process.returncode == 0, said
        store = FeatureStore.open(tmp_path / "store")
        outcomes = list(store.outcomes(store.key("vggish")).values())
        assert outcomes.count("ok") >= 59
    deadline_s = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{child}").exists() for child in children), "a process was left behind"
    assert main([*arguments, "--redo", "crashed"]) == 0
    store = FeatureStore.open(tmp_path / "store")
    assert set(store.outcomes(store.key("vggish")).values()) == {"ok"}


def test_killed_and_run_again_gives_the_same_bytes(tmp_path):
    many(tmp_path, 40)
    assert main(flags(tmp_path, "whole", "--job-clips", "4")) == 0
    command = [sys.executable, "-m", "pipeline.extract", *flags(tmp_path, "killed", "--job-clips", "4")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    commits = tmp_path / "killed" / "commits"
    deadline_s = time.monotonic() + 120
    while len(list(commits.glob("*/*.json"))) < 2 and time.monotonic() < deadline_s and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(commits.glob("*/*.json")))
    assert done >= 2, "killed before anything was committed"
    kept = {path: path.stat().st_mtime_ns for path in commits.glob("*/*.json")}
    assert main(flags(tmp_path, "killed", "--job-clips", "4")) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "finished blocks were made again"
    FeatureStore.open(tmp_path / "killed").sweep()
    assert tree(tmp_path / "whole") == tree(tmp_path / "killed")


def test_describe_makes_nothing(odd, capsys):
    before = set(odd.iterdir())
    assert main(["--manifest", str(odd / "manifest.parquet"), "--encoders", "vggish", "--describe"]) == 0
    out = capsys.readouterr().out
    assert "14 clips" in out
    assert "vggish" in out
    assert set(odd.iterdir()) == before


def test_describe_is_of_the_flags_beside_it(odd, capsys):
    about = ["--manifest", str(odd / "manifest.parquet"), "--encoders", "vggish,clip-tiny", "--describe"]
    part = ["--shard", "1/2", "--job-clips", "4", "--weights", "vggish=random:7", "--precision", "bf16"]
    assert main([*about, *part]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    # Four blocks of at most four clips; the second part begins with the third of them.
    assert head.startswith("folder: 6 clips of 14, 8 to 13;")
    assert head.endswith("bf16")
    assert [row.split()[-1] for row in rows] == ["random:7", "published"]
    assert rows[0].split()[4:6] == ["6.14", "kB"]  # 6 clips of 2 rows of 128 float32
    with pytest.raises(SystemExit):
        main([*about, "--weights", "vggish=gone.pth"])
    assert "vggish: --weights 'gone.pth'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says", "code"),
    [
        (["--encoders", "vgish"], "vggish", 2),
        (["--weights", "somewhere.pth"], "vggish: --weights 'somewhere.pth'", 1),
        (["--media", "nowhere"], "no such folder", 1),
        (["--devices", "cpu,cpu", "--weights", "somewhere.pth"], "vggish: --weights 'somewhere.pth'", 1),
        (["--encoders", "clap-tiny", "--weights", "pretrained"], "clap-tiny: no published", 1),
        (["--shard", "3/3"], "from 0 to 2", 2),
        (["--shard", "3"], "write i/n", 2),
        (["--job", "7"], "jobs 0 to 0", 2),
        (["--encoders", "vggish,vggish"], "each name once", 2),
        (["--weights", "vgish=random:0"], "not among", 2),
        (["--redo", "bad"], "outcomes are", 2),
        (["--device", "gpu"], "write cpu", 2),
        (["--workers", "-1"], "at least 0", 2),
        (["--job-clips", "-3"], "at least 1", 2),
    ],
)
def test_wrong_use_is_explained(odd, capsys, more, says, code):
    with pytest.raises(SystemExit) as caught:
        main([*flags(odd, "other"), *more])
    assert caught.value.code == code
    assert says in capsys.readouterr().err


def test_weights_that_do_not_fit_leave_no_key(odd, capsys):
    torch.save({"another": torch.zeros(3)}, odd / "another.pth")
    with pytest.raises(SystemExit):
        main([*flags(odd, "unfit"), "--weights", str(odd / "another.pth")])
    assert "checkpoint does not fit vggish" in capsys.readouterr().err
    assert FeatureStore.open(odd / "unfit").keys() == []
    assert main(flags(odd, "unfit")) == 0
    assert len(FeatureStore.open(odd / "unfit").keys()) == 1


def outcomes(folder: Path) -> dict[str, str]:
    store = FeatureStore.open(folder / "store")
    return store.outcomes(store.key("vggish"))


def test_rows_of_a_clip_whose_file_is_gone_stay(tmp_path, monkeypatch, capsys):
    """When files are added, and when the code has changed: media may be deleted once the features are made."""
    media = tmp_path / "media"
    media.mkdir()
    clips = [Clip(name, name, duration_s=2.0) for name in "abc"]
    for name in "ab":
        make.numbered(media / f"{name}.mp4")
    save(tmp_path, clips[:2])
    assert main(flags(tmp_path)) == 0
    (media / "a.mp4").unlink()
    make.numbered(media / "c.mp4")
    save(tmp_path, clips)
    assert main(flags(tmp_path)) == 0
    assert outcomes(tmp_path) == {"a": "ok", "b": "ok", "c": "ok"}
    store = FeatureStore.open(tmp_path / "store")
    key, before = store.key("vggish"), tree(tmp_path / "store")
    monkeypatch.setattr(pipeline.extraction, "code_digest", lambda names: "other code")
    for _ in range(2):  # it is tried again, for the media may come back
        assert main(flags(tmp_path)) == 0
        assert "clip a keeps the rows that it has: its media are gone" in capsys.readouterr().err
        assert outcomes(tmp_path) == {"a": "ok", "b": "ok", "c": "ok"}
        assert list(FeatureStore.open(tmp_path / "store").notes(key)) == ["a"]
        values = f"{key}/values/c/0/0/0"
        assert tree(tmp_path / "store")[values] == before[values]
    make.numbered(media / "a.mp4")
    assert main(flags(tmp_path)) == 0
    capsys.readouterr()
    assert main(flags(tmp_path)) == 0
    assert "making them again" not in capsys.readouterr().err
    store = FeatureStore.open(tmp_path / "store")
    assert store.notes(key) == {}
    assert store.commit(key, 0)["made_by"] == "other code"
    assert store.verify() == []


def test_rows_made_with_another_tail_are_made_again(tmp_path, capsys):
    (tmp_path / "media").mkdir()
    make.numbered(tmp_path / "media" / "a.mp4")
    save(tmp_path, [Clip("a", "a", duration_s=4.0)])
    assert main(flags(tmp_path)) == 0
    assert outcomes(tmp_path) == {"a": "ok"}
    assert main(flags(tmp_path, "store", "--tail", "drop")) == 0
    assert "made with --tail pad" in capsys.readouterr().err
    assert outcomes(tmp_path) == {"a": "too-short"}
    assert main(flags(tmp_path, "store", "--tail", "drop")) == 0
    assert "again" not in capsys.readouterr().err


def test_redo_leaves_clips_with_other_outcomes_alone(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    make.zero_byte(media / "a.mp4")
    save(tmp_path, [Clip(name, name, duration_s=2.0) for name in "ab"])
    assert main(flags(tmp_path)) == 0
    make.numbered(media / "a.mp4")
    make.numbered(media / "b.mp4")
    assert main(flags(tmp_path, "store", "--redo", "absent")) == 0
    assert outcomes(tmp_path) == {"a": "not-media", "b": "ok"}
    store = FeatureStore.open(tmp_path / "store")
    assert list(store.reasons(store.key("vggish"))) == ["a"]
    assert store.verify() == []


def test_a_recording_that_states_no_length_gets_all_its_rows(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    make.live_recording(media / "rec.webm", duration_s=6.0)
    found = folder.read(media)
    assert found.clips[0].duration_s == pytest.approx(6.0, abs=0.2)
    found.save(tmp_path / "manifest.parquet")
    assert main(flags(tmp_path)) == 0
    store = FeatureStore.open(tmp_path / "store")
    assert len(store.read("rec", store.key("vggish"))) == 6
    save(tmp_path, [dataclasses.replace(found.clips[0], duration_s=None)])
    assert main(flags(tmp_path, "unknown")) == 0
    store = FeatureStore.open(tmp_path / "unknown")
    assert store.outcomes(store.key("vggish")) == {"rec": "wrong-length"}
