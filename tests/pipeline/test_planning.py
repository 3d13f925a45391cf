"""What decides whether a job runs again."""

import dataclasses
import os
import shutil
import subprocess
import sys

import pytest

from extractors.base import ENCODERS
from pipeline import planning, prepare
from pipeline.planning import ROOT, clip_count, code_digest, encoder_table, files_digest, job_digest
from tests.pipeline import store_factory as factory


def test_the_table_read_from_source_is_the_table():
    assert encoder_table() == ENCODERS


def test_digests_need_no_torch():
    program = (
        "import sys; from pipeline import configuration, planning, recipes; from pipeline.finetuning import recipe; "
        "planning.code_digest(['vgg19']); recipes.digest(recipes.config_file('avel', 'ave'), 'weak'); "
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_encoders_differ_and_unknown_ones_are_named():
    assert code_digest(["vgg19"]) != code_digest(["vggish"])
    assert code_digest(["vggish:ave2018"]) == code_digest(["vggish"])
    with pytest.raises(ValueError, match="vgish"):
        code_digest(["vgish"])


def test_a_job_changes_with_its_own_clips_only(tmp_path):
    path = tmp_path / "manifest.parquet"
    made = factory.manifest(10)
    assert job_digest("ave", {}, path, 0, 4) == ""

    def digests(clips):
        dataclasses.replace(made, clips=tuple(clips)).save(path)
        return [job_digest("ave", {}, path, job, 4) for job in range(3)]

    clips = made.clips
    before = digests(clips)
    assert len(set(before)) == 3
    added = digests((*clips, dataclasses.replace(clips[0], id="new")))
    assert [a == b for a, b in zip(before, added, strict=True)] == [True, True, False]
    assert digests([dataclasses.replace(clip, labels=("Cat",)) for clip in clips]) == before
    longer = digests((clips[0], dataclasses.replace(clips[1], duration_s=9.0), *clips[2:]))
    assert [a == b for a, b in zip(before, longer, strict=True)] == [False, True, True]


def test_files_added_to_a_folder_count_before_its_manifest_is_written_anew(tmp_path):
    media, path = tmp_path / "media", tmp_path / "manifest.parquet"
    media.mkdir()
    settings = {"media": str(media)}

    def add(*names):
        for name in names:
            (media / f"{name}.wav").write_bytes(b"")

    def plans(look=True):
        planning._listed.cache_clear()  # a Snakemake process looks once
        count = clip_count("folder", settings, path, look)
        jobs = [job_digest("folder", settings, path, job, 2, look) for job in range(-(-count // 2))]
        return count, files_digest("folder", settings, path), jobs

    def write():
        assert prepare.main(["--dataset", "folder", "--media", str(media), "--out", str(path)]) == 0
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))  # the clock of some file systems is coarse

    add("m", "n", "o")
    before, files = plans()[:2]
    write()
    first = plans()
    assert (before, files) == first[:2] == (3, files)
    add("z", "a")
    foreseen = plans()
    assert foreseen[0] == 5
    assert foreseen[1] != files
    assert foreseen[2][0] == first[2][0]
    assert foreseen[2][1] != first[2][1]
    assert plans(look=False)[::2] == first[::2]  # a job that runs already does what it was started for
    write()
    assert plans() == foreseen
    assert plans(look=False) == foreseen


def test_what_changes_features_is_seen_and_nothing_else(tmp_path, monkeypatch):
    for folder in ("extractors", "pipeline"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(planning, "ROOT", tmp_path)

    def digests() -> list[str]:
        for cached in (planning._code_digest, planning._meaning, planning.encoder_table):
            cached.cache_clear()
        return [code_digest([name]) for name in ("vggish", "vgg19")]

    def append(file: str, text: str) -> None:
        with open(tmp_path / file, "a", encoding="utf-8") as source:
            source.write(text)

    try:
        before = digests()
        append("extractors/vggish.py", "\n# A remark.\n")
        assert digests() == before
        append("extractors/vggish.py", "\nANOTHER = 1\n")
        assert [a == b for a, b in zip(before, digests(), strict=True)] == [False, True]
        for file in ("preparation", "media", "mediafile", "frames", "framedump", "sound", "waveform"):
            before = digests()
            append(f"pipeline/{file}.py", "\nANOTHER = 1\n")
            assert not set(digests()) & set(before), f"{file} decodes, and its change went unseen"
        before = digests()
        append("pipeline/manifest.py", "\nANOTHER = 1\n")
        assert digests() == before
    finally:
        monkeypatch.undo()
        digests()
