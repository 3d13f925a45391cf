"""AVE: the published files give the published counts, splits and label arrays, bit for bit."""

import hashlib

import h5py
import numpy as np
import pytest

from pipeline.datasets import ave, description
from pipeline.manifest import Clip, Event, Manifest, ManifestError
from tests.pipeline.datasets import real


@pytest.fixture(scope="module")
def manifest():
    return ave.read(description.load("ave"), real.folder("ave"))


def test_counts_and_splits(manifest):
    assert len(manifest) == 4143
    assert {name: len(manifest.split(name)) for name in ("train", "val", "test")} == {
        "train": 3339,
        "val": 402,
        "test": 402,
    }
    assert len({clip.source_id for clip in manifest.clips}) == 4097
    assert manifest.facts["rows_of_repeated_videos"] == 46
    assert manifest.facts["zero_length_events"] == ["0026_VWi2ENBuTbw"]
    assert manifest.problems() == []


def test_row_is_line_of_the_file(manifest):
    lines = (real.folder("ave") / "Annotations.txt").read_text().splitlines()
    assert manifest.clips[1] == Clip(
        "0001_MH3m4AwEcRY", "MH3m4AwEcRY", None, 10.0, "train", ("Church bell",), (Event("Church bell", "both", 6, 8),)
    )
    for row, (line, clip) in enumerate(zip(lines, manifest.clips, strict=True)):
        assert clip.id == f"{row:04d}_{line.split('&')[1]}"


def test_splits_are_those_of_the_order_files(manifest):
    for split in ("train", "val", "test", "train_match", "val_match", "test_match"):
        name = f"{split[:-6]}_order_match" if split.endswith("_match") else f"{split}_order"
        with h5py.File(real.folder("ave") / f"{name}.h5") as file:
            order = file["order"][:]
        assert manifest.facts["orders"][split] == order.tolist()
        if not split.endswith("_match"):
            assert {manifest.clips[row].split for row in order} == {split}


def test_segment_labels_are_the_published_array(manifest):
    labels = ave.segment_labels(manifest)
    assert (labels.shape, labels.dtype, labels.sum(), labels[..., 28].sum()) == (
        (4143, 10, 29),
        np.float32,
        41430,
        7078,
    )
    digest = hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest()
    assert digest == "dde9fedf15bd95c5fd5e9b73a622b851078018dcefce483723c42ae65ee1c160"
    with h5py.File(real.folder("ave") / "labels.h5") as file:
        np.testing.assert_array_equal(labels, file["avadataset"][:])
    background = {
        split: int(labels[manifest.facts["orders"][split], :, 28].sum()) for split in ("train", "val", "test")
    }
    assert background == {"train": 5631, "val": 732, "test": 715}


def test_clip_labels_are_the_published_array(manifest):
    with h5py.File(real.folder("ave") / "mil_labels.h5") as file:
        np.testing.assert_array_equal(ave.mil_labels(manifest), file["avadataset"][:])


def test_the_version_shipped_with_the_videos_is_the_same_dataset(manifest):
    shipped = ave.read(description.load("ave"), real.folder("ave/official_zip"))
    assert shipped.digest == manifest.digest
    assert shipped.facts["orders"]["train"] == manifest.facts["orders"]["train"]
    assert "header" in shipped.facts["annotations"]["Annotations.txt"]["version"]


def test_a_changed_file_is_refused_with_both_digests_unless_accepted(tmp_path, manifest):
    copy = real.spoiled(
        "ave", tmp_path / "ave", "Annotations.txt", lambda lines: [lines[0].replace(b"&0&10", b"&0&9"), *lines[1:]]
    )
    with pytest.raises(ManifestError) as caught:
        ave.read(description.load("ave"), copy)
    assert len(caught.value.problems) == 1
    actual = hashlib.sha256((copy / "Annotations.txt").read_bytes()).hexdigest()
    for fragment in (actual, "0d24a9ec5cd4ceb779ebd83d74e83ec8e55c5e468cede3f320fb57346c9dd321", "--accept-checksums"):
        assert fragment in caught.value.problems[0]
    accepted = ave.read(description.load("ave"), copy, accept_checksums=True)
    assert accepted.clips[0].events[0].end_s == 9
    assert accepted.facts["annotations"]["Annotations.txt"] == {"sha256": actual, "version": "unknown"}
    assert accepted.clips[1:] == manifest.clips[1:]


