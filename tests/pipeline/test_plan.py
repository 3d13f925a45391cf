"""The bill of a configuration against arithmetic done by hand and against a store that was really written."""

import json

import numpy as np
import pytest
import yaml

from extractors.recipes import recipe
from pipeline import plan
from pipeline.bill import bill, rates
from pipeline.configuration import read as read_config
from pipeline.store import FeatureStore
from tests.pipeline import store_factory as factory


@pytest.fixture
def config(tmp_path):
    def write(**values) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({"run": str(tmp_path / "run"), **values}))
        return str(path)

    return write


@pytest.fixture
def throughput(tmp_path):
    path = tmp_path / "throughput.yaml"
    entry = {"device": "cpu", "precision": "fp32", "prepare_s": 0.36, "encode_s": 3.6, "batch_rows": 1}
    path.write_text(yaml.safe_dump({"encoders": {"vggish": [entry, entry | {"device": "cuda", "encode_s": 0.036}]}}))
    return path


def test_jobs_rows_bytes_and_hours_of_ave(config, throughput):
    settings = {"encoders": ["vggish:ave2018"], "train": [{"model": "avel", "seeds": [0, 1]}], "export": ["ave-h5"]}
    read = read_config(config(datasets={"ave": settings}))
    found = bill("ave", read, rates(throughput, "cpu", "fp32"))
    assert found.jobs == {"prepare": 1, "extract": 17, "train": 2, "score": 2, "export": 1, "report": 1}
    (feature,) = found.features
    assert feature.rows == 41_430
    assert feature.bytes == 41_430 * (128 * 4 + 16) + 4143 * 20
    assert feature.device_h == pytest.approx(41.43)
    assert feature.core_h == pytest.approx(4.143)
    assert bill("ave", read, rates(throughput, "cuda:1", "fp32")).features[0].device_h == pytest.approx(0.4143)


def test_a_tuned_feature_costs_what_its_encoder_does_and_trainings_cost_nobody_knows_what(config, throughput, capsys):
    tunings = [
        {"name": "r", "visual": "vgg19", "audio": "vggish", "seeds": [0, 1]},
        {"name": "frozen", "visual": "vgg19", "audio": "vggish", "tune": "projections"},
    ]
    settings = {"encoders": ["vgg19", "vggish"], "finetune": tunings, "train": [{"model": "avel"}]}
    path = config(datasets={"ave": settings})
    found = bill("ave", read_config(path), rates(throughput, "cpu", "fp32"))
    assert (found.jobs["finetune"], found.jobs["extract_tuned"], found.jobs["effect"]) == (3, 34, 1)
    assert [feature.bytes for feature in found.tuned] == [found.features[0].bytes] * 2
    assert plan.main(["--config", path, "--throughput", str(throughput)]) == 0
    shown = capsys.readouterr().out
    assert "  unknown  hours of finetune 3, train 1, effect 1\n" in shown
    assert "(3 of 4 unknown)" in shown


def test_the_bytes_are_those_that_a_store_takes(tmp_path, config, monkeypatch):
    made = factory.manifest(8)
    spec = recipe("vggish:ave2018").spec
    store = FeatureStore.create(tmp_path / "store", made, [spec], job_clips=4)
    for block, span in store.blocks(spec.key):
        writer = store.writer(spec.key, block)
        for row in span:
            writer.put(row, np.ones((10, 128), np.float32), spec.grid.segments(10.0))
        writer.commit()
    taken = sum(p.stat().st_size for p in (tmp_path / "store" / spec.key / "values" / "c").rglob("*") if p.is_file())
    found = bill("ave", read_config(config(datasets={"ave": {"encoders": ["vggish:ave2018"]}})), {}, clips=8)
    windows = 8 * 10 * 16
    assert found.features[0].bytes - windows == pytest.approx(taken, rel=0.01)


def test_exports_in_double_precision_take_twice_the_bytes_and_pictures_are_no_features(config, throughput, capsys):
    settings = {"encoders": ["vgg19:ave2018", "vggish:ave2018"], "export": ["ave-h5", "webdataset", "dgsct"]}
    assert plan.main(["--config", config(datasets={"ave": settings}), "--throughput", str(throughput)]) == 0
    shown = capsys.readouterr().out
    assert pytest.approx(8.53, abs=0.01) == 4143 * 10 * (7 * 7 * 512 + 512 + 128) * 8 / 1e9
    assert "exports ave-h5 at most 8.57 GB, webdataset at most 4.18 GB, dgsct unknown\n" in shown


