import dataclasses
import hashlib
import json
import os

import mlcroissant
import numpy as np
import pytest
import soundfile
from safetensors.torch import save_file

from extractors.base import load
from pipeline.extract import main as extract
from pipeline.manifest import Clip, Manifest
from pipeline.release import main
from pipeline.store import FeatureStore
from tests import media_factory as make
from tests.pipeline import store_factory as factory

DEMO = factory.manifest(10)
AUDIO = factory.spec()
VISUAL = factory.spec("vgg19", (2, 2, 3), modality="visual")


@pytest.fixture
def inputs(tmp_path):
    DEMO.save(tmp_path / "M.parquet")
    factory.store(tmp_path / "S", DEMO, [AUDIO, VISUAL], absent={3}, job_clips=4)
    (tmp_path / "ledger.jsonl").write_text('{"clip": "0003_video-00003", "outcome": "absent"}\n')
    return tmp_path


def build(folder, out="R", *more, manifest="M.parquet", store="S"):
    options = ["--manifest", folder / manifest, "--store", folder / store, "--out", folder / out, *more]
    return main(["build", *map(str, options)])


def tree(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def record(folder, out="R"):
    return json.loads((folder / out / "release.json").read_text())


def test_the_same_inputs_give_the_same_release_twice(inputs, capsys):
    assert build(inputs, "R1", "--ledger", inputs / "ledger.jsonl") == 0
    assert build(inputs, "R2", "--ledger", inputs / "ledger.jsonl") == 0
    assert tree(inputs / "R1") == tree(inputs / "R2")
    assert record(inputs, "R1")["id"].startswith("clave-ave-")
    assert main(["diff", str(inputs / "R1"), str(inputs / "R2")]) == 0
    assert f"the same: {record(inputs, 'R1')['id']}" in capsys.readouterr().out


def test_the_id_follows_from_the_hashes_as_anybody_can_compute_them(inputs):
    build(inputs)
    lines = []
    for path in sorted((inputs / "R").rglob("*")):
        name = path.relative_to(inputs / "R").as_posix()
        if path.is_file() and name not in ("README.md", "croissant.json", "SHA256SUMS", "release.json"):
            lines.append((name, f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n"))
    digest = hashlib.sha256("".join(line for _, line in sorted(lines)).encode()).hexdigest()
    assert record(inputs)["id"] == f"clave-ave-{digest[:16]}"


def test_a_release_stands_alone(inputs):
    build(inputs, "R", "--ledger", inputs / "ledger.jsonl")
    store = FeatureStore.open(inputs / "R" / "store")
    np.testing.assert_array_equal(store.read(DEMO.ids[4], AUDIO.key), factory.rows_of(AUDIO, 4, 10))
    assert Manifest.load(inputs / "R" / "manifest.parquet").digest == DEMO.digest
    assert (inputs / "R" / "ledger" / "ledger.jsonl").exists()
    covered = json.loads((inputs / "R" / "coverage.json").read_text())[AUDIO.key]
    assert covered["outcomes"] == {"absent": 1, "ok": 9}
    assert covered["splits"] == {
        "train": {"clips": 6, "ok": 6},
        "val": {"clips": 2, "ok": 1},
        "test": {"clips": 2, "ok": 2},
    }
    assert covered["classes"]["Bell"] == {"clips": 4, "ok": 3}
    assert main(["verify", str(inputs / "R")]) == 0


def test_licences_of_code_weights_and_annotations_are_apart_and_unknown_is_unknown(inputs):
    build(inputs)
    stated = json.loads((inputs / "R" / "licences.json").read_text())
    assert stated["annotations"] == "CC0-1.0"
    assert stated["media"] == "unknown"
    assert stated["features"][AUDIO.key] == {"code": "Apache-2.0", "weights": "unknown", "weights_page": "unknown"}
    assert "| media | unknown |" in (inputs / "R" / "README.md").read_text()


def test_random_weights_make_it_call_itself_a_demo(inputs, capsys):
    random = factory.spec(weights="random:0")
    factory.store(inputs / "random", DEMO, [random])
    assert build(inputs, "D", store="random") == 0
    assert "(demo)" in capsys.readouterr().out
    assert record(inputs, "D")["demo"]
    assert "**This is a demo.**" in (inputs / "D" / "README.md").read_text()
    assert json.loads((inputs / "D" / "croissant.json").read_text())["description"].startswith("DEMO")
    build(inputs)
    assert not record(inputs)["demo"]
    assert "demo" not in (inputs / "R" / "README.md").read_text()


def test_croissant_is_valid_complete_and_its_records_are_read(inputs):
    build(inputs, "R", "--date", "2026-01-31")
    path = inputs / "R" / "croissant.json"
    described = json.loads(path.read_text())
    assert all(described[name] for name in ("name", "description", "license", "url", "citeAs", "datePublished"))
    for entry in described["distribution"]:
        data = (inputs / "R" / entry["contentUrl"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    dataset = mlcroissant.Dataset(str(path))
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    ids = [row["clips/id"].decode() for row in dataset.records("clips")]
    assert ids == list(DEMO.ids)


@pytest.mark.parametrize("what", ["flip", "gone", "surplus", "record", "sums"])
def test_verify_finds_every_change(inputs, what, capsys):
    build(inputs)
    folder = inputs / "R"
    shard = folder / "store" / AUDIO.key / "values/c/1/0/0"
    if what == "flip":
        data = bytearray(shard.read_bytes())
        data[9] ^= 4
        shard.write_bytes(data)
    elif what == "gone":
        shard.unlink()
    elif what == "surplus":
        (folder / "store" / "extra.bin").write_bytes(b"x")
    elif what == "record":
        changed = record(inputs) | {"id": "clave-ave-0000000000000000"}
        (folder / "release.json").write_text(json.dumps(changed))
    else:
        lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
        (folder / "SHA256SUMS").write_text("".join(lines[:-1]))
    assert main(["verify", str(folder)]) == 1
    named = {
        "flip": "values/c/1/0/0: differs",
        "gone": "values/c/1/0/0: missing",
        "surplus": "store/extra.bin: not part",
        "record": "the hashes give",
        "sums": "not part of the release",
    }
    assert named[what] in capsys.readouterr().out


def test_a_store_that_is_damaged_unfinished_or_of_another_manifest_is_not_released(inputs, capsys):
    store = FeatureStore(inputs / "S", "r+")
    store.forget(AUDIO.key, 1)
    with pytest.raises(SystemExit):
        build(inputs)
    assert "4 clips are not done" in capsys.readouterr().err
    assert build(inputs, "P", "--partial") == 0
    assert not (inputs / "P" / "store" / AUDIO.key / "values/c/1").exists()
    shard = store.path / VISUAL.key / "values/c/0/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(SystemExit):
        build(inputs, "R", "--partial")
    assert "the store is damaged" in capsys.readouterr().err
    factory.manifest(10, dataset="llp").save(inputs / "other.parquet")
    with pytest.raises(SystemExit):
        build(inputs, "R", manifest="other.parquet")
    assert "belongs to another manifest" in capsys.readouterr().err
    assert not (inputs / "R").exists()


def test_diff_says_what_changed_and_why(inputs, capsys):
    build(inputs, "R1", "--ledger", inputs / "ledger.jsonl")
    changed = dataclasses.replace(AUDIO, precision="bf16", postprocess=("relu", "l2"))
    clips = list(DEMO.clips)
    clips[0] = dataclasses.replace(clips[0], split="val")
    other = dataclasses.replace(DEMO, clips=tuple(clips))
    other.save(inputs / "M2.parquet")
    factory.store(inputs / "S2", other, [changed, VISUAL], absent={4}, job_clips=4)
    build(inputs, "R2", manifest="M2.parquet", store="S2")
    assert main(["diff", str(inputs / "R1"), str(inputs / "R2")]) == 3
    printed = capsys.readouterr().out
    assert f"feature {AUDIO.key} -> {changed.key}, because" in printed
    assert "precision: 'fp32' -> 'bf16'" in printed
    assert "postprocess: ['relu'] -> ['relu', 'l2']" in printed
    assert "clips changed: 1" in printed
    assert "split: 'train' -> 'val'" in printed
    assert f"{VISUAL.key}: outcome of 2 clips; first, {DEMO.ids[3]}: absent -> ok" in printed
    assert "ledger/ledger.jsonl: removed" in printed


def test_verify_makes_random_clips_again_from_media(tmp_path, capsys):
    """VGGish with seeded random weights on sound files; then one file is exchanged."""
    clips = tuple(Clip(f"tone-{i}", f"tone-{i}", None, 2.0, "test") for i in range(2))
    made = Manifest("folder", clips)
    made.save(tmp_path / "M.parquet")
    (tmp_path / "media").mkdir()
    times_s = np.arange(2 * 16_000) / 16_000
    for i in range(2):
        soundfile.write(tmp_path / "media" / f"tone-{i}.wav", 0.3 * np.sin(2 * np.pi * 300 * (i + 1) * times_s), 16_000)
    from pipeline.extract import main as extract

    common = ["--manifest", str(tmp_path / "M.parquet"), "--media", str(tmp_path / "media")]
    assert (
        extract(
            [*common, "--store", str(tmp_path / "S"), "--encoders", "vggish", "--weights", "random:0", "--workers", "0"]
        )
        == 0
    )
    assert build(tmp_path) == 0
    again = ["verify", str(tmp_path / "R"), "--media", str(tmp_path / "media"), "--sample", "2"]
    assert main(again) == 0
    assert capsys.readouterr().out.count("cosine 1.000000, largest difference 0") == 2
    os.replace(tmp_path / "media" / "tone-0.wav", tmp_path / "media" / "tone-1.wav")
    assert main(again) == 1
    printed = capsys.readouterr().out
    assert "wrong  tone-0" in printed
    assert "absent" in printed
    assert "wrong  tone-1" in printed
    assert load("vggish", "random:0").spec.key in printed


@pytest.mark.parametrize(
    ("name", "value"),
    [("demo", True), ("clips", 11), ("manifest", "0" * 64), ("licences", {}), ("dataset", "llp"), ("store", {})],
)
def test_verify_holds_the_record_against_the_files(inputs, capsys, name, value):
    build(inputs)
    (inputs / "R" / "release.json").write_text(json.dumps(record(inputs) | {name: value}))
    assert main(["verify", str(inputs / "R")]) == 1
    assert f"release.json: {name} is " in capsys.readouterr().out


def test_a_path_that_holds_nothing_is_not_left_out_in_silence(inputs, capsys):
    (inputs / "empty").mkdir()
    for path in ("nowhere", "empty"):
        with pytest.raises(SystemExit):
            build(inputs, "R", "--labels", inputs / path)
        assert path in capsys.readouterr().err
        assert not (inputs / "R").exists()


def test_features_of_several_own_checkpoints_are_made_again_with_each(tmp_path, capsys):
    """Two teachers of one's own and a published encoder without a file at hand."""
    (tmp_path / "media").mkdir()
    make.numbered(tmp_path / "media" / "a.mp4")
    Manifest("folder", (Clip("a", "a", None, 2.0, "test"),)).save(tmp_path / "M.parquet")
    files = {}
    for name in ("clip-tiny", "clap-tiny"):
        encoder = load(name, "random:3")
        files[name] = tmp_path / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in encoder.network.state_dict().items()}, files[name])
    options = ["--manifest", "M.parquet", "--media", "media", "--store", "S"]
    weights = [f"--weights={name}={path}" for name, path in files.items()]
    options = [part if part.startswith("--") else str(tmp_path / part) for part in options]
    assert extract([*options, "--encoders", ",".join(files), "--workers", "0", *weights]) == 0
    assert build(tmp_path) == 0
    verify = ["verify", str(tmp_path / "R"), "--media", str(tmp_path / "media")]
    given = [part for path in files.values() for part in ("--weights", str(path))]
    assert main([*verify, *given]) == 0
    assert capsys.readouterr().out.count("largest difference 0") == 2
    assert main([*verify, *given[:2]]) == 1
    printed = capsys.readouterr().out
    assert printed.count("again  a") == 1
    assert "give that file with --weights" in printed
    assert main([*verify, *given, "--weights", str(tmp_path / "M.parquet")]) == 1
    assert "no feature was made with this file" in capsys.readouterr().out


def test_a_mistyped_folder_of_media_does_not_make_a_release_unsound(inputs, capsys):
    build(inputs)
    with pytest.raises(SystemExit):
        main(["verify", str(inputs / "R"), "--media", str(inputs / "nowhere")])
    assert "no such folder" in capsys.readouterr().err
    (inputs / "R" / "licences.json").unlink()
    assert main(["verify", str(inputs / "R")]) == 1
    assert "licences.json: missing" in capsys.readouterr().out
