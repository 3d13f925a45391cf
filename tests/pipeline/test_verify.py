import json

import pytest

from pipeline.blocks import held
from pipeline.store import FeatureStore
from pipeline.verify import main
from tests.pipeline import store_factory as factory

DEMO = factory.manifest(10)
AUDIO = factory.spec()


@pytest.fixture
def store(tmp_path):
    DEMO.save(tmp_path / "M.parquet")
    return factory.store(
        tmp_path / "S", DEMO, [AUDIO, factory.spec("vgg19", (2, 2, 3), modality="visual")], job_clips=4
    )


def test_a_sound_store_passes_with_exit_code_0(store, tmp_path, capsys):
    assert main(["--store", str(store.path), "--manifest", str(tmp_path / "M.parquet"), "--complete"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("3 of 3 blocks committed") == 2
    assert "damaged" not in printed


def test_a_damaged_block_is_forgotten_alone_and_found_missing_then(store, tmp_path, capsys):
    path = store.path / AUDIO.key / "values/c/1/0/0"
    path.write_bytes(path.read_bytes()[:-1])
    receipt = tmp_path / "receipt.json"
    assert main(["--store", str(store.path), "--shallow", "--forget", "--receipt", str(receipt)]) == 1
    assert f"damaged  {AUDIO.key} block 1" in capsys.readouterr().out
    assert json.loads(receipt.read_text())["forgotten"] == [f"{AUDIO.key}/1"]
    assert main(["--store", str(store.path), "--complete"]) == 3
    assert f"missing  {AUDIO.key}: 2 of 3 blocks committed; 4 clips: 4..7" in capsys.readouterr().out
    factory.fill(FeatureStore(store.path, "r+"), DEMO, AUDIO.key)
    assert main(["--store", str(store.path), "--complete"]) == 0


def test_files_without_a_record_are_named_and_do_not_count(store, capsys):
    store.forget(AUDIO.key, 2)
    assert main(["--store", str(store.path), "--key", "vggish:ave2018"]) == 0
    assert "files without a record in blocks [2]" in capsys.readouterr().err


def test_a_store_of_another_manifest_is_named(store, tmp_path, capsys):
    factory.manifest(10, dataset="llp").save(tmp_path / "other.parquet")
    assert main(["--store", str(store.path), "--manifest", str(tmp_path / "other.parquet")]) == 1
    assert "belongs to another manifest" in capsys.readouterr().out


def test_a_renamed_key_and_a_surplus_record_are_named(store, capsys):
    (store.path / AUDIO.key).rename(store.path / "vggish.mine")
    (store.path / "commits" / AUDIO.key).rename(store.path / "commits" / "vggish.mine")
    (store.path / "commits" / "vggish.mine" / "000009.json").write_text("{}")
    assert main(["--store", str(store.path)]) == 1
    printed = capsys.readouterr().out
    assert f"its metadata describe {AUDIO.key}" in printed
    assert "record of no block" in printed


def test_leftovers_are_swept(store, capsys):
    (store.path / "commits" / "x.json.1.partial").write_text("{")
    assert main(["--store", str(store.path)]) == 1
    assert "left over by a killed process" in capsys.readouterr().out
    assert main(["--store", str(store.path), "--sweep"]) == 0


def test_dask_workers_find_the_same(store, capsys):
    path = store.path / AUDIO.key / "values/c/0/0/0"
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["--store", str(store.path)]) == 1
    alone = capsys.readouterr().out
    assert main(["--store", str(store.path), "--workers", "1"]) == 1
    assert capsys.readouterr().out == alone


def test_no_store_is_one_message(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--store", str(tmp_path / "nothing")])
    assert caught.value.code == 1
    assert "not a feature store" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["ids gone", "ids flipped", "key gone"])
def test_lost_ids_and_lost_keys_are_no_sound_store(tmp_path, capsys, what):
    store = factory.store(tmp_path / "S", DEMO, [AUDIO], job_clips=4)
    path = store.path / AUDIO.key / ("zarr.json" if what == "key gone" else "clip/c/0")
    if what == "ids flipped":
        factory.flip(path)
    else:
        path.unlink()
    assert main(["--store", str(store.path)]) == 1
    assert {"key gone": "zarr.json is missing"}.get(what, "clip ids are damaged") in capsys.readouterr().out


@pytest.mark.parametrize(("name", "damage"), [("values", None), ("length", "{"), ("clip", None)])
def test_an_array_without_its_metadata_is_named_and_the_rest_is_checked(store, capsys, name, damage):
    path = store.path / AUDIO.key / name / "zarr.json"
    path.unlink() if damage is None else path.write_text(damage)
    other = next(store.path.glob("vgg19*")) / "values/c/1/0/0/0/0"
    other.write_bytes(other.read_bytes()[:-1])
    assert main(["--store", str(store.path)]) == 1
    said = capsys.readouterr().out
    what = "clip ids are damaged" if name == "clip" else f"{name}/zarr.json is missing or damaged"
    assert any(line.startswith(f"damaged  {AUDIO.key}: ") and what in line for line in said.splitlines())
    assert f"{other.parts[-8]} block 1: " in said


def test_what_a_living_writer_has_made_is_neither_named_nor_swept(store):
    writer = store.writer(AUDIO.key, 1)
    record = store.commit_path(AUDIO.key, 1)
    staged = record.with_name(f"{record.name}.77.partial")
    staged.write_text("{}")
    with held(store.path, "new.key") as planned:
        assert store.sweep() == 0
        assert staged.exists()
        assert planned.exists()
    del writer  # as a process that ends: its folder stays, unlocked
    assert store.sweep() == 2
    assert not staged.exists()


@pytest.mark.parametrize("content", ["", "[]"])
def test_a_damaged_record_can_be_forgotten(store, capsys, content):
    store.commit_path(AUDIO.key, 1).write_text(content)
    assert main(["--store", str(store.path), "--forget"]) == 1
    assert "damaged commit record" in capsys.readouterr().out
    factory.fill(FeatureStore(store.path, "r+"), DEMO, AUDIO.key)
    assert main(["--store", str(store.path), "--complete"]) == 0
