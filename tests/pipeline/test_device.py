"""A device that is not there is said so before anything is done."""

import pytest
import torch

from pipeline import doctor, extract, pseudolabel
from pipeline.device import use
from pipeline.run import BROKE


def test_a_cpu_is_always_there():
    assert use("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpu", "write cpu, cuda"),
        ("mps", "write cpu, cuda"),
        ("meta", "write cpu, cuda"),
        ("cuda:99", "sees (no|cuda:0 to)"),
    ],
)
def test_what_is_there_instead_is_told(name, words):
    with pytest.raises(ValueError, match=words):
        use(name)


def test_the_second_gpu_is_used_alone(monkeypatch):
    used = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert use("cuda:1") == torch.device("cuda:1")
    assert use("cuda") == torch.device("cuda")
    assert used == [1, 0]
    assert not torch.backends.cudnn.allow_tf32
    with pytest.raises(ValueError, match="cuda:0 to cuda:1"):
        use("cuda:2")


def test_commands_end_with_the_reason_and_not_with_a_traceback(tmp_path, capsys):
    flags = ["--manifest", str(tmp_path / "m"), "--media", str(tmp_path), "--store", str(tmp_path / "s")]
    labels = ["--manifest", str(tmp_path / "m"), "--store", str(tmp_path / "s"), "--teacher", "clip-tiny"]
    for main, arguments in (
        (extract.main, [*flags, "--encoders", "vggish"]),
        (doctor.main, ["--encoders", "vggish"]),
        (pseudolabel.main, [*labels, "--out", str(tmp_path / "l")]),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--device", "cuda:99"])
        assert ended.value.code == BROKE
        assert "--device cuda:99" in capsys.readouterr().err
