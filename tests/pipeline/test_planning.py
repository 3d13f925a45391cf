"""What decides whether a job runs again."""

import dataclasses
import subprocess
import sys

import pytest

from extractors.base import ENCODERS
from pipeline.planning import ROOT, code_digest, encoder_table, job_digest
from tests.pipeline import store_factory as factory


def test_the_table_read_from_source_is_the_table():
    assert encoder_table() == ENCODERS


def test_digests_need_no_torch():
    program = (
        "import sys; from pipeline.planning import code_digest; code_digest(['vgg19']); print('torch' in sys.modules)"
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
    assert job_digest(path, 0, 4) == ""

    def digests(clips):
        dataclasses.replace(made, clips=tuple(clips)).save(path)
        return [job_digest(path, job, 4) for job in range(3)]

    clips = made.clips
    before = digests(clips)
    assert len(set(before)) == 3
    added = digests((*clips, dataclasses.replace(clips[0], id="new")))
    assert [a == b for a, b in zip(before, added, strict=True)] == [True, True, False]
    assert digests([dataclasses.replace(clip, labels=("Cat",)) for clip in clips]) == before
    longer = digests((clips[0], dataclasses.replace(clips[1], duration_s=9.0), *clips[2:]))
    assert [a == b for a, b in zip(before, longer, strict=True)] == [False, True, True]
