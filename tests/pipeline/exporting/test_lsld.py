"""LSLD's two label files against its published steps, written out as loops."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.exporting import lsld
from pipeline.labels import Labelling, LabelStore, Scoring, create
from pipeline.manifest import Clip, Manifest
from tests.pipeline import store_factory as factory

ROOT = Path(__file__).resolve().parents[3]
CLASSES = ("Speech", "Car", "Dog")
MANIFEST = Manifest(
    "llp", tuple(Clip(f"video-{row:05d}_0_10", f"video-{row:05d}", 0.0, 10.0, "train") for row in range(6)), CLASSES
)
NAMES = {clip.id: clip.id[:11] for clip in MANIFEST.clips}
TEACHERS = {
    "visual": factory.spec("clip-b16", (8,), recipe="lsld2023", modality="visual"),
    "audio": factory.spec("clap", (8,), recipe="lsld2023"),
}


def step_two(labels, cosines, event_ratio=4.0, noise_ratio=0.4):
    """Class by class, segment by segment, as `getVisualCleanLabel` goes."""
    found = labels.astype(np.float32)
    clips, segments, classes = labels.shape
    everywhere = [(n, t) for n in range(clips) for t in range(segments)]
    for c in range(classes):
        events = [place for place in everywhere if labels[place][c]]
        others = [place for place in everywhere if not labels[place][c]]
        if not events or not max(cosines[p][c] for p in others) > min(cosines[p][c] for p in events):
            continue
        best_other, worst_event = max(cosines[p][c] for p in others), min(cosines[p][c] for p in events)
        for place in events:
            if cosines[place][c] < best_other and 0 < cosines[place][c] * event_ratio < 1:
                found[place][c] = cosines[place][c] * event_ratio
        for place in others:
            if cosines[place][c] > worst_event and 0 < cosines[place][c] * noise_ratio < 1:
                found[place][c] = cosines[place][c] * noise_ratio
    return found


def test_labels_that_clip_doubts_become_numbers_between_zero_and_one():
    rng = np.random.default_rng(3)
    labels = (rng.random((5, 10, 3)) < 0.4).astype(np.uint8)
    labels[..., 2] = 0  # a class that no segment has
    cosines = rng.normal(0.1, 0.15, labels.shape).astype(np.float32)
    found = lsld.soften(labels, cosines)
    np.testing.assert_allclose(found, step_two(labels, cosines), rtol=1e-6)
    assert ((found > 0) & (found < 1)).any(axis=(0, 1)).tolist() == [True, True, False]
    np.testing.assert_array_equal(lsld.soften(labels, labels * 1.0), labels)  # classes that CLIP tells apart
    np.testing.assert_array_equal(lsld.soften(labels, np.full(labels.shape, np.nan)), labels)


def label_store(path, rule="lsld2023", with_names=True):
    """Labels of both modalities; clip 4 has no sound."""
    rng, made = np.random.default_rng(1), {}
    for modality, teacher in TEACHERS.items():
        captions = tuple(f"the sound of a {name}" for name in CLASSES)
        scoring = Scoring(modality, teacher, CLASSES, captions, 1.0)
        labelling = Labelling(scoring.spec.key, rule, (), "video-label")
        specs = {"labels": labelling.spec(scoring)}
        scorings = [(scoring, np.zeros((3, 8)))]
        if modality == "visual" and with_names:
            bare = dataclasses.replace(scoring, captions=CLASSES)
            scorings.append((bare, np.zeros((3, 8))))
            specs["cosines"] = bare.spec
        store = create(path, MANIFEST, scorings, [(labelling, scoring)])
        for kind, spec in specs.items():
            writer = store.writer(spec.key, 0)
            for row in range(len(MANIFEST)):
                values = rng.normal(0.1, 0.2, (10, 3)).astype(np.float32)
                values = (values > 0).astype(np.uint8) if kind == "labels" else values
                made[modality, kind, row] = values
                if (modality, row) == ("audio", 4):
                    writer.fail(row, "no-audio", "silent film")
                else:
                    writer.put(row, values, spec.grid.segments(10.0))
            writer.commit()
    return LabelStore.open(path), made


def read(path):
    """As LSLD's loader does; the file is our own."""
    archive = np.load(path, allow_pickle=True)
    assert sorted(archive.files) == ["label_a", "label_v"]
    found = {key: archive[key].item() for key in archive.files}
    for entry in found.values():
        assert list(entry) == list(NAMES.values())
        for tensor in entry.values():
            assert isinstance(tensor, torch.Tensor)
            assert (tensor.device.type, tensor.dtype, tensor.shape) == ("cpu", torch.float32, (10, 3))
            assert tensor.untyped_storage().nbytes() == 10 * 3 * 4
    return {key: np.stack([tensor.numpy() for tensor in entry.values()]) for key, entry in found.items()}


def test_both_archives_hold_what_lsld_computes(tmp_path):
    labels, made = label_store(tmp_path / "L")
    notes = lsld.write_archives(tmp_path / "refine_label", labels, NAMES)
    assert len(notes) == 1
    assert "allow_pickle" in notes[0]
    wanted = {kind: np.stack([made["visual", kind, row] for row in range(6)]) for kind in ("labels", "cosines")}
    sound = np.stack([made["audio", "labels", row] for row in range(6)])
    sound[4] = 0
    first, second = (read(tmp_path / "refine_label" / name) for name in (lsld.DENOISED, lsld.FINAL))
    np.testing.assert_array_equal(first["label_v"], wanted["labels"])
    np.testing.assert_array_equal(first["label_a"], sound)
    np.testing.assert_array_equal(second["label_a"], sound)
    np.testing.assert_allclose(second["label_v"], step_two(wanted["labels"], wanted["cosines"]), rtol=1e-6)
    assert not np.array_equal(second["label_v"], first["label_v"])


def test_the_bytes_are_the_same_in_every_process(tmp_path):
    code = (
        "import sys, numpy as np, pathlib; from pipeline.exporting import lsld; "
        "held = np.empty(int(sys.argv[2]));"  # other addresses in memory
        "rows = np.random.default_rng(0).random((2, 10, 3), dtype=np.float32); "
        "lsld._write(pathlib.Path(sys.argv[1]), {'a': 'a', 'b': 'b'}, rows, rows)"
    )
    for name, held in (("one", "1"), ("two", "1000000")):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name), held], cwd=ROOT, check=True)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("options", "written", "note"),
    [
        ({"with_names": False}, lsld.DENOISED, "final_label.npz is left out: the label store lacks the cosines"),
        ({"rule": "valor2023"}, lsld.FINAL, "holds labels by valor2023, not by LSLD's two steps"),
    ],
)
def test_an_archive_that_cannot_be_made_is_left_out_and_said(tmp_path, options, written, note):
    labels, made = label_store(tmp_path / "L", **options)
    notes = lsld.write_archives(tmp_path / "refine_label", labels, NAMES)
    assert [path.name for path in (tmp_path / "refine_label").iterdir()] == [written]
    assert note in notes[1]
    found = read(tmp_path / "refine_label" / written)
    np.testing.assert_array_equal(found["label_v"][2], made["visual", "labels", 2])
