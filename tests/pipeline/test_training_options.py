"""Flags of a training that cannot be meant, and its help."""

import subprocess
import sys

import pytest

from tests.pipeline.training_factory import run


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model", "avle"], "avel"),
        (["--model", "cace-net", "--setting", "weak"], "trained supervised"),
        (["--model", "valor", "--setting", "weak"], "give --labels"),
        (["--motion", "r2plus1d"], "does not read --motion; its streams are visual, audio"),
        (["--device", "mps"], "write cpu, cuda or cuda:N"),
        (["--epochs", "0", "--batch", "-2"], "--epochs 0: at least 1; --batch -2: at least 1"),
        (["--patience", "0"], "--patience 0: at least 1"),
        (["--loader-workers", "-1"], "--loader-workers -1: at least 0"),
        (["--seed", "-1"], "--seed -1: 0 to 4294967295"),
        (["--seed", "99999999999999999999"], "0 to 4294967295"),
        (["--background", "d"], "for weak training"),
        (["--model", "han", "--setting", "weak", "--background", "d"], "one visual and one audio feature"),
        (["--setting", "weak", "--background", "d", "--stream"], "leave out --stream"),
    ],
)
def test_wrong_flags_are_told_before_files_are_looked_for(tmp_path, capsys, flags, words):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, *flags)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_help_ends_in_an_example():
    shown = subprocess.run(
        [sys.executable, "-m", "pipeline.train", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--out demo/train/avel-supervised-0" in shown.strip().splitlines()[-1]
