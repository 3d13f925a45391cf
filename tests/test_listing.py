"""The two commands that look at encoders: the list and the doctor."""

from extractors.__main__ import main as listing
from extractors.base import names
from pipeline.doctor import main as doctor


def test_the_list_names_every_recipe_once(capsys):
    assert listing([]) == 0
    first = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert first == names()


def test_one_recipe_is_shown_whole(capsys):
    assert listing(["vggish:ave2018"]) == 0
    out = capsys.readouterr().out
    assert '"recipe": "ave2018"' in out
    assert "vggish-10086976.pth" in out


def test_an_unknown_recipe_is_exit_2_with_near_names(capsys):
    assert listing(["vggish:ave2019"]) == 2
    assert "vggish:ave2018" in capsys.readouterr().err


def test_the_doctor_tries_an_encoder_and_reports_the_ill(capsys):
    assert doctor(["--encoders", "vggish"]) == 0
    assert doctor(["--encoders", "vggosh"]) == 1
    out = capsys.readouterr().out
    assert "vggish" in out
    assert "FAILED" in out
