"""Folders: every media file is a clip with an id of its own, whatever it is called and whatever is in it."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import prepare
from pipeline.acquisition.folder import FolderSource
from pipeline.datasets import folder
from pipeline.manifest import ManifestError, check_id
from tests import media_factory as factory


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_files_of_any_nesting_length_and_kind(tmp_path):
    (tmp_path / "b" / "deep er").mkdir(parents=True)
    factory.numbered(tmp_path / "b" / "x.mp4", duration_s=1.0, fps=10)
    factory.no_audio(tmp_path / "b" / "deep er" / "x.MKV", duration_s=2.0, fps=10)
    factory.write_media(
        tmp_path / "--HuBNHXu9I.wav", samples=factory.tone(0.5, 8000), rate_hz=8000, audio_codec="pcm_s16le"
    )
    manifest = folder.read(tmp_path)
    assert [(clip.id, clip.media) for clip in manifest.clips] == [
        ("--HuBNHXu9I", "--HuBNHXu9I.wav"),
        ("b-deep-er-x", "b/deep er/x.MKV"),
        ("b-x", "b/x.mp4"),
    ]
    assert [clip.duration_s for clip in manifest.clips] == [pytest.approx(value, abs=0.06) for value in (0.5, 2.0, 1.0)]
    assert manifest.problems() == []
    assert manifest.splits() == {"": 3}


def test_what_cannot_be_opened_is_a_clip_of_unknown_duration(tmp_path):
    factory.zero_byte(tmp_path / "zero.mp4")
    factory.not_media(tmp_path / "text.mp4")
    factory.truncated(tmp_path / "cut.mp4", duration_s=1.0)
    factory.not_media(tmp_path / "notes.txt")
    manifest = folder.read(tmp_path)
    assert [(clip.id, clip.duration_s) for clip in manifest.clips] == [("cut", None), ("text", None), ("zero", None)]
    assert manifest.facts["without_duration"] == 3
    assert manifest.facts["other_files"] == 1
    assert manifest.problems() == []


def test_equal_names_in_different_folders_and_names_that_collide(tmp_path):
    names = [
        "a/x.mp4",
        "b/x.mp4",
        "a-x.mp4",
        "c/X.mp4",
        "C/x.mp4",
        "x.mp4",
        "x.wav",
        "é.mp4",
        "è.mp4",
        "..x.mp4",
        "a..b.mp4",
    ]
    touch(tmp_path, *names)
    manifest = folder.read(tmp_path)
    found = {clip.media: clip.id for clip in manifest.clips}
    assert set(found) == set(names) - {"..x.mp4"}  # hidden
    assert found["b/x.mp4"] == "b-x"
    assert found["a/x.mp4"] != found["a-x.mp4"]
    assert len({name.lower() for name in found.values()}) == len(found)
    assert manifest.problems() == []


def test_links_are_followed_inside_the_folder_only(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    touch(outside, "secret.mp4", "more/y.mp4")
    touch(inside, "a.mp4")
    os.symlink(outside / "secret.mp4", inside / "out.mp4")
    os.symlink(outside, inside / "outfolder")
    os.symlink(inside / "a.mp4", inside / "alias.mp4")
    os.symlink(inside / "gone.mp4", inside / "dangling.mp4")
    os.symlink(inside, inside / "loop")
    manifest = folder.read(inside)
    assert [clip.media for clip in manifest.clips] == ["a.mp4", "alias.mp4"]
    assert manifest.facts["links_outside"] == 2


def test_names_that_are_no_text_or_would_leave_the_folder_are_counted(tmp_path):
    touch(tmp_path, "good.mp4", "back\\slash.mp4")
    with open(os.fsencode(tmp_path) + b"/bad\xff.mp4", "wb"):
        pass
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    manifest = folder.read(tmp_path)
    assert [clip.media for clip in manifest.clips] == ["good.mp4"]
    assert manifest.facts["unusable_names"] == 2


def test_nothing_to_read_is_an_error(tmp_path):
    touch(tmp_path, "a.txt")
    with pytest.raises(ManifestError, match=r"no media file.*\.mp4"):
        folder.read(tmp_path)
    with pytest.raises(ManifestError, match="no such folder"):
        folder.read(tmp_path / "absent")


@given(st.lists(st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1), unique=True))
def test_ids_are_safe_unique_and_independent_of_order(stems):
    paths = [f"{stem}.mp4" for stem in stems]
    ids = folder.clip_ids(paths)
    assert len({name.lower() for name in ids}) == len(paths)
    assert [check_id(name) for name in ids] == ids
    assert dict(zip(paths, ids, strict=True)) == dict(zip(paths[::-1], folder.clip_ids(paths[::-1]), strict=True))


def test_long_names_get_ids_that_fit_a_file_name():
    ids = folder.clip_ids(["x" * 240 + "1.mp4", "x" * 240 + "2.mp4"])
    assert len(set(ids)) == 2
    assert max(map(len, ids)) < 140


def test_new_files_come_behind_those_of_an_earlier_manifest(tmp_path):
    touch(tmp_path, "m/x.mp4", "n.mp4")
    first = folder.read(tmp_path)
    assert folder.read(tmp_path, first) == first
    (tmp_path / "n.mp4").unlink()
    touch(tmp_path, "z.mp4", "a.mp4", "m-x.mp4")
    second = folder.read(tmp_path, first)
    assert second.clips[:2] == first.clips
    # An id that is taken stays with the clip that has it.
    assert [clip.media for clip in second.clips[2:]] == ["a.mp4", "m-x.mp4", "z.mp4"]
    assert [clip.id for clip in second.clips[::2]] == ["m-x", "a", "z"]
    assert second.clips[3].id.startswith("m-x-")
    assert second.problems() == []
    assert (second.facts["added_files"], second.facts["gone_files"]) == (3, 1)


def test_an_earlier_manifest_of_another_folder_is_refused(tmp_path):
    touch(tmp_path, "one/a.mp4", "two/b.mp4")
    with pytest.raises(ManifestError, match="another --out"):
        folder.read(tmp_path / "two", folder.read(tmp_path / "one"))


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch, capsys, code):
    media = tmp_path / "media"
    media.mkdir()

    def unreadable(path):
        raise OSError(code, os.strerror(code), str(path) if code == errno.EACCES else None)

    monkeypatch.setattr(os, "listdir", unreadable)
    assert prepare.main(["--dataset", "folder", "--media", str(media), "--out", str(tmp_path / "M")]) == 1
    assert f"{media}: {os.strerror(code)}" in capsys.readouterr().err
    with pytest.raises(OSError, match=str(media)):
        FolderSource(media)