def test_a_sum_without_a_part_that_was_never_measured_says_so(config, throughput, capsys):
    path = config(datasets={"ave": {"encoders": ["vggish:ave2018", "vgg19:ave2018"]}})
    assert plan.main(["--config", path, "--throughput", str(throughput)]) == 0
    shown, said = capsys.readouterr()
    assert "core-hours of encoding: at least 41.4 h (1 of 2 unknown)" in shown
    assert "the throughput of vgg19:ave2018 is unmeasured" in said


def test_lengths_come_from_the_manifest_once_there_is_one(tmp_path, config, throughput):
    path = config(datasets={"unav100": {"encoders": ["vggish"]}})
    measured = rates(throughput, "cpu", "fp32")
    before = bill("unav100", read_config(path), measured)
    assert before.clips == 10_790
    assert before.features[0].rows is None
    factory.manifest(4, "unav100", (10.0, 20.0)).save(tmp_path / "run" / "unav100" / "manifest.parquet")
    after = bill("unav100", read_config(path), measured)
    assert (after.clips, after.features[0].rows, after.clip_s) == (4, 60, 15.0)
    assert bill("unav100", read_config(path), measured, clips=1000, clip_s=42.0).features[0].rows == 42_000


def test_misspelt_keys_are_refused_together(config, capsys):
    with pytest.raises(SystemExit) as ended:
        plan.main(["--config", config(devise="cpu", datasets={"ave": {"encoder": ["vggish"]}})])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "devise" in said
    assert "encoder" in said


def test_flags_that_cannot_be_meant_are_usage_and_broken_files_are_not(config, tmp_path, capsys):
    (tmp_path / "broken.yaml").write_text("a: [1")
    fine = config(datasets={"ave": {"encoders": ["vggish"]}})
    for arguments, code in ((["--config", fine, "--clips", "0"], 2), (["--config", str(tmp_path / "broken.yaml")], 1)):
        with pytest.raises(SystemExit) as ended:
            plan.main(arguments)
        assert ended.value.code == code
    assert "broken.yaml: not YAML" in capsys.readouterr().err


def test_a_million_clips_are_planned_at_once(config, tmp_path, capsys):
    path = config(datasets={"ave": {"encoders": ["vggish:ave2018"]}, "llp": {"encoders": ["clip-l14:valor2023"]}})
    assert plan.main(["--config", path, "--clips", "1000000", "--json", str(tmp_path / "plan.json")]) == 0
    written = json.loads((tmp_path / "plan.json").read_text())
    assert [entry["jobs"]["extract"] for entry in written["datasets"]] == [3907, 3907]
    assert "2,000,000 clips" in capsys.readouterr().out


def test_jobs_that_outlast_what_they_ask_for_are_named(config, throughput, capsys):
    small = {"mem_mb": 1000, "runtime_min": 1}
    path = config(datasets={"ave": {"encoders": ["vggish:ave2018"]}}, resources={"extract": small, "default": small})
    assert plan.main(["--config", path, "--throughput", str(throughput)]) == 0
    assert "raise it" in capsys.readouterr().err


def test_what_an_added_encoder_leaves_to_make_is_said(tmp_path, config, capsys):
    made = factory.manifest(8)
    spec = recipe("vggish:ave2018").spec
    folder = tmp_path / "run" / "ave"
    made.save(folder / "manifest.parquet")
    store = FeatureStore.create(folder / "features", made, [spec], job_clips=4)
    settings = {"encoders": ["vggish:ave2018", "cnn14:cace2024"]}
    path = config(datasets={"ave": settings}, job_clips=4)

    def shown() -> str:
        assert plan.main(["--config", path]) == 0
        return capsys.readouterr().out

    assert "to make" not in shown()
    factory.fill(store, made, spec.key, rows=range(4))
    assert "to make  vggish:ave2018: 1 blocks, cnn14:cace2024: 2 blocks\n  kept     no feature" in shown()
    factory.fill(store, made, spec.key)
    assert "to make  cnn14:cace2024: 2 blocks\n  kept     vggish:ave2018\n" in shown()
