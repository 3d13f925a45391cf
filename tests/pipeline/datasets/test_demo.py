"""The demo: the annotations say what is drawn and played, the media are made once and the same each time."""

import json
import subprocess
import sys
import time

import av
import numpy as np
import pytest

from pipeline.datasets import ave, demo, demo_media, demo_scene, description, llp
from pipeline.datasets.demo_scene import DemoPlan
from pipeline.manifest import ManifestError

DEMO = description.load("demo")
TINY = DemoPlan(train=2, val=0, test=0, teacher=1, broken=7)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    media = tmp_path_factory.mktemp("demo") / "media"
    return media, demo.read(DEMO, media, TINY, workers=1)


@pytest.fixture(scope="module")
def full():
    return demo_scene.scenes(DemoPlan(), DEMO.classes)


def decode(path):
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return np.stack(pictures).astype(np.float32), sound


def test_manifest(tiny):
    _, manifest = tiny
    assert manifest.problems() == []
    assert manifest.splits() == {"train": 6, "test": 2, "val": 1, "teacher": 1}
    assert sorted(manifest.facts["broken"].values()) == sorted(kind for kind, _ in demo_scene.BROKEN)
    assert all(len(clip.id) == 11 for clip in manifest.clips)


def test_a_clip_is_a_ten_second_video_with_sound(tiny):
    media, _ = tiny
    with av.open(str(media / "demo-tr0000.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.width, video.height, video.frames) == ("h264", 320, 240, 100)
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", 44_100, 1)
        assert container.duration / 1e6 == pytest.approx(10, abs=0.06)


def test_it_is_louder_and_fuller_where_the_annotation_says_so(tiny):
    """Measured in the decoded files: the level of the sound, and how far the picture is from the bare background."""
    media, _ = tiny
    for scene in demo_scene.scenes(TINY, DEMO.classes)[:2]:
        pictures, sound = decode(media / f"{scene.id}.mp4")
        level = np.sqrt((sound[:441_000].reshape(10, -1) ** 2).mean(axis=1))
        bare = list(demo_media._background(np.random.default_rng((*scene.seed, 1)), 100))
        empty = np.clip(bare, 0, 255)
        change = np.abs(pictures - empty).mean(axis=3) > 40
        share = change.reshape(10, -1).mean(axis=1)
        for stretches, measured, floor in ((scene.sounds, level, 0.05), (scene.sights, share, 0.02)):
            active = np.zeros(10, bool)
            for stretch in stretches:
                active[stretch.start_s : stretch.end_s] = True
            np.testing.assert_array_equal(measured > floor, active)


def test_broken_files_are_broken_as_they_say(tiny):
    media, manifest = tiny
    path = {kind: media / f"{name}.mp4" for name, kind in manifest.facts["broken"].items()}
    assert not path["absent"].exists()
    assert path["zero-byte"].stat().st_size == 0
    with pytest.raises(av.FFmpegError):
        av.open(str(path["not-media"]))
    streams = {}
    for kind in ("no-audio", "no-video", "truncated"):
        with av.open(str(path[kind])) as container:
            streams[kind] = (len(container.streams.video), len(container.streams.audio))
    assert streams == {"no-audio": (1, 0), "no-video": (0, 1), "truncated": (1, 1)}
    with pytest.raises(av.FFmpegError):
        decode(path["truncated"])
    assert len(decode(path["too-short"])[0]) == 3


def test_a_second_run_makes_nothing_and_a_damaged_clip_is_made_again_with_the_same_bytes(tmp_path, monkeypatch):
    plan = DemoPlan(train=0, val=0, test=0, teacher=2, broken=0)
    first = demo.read(DEMO, tmp_path / "m", plan, workers=1)
    path = tmp_path / "m" / "demo-tc0001.mp4"
    before, made = path.read_bytes(), []
    write = demo_media.write
    monkeypatch.setattr(demo_media, "write", lambda scene, folder: (made.append(scene.id), write(scene, folder))[0])
    assert demo.read(DEMO, tmp_path / "m", plan, workers=1) == first
    assert made == []
    path.write_bytes(before[:-1])
    demo.read(DEMO, tmp_path / "m", plan, workers=1)
    assert made == ["demo-tc0001"]
    assert path.read_bytes() == before
    (tmp_path / "m" / demo.RECEIPT).unlink()  # as after a kill: whole clips are kept, half ones have another name
    (tmp_path / "m" / "demo-tc0000.mp4").rename(tmp_path / "m" / "demo-tc0000.mp4.partial")
    demo.read(DEMO, tmp_path / "m", plan, workers=1)
    assert made == ["demo-tc0001", "demo-tc0000"]
    assert not list((tmp_path / "m").glob("*.partial"))
    receipt = json.loads((tmp_path / "m" / demo.RECEIPT).read_text())
    assert set(receipt["files"]) == {"demo-tc0000.mp4", "demo-tc0001.mp4"}


def test_another_plan_replaces_the_clips_but_a_folder_of_someone_else_is_left_alone(tmp_path):
    one, other = (DemoPlan(train=0, val=0, test=0, teacher=1, broken=0, seed=seed) for seed in (0, 1))
    demo.read(DEMO, tmp_path / "m", one, workers=1)
    before = (tmp_path / "m" / "demo-tc0000.mp4").read_bytes()
    demo.read(DEMO, tmp_path / "m", other, workers=1)
    assert (tmp_path / "m" / "demo-tc0000.mp4").read_bytes() != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.mp4").write_bytes(b"precious")
    with pytest.raises(ManifestError, match="not a demo folder"):
        demo.read(DEMO, tmp_path / "mine", one, workers=1)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["holiday.mp4"]


def test_the_parsers_of_ave_and_llp_read_the_same_truth_from_the_written_annotations(tiny):
    media, manifest = tiny
    clips = [clip for clip in manifest.clips if clip.split != "teacher"]
    as_ave = ave.read(description.Description("ave", DEMO.classes), media / "annotations" / "ave")
    assert [clip.source_id for clip in as_ave.clips] == [clip.id for clip in clips]
    assert [clip.split for clip in as_ave.clips] == [clip.split for clip in clips]
    own = ave.segment_labels(manifest)[: len(clips)]
    np.testing.assert_array_equal(ave.segment_labels(as_ave), own)
    as_llp = llp.read(description.Description("llp", DEMO.classes), media / "annotations" / "llp")
    for split in ("val", "test"):
        theirs = [clip for clip in as_llp.clips if clip.split == split]
        ours = manifest.split(split)
        assert [clip.source_id for clip in theirs] == [clip.id for clip in ours]
        for mine, written in zip(
            llp.dense_grids(ours, DEMO.classes), llp.dense_grids(theirs, DEMO.classes), strict=True
        ):
            np.testing.assert_array_equal(mine, written)
    for clip in as_llp.clips:
        assert set(clip.labels) == set(next(own.labels for own in clips if own.id == clip.source_id))


def test_every_clip_has_one_audio_visual_event_and_all_kinds_of_events_occur_in_every_split(full):
    for split in ("train", "val", "test"):
        chosen = [scene for scene in full if scene.split == split]
        kinds = [event.modality for scene in chosen for event in scene.events]
        assert kinds.count("both") == len(chosen)
        assert min(kinds.count("audio"), kinds.count("visual")) >= len(chosen) // 4
        assert {scene.main.label for scene in chosen} == set(DEMO.classes)
        for scene in chosen:
            heard, seen = llp.dense_grids([scene], DEMO.classes)
            assert (heard * seen).sum() == scene.main.end_s - scene.main.start_s


def test_full_plan(full):
    splits = [scene.split for scene in full if not scene.broken]
    assert {name: splits.count(name) for name in set(splits)} == {"train": 42, "val": 12, "test": 12, "teacher": 96}
    assert len({scene.id for scene in full}) == len(full) == 169


def test_captions_name_what_is_seen_and_what_is_heard(full):
    prompts = description.read_prompts(description.MANIFESTS / "demo" / "prompts.tsv", DEMO.classes)
    teacher = [scene for scene in full if scene.split == "teacher"]
    for scene in teacher:
        said = demo.captions(scene, prompts)
        for text, stretches in ((said["visual"], scene.sights), (said["audio"], scene.sounds)):
            words = text.rstrip(".").split()
            assert {name for name in DEMO.classes if name in words} == {stretch.label for stretch in stretches}
    alone = {prompt.visual for prompt in prompts}
    assert alone <= {demo.captions(scene, prompts)["visual"] for scene in teacher}
    assert "A photo of nothing." in {demo.captions(scene, prompts)["visual"] for scene in teacher}


@pytest.mark.parametrize("text", ["", "1,2,3,4", "1,2,3,4,8", "1,2,3,4,-1", "a,b,c,d,e"])
def test_a_plan_that_is_none(text):
    with pytest.raises(ManifestError, match="five whole numbers"):
        DemoPlan.from_text(text)


def test_every_class_has_a_look_and_a_sound():
    assert set(demo_media.LOOKS) == set(demo_media.SOUNDS) == set(DEMO.classes)


@pytest.mark.slow
def test_a_killed_command_leaves_no_process_and_its_rerun_gives_the_bytes_of_an_uninterrupted_run(tmp_path):
    def command(media):
        options = [
            "--dataset",
            "demo",
            "--demo-clips",
            "12,0,0,0,0",
            "--media",
            str(media),
            "--out",
            str(tmp_path / "m"),
        ]
        return [sys.executable, "-m", "pipeline.prepare", *options]

    def bytes_of(media):
        return {path.name: path.read_bytes() for path in media.rglob("*") if path.is_file() and path.suffix != ".h5"}

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    started = subprocess.Popen(command(killed), stderr=subprocess.DEVNULL, stdout=subprocess.PIPE)
    while not list(killed.glob("demo-*.mp4")):
        assert started.poll() is None
        time.sleep(0.05)
    started.kill()
    started.stdout.read()  # ends when the last process that inherited it has ended
    assert 0 < len(list(killed.glob("demo-*.mp4"))) < 12
    assert not (killed / demo.RECEIPT).exists()
    for media in (killed, whole):
        subprocess.run(command(media), check=True, capture_output=True)
    assert bytes_of(killed) == bytes_of(whole)
