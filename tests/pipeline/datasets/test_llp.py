"""LLP: counts, grids and quirks of the published files, both versions of the audio events among them."""

import shutil

import numpy as np
import pytest

from pipeline.datasets import description, llp
from pipeline.manifest import Clip, Event, ManifestError
from tests.pipeline.datasets import real


@pytest.fixture(scope="module")
def manifest():
    return llp.read(description.load("llp"), real.folder("llp"))


def cells(manifest, split):
    audio, visual = llp.dense_grids(manifest.split(split), manifest.classes)
    assert audio.shape == (len(manifest.split(split)), 25, 10)
    return [int(grid.sum()) for grid in (audio, visual, audio * visual, np.maximum(audio, visual))]


def test_counts_and_splits(manifest):
    assert manifest.splits() == {"train": 10_000, "val": 649, "test": 1_200}
    assert manifest.problems() == []
    assert sum(clip.source_id.startswith("-") for clip in manifest.clips) == 151
    assert int(llp.weak_labels(manifest.split("train"), manifest.classes).sum()) == 16_057
    assert not any(clip.events for clip in manifest.split("train"))


def test_rows_are_those_of_the_full_list(manifest):
    lines = (real.folder("llp") / "AVVP_dataset_full.csv").read_text().splitlines()[1:]
    assert [line.split("\t")[0] for line in lines] == list(manifest.ids)
    for line, clip in zip(lines, manifest.clips, strict=True):
        assert set(line.split("\t")[1].split(",")) == set(clip.labels)


def test_names_are_split_by_position(manifest):
    assert manifest.clips[0] == Clip("BjCEufrlXm4_20_30", "BjCEufrlXm4", 20.0, 10.0, "train", ("Speech", "Dog"))
    assert llp.split_filename("AP0061o0Nvk_101.8_111.8") == ("AP0061o0Nvk", 101.8, 111.8)
    assert llp.split_filename("_a_b_c_d_e__0_10") == ("_a_b_c_d_e_", 0.0, 10.0)
    for name in (
        "VMTJRpjbE_150_160",
        "19jWnmYnlD8_30_400",
        "BjCEufrlXm4_20",
        "BjCEufrlXm4-20_30",
        "",
        "../../../et_0_10",
    ):
        with pytest.raises(ValueError, match="ten seconds"):
            llp.split_filename(name)


def test_ground_truth_cells_of_the_corrected_version(manifest):
    assert cells(manifest, "val") == [8_089, 6_115, 5_078, 9_126]
    assert cells(manifest, "test") == [14_576, 11_789, 9_592, 16_773]


def test_ground_truth_cells_of_the_version_of_2020(tmp_path, manifest):
    for path in real.folder("llp").glob("*.csv"):
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / "AVVP_eval_audio.csv").unlink()
    shutil.copy(real.folder("llp") / "older" / "AVVP_eval_audio.csv", tmp_path)
    older = llp.read(description.load("llp"), tmp_path)
    assert cells(older, "val") == [8_089, 6_115, 5_078, 9_126]
    assert cells(older, "test") == [14_568, 11_789, 9_591, 16_766]
    used, usual = (entry.facts["annotations"]["AVVP_eval_audio.csv"] for entry in (older, manifest))
    assert used["sha256"].startswith("249122f6")
    assert usual["sha256"].startswith("d5435664")
    assert "2020" in used["version"]
    assert older.facts["audio_events"]["ignored_rows"] == 17


def test_quirks_are_counted_and_not_repaired(manifest):
    audio, visual = manifest.facts["audio_events"], manifest.facts["visual_events"]
    assert (audio["rows"], audio["ignored_rows"], audio["exact_duplicates"]) == (4_131, 14, 8)
    assert (visual["rows"], visual["ignored_rows"], visual["exact_duplicates"]) == (2_495, 11, 0)
    assert set(audio["ignored_filenames"]) - set(visual["ignored_filenames"]) == {"17iGUal2M_10_20"}
    assert {"VMTJRpjbE_150_160", "19jWnmYnlD8_30_400", "12eWNawPekw_30_40"} <= set(visual["ignored_filenames"])
    assert len(audio["inverted_intervals_dropped"]) == 1
    assert manifest.facts["repeated_labels"] == ["LcFWKgFphXI_20_30"]
    silent = [
        clip for clip in manifest.clips if clip.split != "train" and not any(e.modality == "audio" for e in clip.events)
    ]
    assert len(silent) == 9


