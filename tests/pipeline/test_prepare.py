"""The command: exit codes, what goes to which stream, all problems at once, nothing written when something is wrong."""

import pytest

from pipeline import prepare
from pipeline.manifest import Manifest
from tests import media_factory as factory
from tests.pipeline.datasets import real


def run(capsys, *arguments):
    code = prepare.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "fragments"),
    [
        ("ave", ("4,143 of 4,097", "train 3,339, val 402, test 402", "46 rows repeat", "0026_VWi2ENBuTbw")),
        (
            "llp",
            ("11,849", "train 10,000, val 649, test 1,200", "14 of no val or test clip ignored", "1 inverted dropped"),
        ),
        ("unav100", ("10,790", "30,059", "126.32 h", "no download_video.csv")),
    ],
)
def test_published_datasets(tmp_path, capsys, name, fragments):
    out = tmp_path / "new" / "m.parquet"
    code, printed, logged = run(capsys, "--dataset", name, "--annotations", real.folder(name), "--out", out)
    assert (code, logged) == (0, "")
    for fragment in fragments:
        assert fragment in printed
    assert "while the published dataset has" not in printed  # the counts of dataset.yaml agree
    manifest = Manifest.load(out)
    assert manifest.digest in printed
    assert manifest.facts["licence"]["media"]


def test_splits_can_be_chosen(tmp_path, capsys):
    out = tmp_path / "m.parquet"
    arguments = ("--dataset", "llp", "--annotations", real.folder("llp"), "--out", out)
    assert run(capsys, *arguments, "--splits", "val,test")[0] == 0
    assert Manifest.load(out).splits() == {"val": 649, "test": 1200}
    code, _, logged = run(capsys, *arguments, "--splits", "val,validation")
    assert code == 1
    assert "'validation'" in logged


def test_every_problem_is_printed_with_its_place_and_nothing_is_written(tmp_path, capsys):
    copy = real.spoiled("ave", tmp_path / "ave", "Annotations.txt", lambda lines: [b"x" + line for line in lines[:40]])
    code, printed, logged = run(capsys, "--dataset", "ave", "--annotations", copy, "--out", tmp_path / "m.parquet")
    assert (code, printed) == (1, "")
    for line in range(1, 41):
        assert f"Annotations.txt:{line}: " in logged
    assert "SHA-256" in logged
    assert not (tmp_path / "m.parquet").exists()


def test_counts_other_than_the_published_ones_are_noted(tmp_path, capsys):
    copy = real.spoiled("llp", tmp_path / "llp", "AVVP_train.csv", lambda lines: lines[:2])
    code, printed, _ = run(
        capsys, "--dataset", "llp", "--annotations", copy, "--out", tmp_path / "m.parquet", "--accept-checksums"
    )
    assert code == 0
    assert "clips: 1850, while the published dataset has 11849" in printed
    assert "AVVP_train.csv: unknown" in printed


def test_folder(tmp_path, capsys):
    media = tmp_path / "media"
    media.mkdir()
    factory.zero_byte(media / "zero.mp4")
    factory.no_video(media / "sound.m4a", duration_s=1.0)
    code, printed, _ = run(capsys, "--dataset", "folder", "--media", media, "--out", tmp_path / "m.parquet")
    assert code == 0
    assert "1 file(s) cannot be opened" in printed
    assert Manifest.load(tmp_path / "m.parquet").ids == ("sound", "zero")


def test_demo_leaves_the_teacher_clips_out_unless_asked(tmp_path, capsys):
    arguments = ("--dataset", "demo", "--demo-clips", "1,0,0,2,1", "--workers", "1", "--media", tmp_path / "media")
    code, printed, logged = run(capsys, *arguments, "--out", tmp_path / "m.parquet")
    assert code == 0
    assert "generating" in logged
    assert "broken on purpose" in printed
    assert Manifest.load(tmp_path / "m.parquet").ids == ("demo-tr0000", "demo-br0000")
    assert run(capsys, *arguments, "--splits", "teacher", "--out", tmp_path / "t.parquet")[0] == 0
    teacher = Manifest.load(tmp_path / "t.parquet")
    assert teacher.ids == tuple(teacher.facts["captions"]) == ("demo-tc0000", "demo-tc0001")
    assert teacher.facts["broken"] == {}


@pytest.mark.parametrize("arguments", [[], ["--dataset", "ave", "--out", "m"], ["--dataset", "folder", "--out", "m"]])
def test_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        prepare.main(arguments)
    assert caught.value.code == 2


def test_unusable_input_is_an_error_not_a_traceback(tmp_path, capsys):
    code, _, logged = run(
        capsys, "--dataset", "folder", "--media", tmp_path / "absent", "--out", tmp_path / "m.parquet"
    )
    assert (code, "no such folder" in logged) == (1, True)
    (tmp_path / "file").write_text("x")
    factory.zero_byte(tmp_path / "zero.mp4")
    code, _, logged = run(capsys, "--dataset", "folder", "--media", tmp_path, "--out", tmp_path / "file" / "m.parquet")
    assert code == 1
    assert str(tmp_path / "file") in logged