def test_all_problems_are_listed_with_file_and_line(tmp_path):
    def spoil(lines):
        lines[1] = b"Church bells&MH3m4AwEcRY&good&6&8"
        lines[2] = b"Church bell&2An2JMGMbbs&good&0"
        lines[3] = lines[0]
        lines[4] = b"Church bell&../passwd&good&0&10"
        lines[5] = b"Church bell&\xff\xfe&good&0&10"
        lines[6] = b"Church bell&AAAAAAAAAAA&good&7&11"
        return lines

    copy = real.spoiled("ave", tmp_path / "ave", "Annotations.txt", spoil)
    with pytest.raises(ManifestError) as caught:
        ave.read(description.load("ave"), copy)
    for line, fragment in (
        (2, "'Church bells' is not in the vocabulary"),
        (3, "expected 5 fields"),
        (4, "duplicate"),
        (5, "'../passwd' is no video id"),
        (6, "not UTF-8"),
        (7, "no interval"),
    ):
        assert any(f"Annotations.txt:{line}: " in text and fragment in text for text in caught.value.problems), line


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ManifestError) as caught:
        ave.read(description.load("ave"), tmp_path)
    text = "\n".join(caught.value.problems)
    for name in ("Annotations.txt", "train_order.h5", "val_order.h5", "test_order.h5"):
        assert f"{name}: no such file" in text


def toy(folder, **lists):
    """Three rows, and the split lists given."""
    rows = ["a&AAAAAAAAAAA&good&0&1", "b&BBBBBBBBBBB&good&0&1", "a&CCCCCCCCCCC&good&0&1"]
    (folder / "Annotations.txt").write_text("\n".join(rows))
    for split, chosen in lists.items():
        (folder / f"{split}Set.txt").write_text("\n".join(rows[row] for row in chosen))
    return ave.read(description.Description("ave", ("a", "b")), folder)


def test_missing_split_lists_are_named_and_so_are_rows_of_no_list(tmp_path):
    with pytest.raises(ManifestError) as caught:
        toy(tmp_path, train=[0, 1])
    assert [text.split(";")[0] for text in caught.value.problems] == [
        f"{tmp_path / name}: no such file" for name in ("valSet.txt", "testSet.txt")
    ]
    with pytest.raises(ManifestError, match="1 rows are in no split, the first is row 2"):
        toy(tmp_path, train=[0, 1], val=[], test=[])
    assert [clip.split for clip in toy(tmp_path, train=[0, 1], val=[2], test=[]).clips] == ["train", "train", "val"]


def test_orders_that_overlap_miss_rows_or_point_nowhere_are_problems(tmp_path):
    (tmp_path / "Annotations.txt").write_text(
        "a&AAAAAAAAAAA&good&0&1\nb&BBBBBBBBBBB&good&0&1\na&CCCCCCCCCCC&good&0&1\n"
    )
    for split, rows in (("train", [0, 7]), ("val", [0])):
        with h5py.File(tmp_path / f"{split}_order.h5", "w") as file:
            file["order"] = np.array(rows)
    (tmp_path / "test_order.h5").write_bytes(b"no HDF5")
    with pytest.raises(ManifestError) as caught:
        ave.read(description.Description("ave", ("a", "b")), tmp_path)
    text = "\n".join(caught.value.problems)
    for fragment in (
        "entry 1: row 7 is not one of the 3",
        "val_order.h5: entry 0: row 0 is already in train",
        "expected HDF5",
    ):
        assert fragment in text


def test_labels_of_other_datasets_in_the_manner_of_ave():
    clips = (
        Clip("a", "a", events=(Event("x", "both", 2, 4), Event("y", "audio", 0, 10))),
        Clip("b", "b", labels=("y",)),
    )
    manifest = Manifest("toy", clips, ("x", "y"))
    expected = np.zeros((2, 5, 3))
    expected[0, [0, 1, 4], 2] = expected[0, 2:4, 0] = expected[1, :, 2] = 1
    np.testing.assert_array_equal(ave.segment_labels(manifest, segments=5), expected)
    np.testing.assert_array_equal(ave.mil_labels(manifest), [[1, 0, 0], [0, 0, 1]])


def test_overlapping_audio_visual_events_cannot_be_one_hot():
    clip = Clip("a", "a", events=(Event("x", "both", 2, 4), Event("y", "both", 3, 5)))
    with pytest.raises(ValueError, match="clip a: two classes"):
        ave.segment_labels(Manifest("toy", (clip,), ("x", "y")))
