"""The command: what holds whichever layout is written."""

from pathlib import Path

import pytest
from distributed import LocalCluster

from pipeline import cluster
from tests.pipeline.export_factory import AUDIO, demo_store, export


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return demo_store(tmp_path)


def test_the_same_inputs_give_the_same_bytes_and_another_folder_is_never_touched(made, capsys):
    assert export(made, "ave-h5", out="one") == 0
    assert export(made, "ave-h5", out="two") == 0
    for path in (made / "one").iterdir():
        assert path.read_bytes() == (made / "two" / path.name).read_bytes(), path.name
    (made / "thesis").mkdir()
    (made / "thesis" / "chapter.tex").write_text("mine")
    for out, more, message in [
        ("thesis", ["--overwrite"], "not made by this command"),
        ("one", [], "--overwrite replaces"),
    ]:
        with pytest.raises(SystemExit):
            export(made, "ave-h5", *more, out=out)
        assert message in capsys.readouterr().err
    assert (made / "thesis" / "chapter.tex").read_text() == "mine"
    (made / "one" / "labels.h5").unlink()
    assert export(made, "ave-h5", "--overwrite", out="one") == 0
    assert (made / "one" / "labels.h5").exists()
    assert not list(made.glob("*.partial")) + list(made.glob(".*.partial"))


def test_an_export_that_breaks_leaves_the_earlier_one(made):
    assert export(made, "ave-h5") == 0
    before = {path.name: path.read_bytes() for path in (made / "out").iterdir()}
    shard = made / "S" / AUDIO.key / "values/c/2/0/0"
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(SystemExit):
        export(made, "ave-h5", "--overwrite")
    assert {path.name: path.read_bytes() for path in (made / "out").iterdir()} == before
    assert not list(made.glob(".*.partial"))


def test_features_are_chosen_by_name_and_a_wrong_one_is_refused(made, capsys):
    with pytest.raises(SystemExit):
        export(made, "ave-h5", "--feature", "sound=vggish:ave2018")
    assert "has the roles visual, audio" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        export(made, "ave-h5", "--feature", "audio=cnn14")
    assert "no single feature called 'cnn14'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        export(made, "ave-h5", "--feature", "audio")
    assert ended.value.code == 2
    assert export(made, "ave-h5", "--max-missing", "0") == 3


@pytest.fixture(scope="module")
def scheduler():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
    ) as made_here:
        yield made_here.scheduler_address


@pytest.mark.parametrize("layout", ["ave-h5", "webdataset"])
def test_dask_workers_give_the_same_bytes(made, monkeypatch, scheduler, layout):
    monkeypatch.setattr(cluster, "_GROUP_BYTES", 40_000)  # a few clips at a time
    assert export(made, layout, out="here") == 0
    assert export(made, layout, "--scheduler", scheduler, out="there") == 0
    names = sorted(path.name for path in (made / "here").iterdir())
    assert names == sorted(path.name for path in (made / "there").iterdir())
    for name in names:
        assert (made / "here" / name).read_bytes() == (made / "there" / name).read_bytes(), name