def test_class_order_is_that_of_every_public_loader(manifest):
    assert manifest.classes[:3] + manifest.classes[23:] == ("Speech", "Car", "Cheering", "Blender", "Clapping")
    assert manifest.classes[5] == "Frying_(food)"


def test_prompts_are_valors_with_their_typing_errors():
    prompts = description.read_prompts(description.MANIFESTS / "llp" / "prompts.tsv", description.load("llp").classes)
    visual = "20,15,18,14,15,18,18,15,15,15,15,18,15,15,15,15,15,15,15,16,14,15,15,15,18"
    audio = "0,0,1,4,6,-2,4,4,2,2,2,1,2,3,0,2,2,2,0,2,-1,2,3,3,0"
    assert [prompt.visual_threshold for prompt in prompts] == [float(text) for text in visual.split(",")]
    assert [prompt.audio_threshold for prompt in prompts] == [float(text) for text in audio.split(",")]
    assert prompts[14].visual == "A photo of a vaccum cleaner."
    assert prompts[20].visual == "A photo of a acoustic guiter."
    assert prompts[5].audio == "This is a sound of frying (food)"
    assert {prompt.source for prompt in prompts} == {"valor2023"}


def test_all_problems_are_listed_with_file_and_line(tmp_path):
    def spoil(lines):
        lines[1] = b"BjCEufrlXm4_20_30\tSpeech,Dogs"
        lines[2] = b"7nSYwyaP4QE_50_60"
        lines[3] = b"../../etc/x_0_10\tSpeech"
        lines[5] = lines[4]
        lines[6] = b"\x80\x81\tSpeech"
        return lines

    copy = real.spoiled("llp", tmp_path / "llp", "AVVP_train.csv", spoil)
    events = copy / "AVVP_eval_visual.csv"
    events.chmod(0o644)
    lines = events.read_text().splitlines()
    events.write_text("\n".join([lines[0], lines[1].replace("\t0\t", "\tzero\t"), lines[2] + "s", *lines[3:]]))
    with pytest.raises(ManifestError) as caught:
        llp.read(description.load("llp"), copy)
    for file, line, fragment in (
        ("AVVP_train.csv", 2, "'Dogs' is not in the vocabulary"),
        ("AVVP_train.csv", 3, "expected 2 fields"),
        ("AVVP_train.csv", 4, "ten seconds"),
        ("AVVP_train.csv", 6, "listed twice"),
        ("AVVP_train.csv", 7, "not UTF-8"),
        ("AVVP_eval_visual.csv", 2, "no whole seconds"),
        ("AVVP_eval_visual.csv", 3, "not in the vocabulary"),
    ):
        assert any(f"{file}:{line}: " in text and fragment in text for text in caught.value.problems), (file, line)
    assert sum("SHA-256" in text for text in caught.value.problems) == 2


def test_a_wrong_header_is_a_problem(tmp_path):
    copy = real.spoiled("llp", tmp_path / "llp", "AVVP_test_pd.csv", lambda lines: lines[1:])
    with pytest.raises(ManifestError, match=r"AVVP_test_pd\.csv:1: header is"):
        llp.read(description.load("llp"), copy, accept_checksums=True)


def test_grids_paint_half_open_seconds_per_modality():
    events = (
        Event("a", "audio", 0, 2),
        Event("a", "audio", 1, 3),
        Event("b", "both", 4, 5),
        Event("b", "visual", 2, 2),
        Event("a", "visual", 8, 10),
    )
    audio, visual = llp.dense_grids([Clip("c", "c", events=events)], ["a", "b"])
    assert [np.flatnonzero(row).tolist() for row in (*audio[0], *visual[0])] == [[0, 1, 2], [4], [8, 9], [4]]
