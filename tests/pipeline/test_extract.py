"""The extract command on odd media: every clip ends as rows or as one reason; and its wrong uses."""

import dataclasses
import hashlib
import json
import warnings

import numpy as np
import pytest
import torch

from extractors import base
from extractors.vggish import VGGish
from pipeline.datasets import folder
from pipeline.extract import main
from pipeline.manifest import Clip
from pipeline.store import FeatureStore
from tests import media_factory as make
from tests.pipeline.extract_factory import flags, save
from tests.pipeline.extract_factory import one_load as _one_load  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """One clip of every odd kind."""
    folder = tmp_path_factory.mktemp("odd")
    media = folder / "media"
    media.mkdir()
    writers = {
        "zero": make.zero_byte, "text": make.not_media, "cut": make.truncated, "silent": make.no_audio,
        "blind": make.no_video, "short": make.short, "still": make.one_frame, "odd": make.odd_size,
        "surround": make.six_channels, "phone": make.eight_khz, "turned": make.rotated,
        "plain": make.numbered,
    }  # fmt: skip
    for name, write in writers.items():
        write(media / f"{name}.mp4")
    make.variable_rate(media / "vfr.mp4")
    save(folder, [Clip(name, name, duration_s=2.0) for name in [*writers, "vfr", "gone"]])
    return folder


def test_every_odd_clip_has_exactly_one_outcome(odd, capsys):
    receipt = odd / "receipt.json"
    assert main(flags(odd, "store", "--receipt", str(receipt))) == 0
    store = FeatureStore.open(odd / "store")
    key = store.key("vggish")
    found = store.outcomes(key)
    failed = {name: outcome for name, outcome in found.items() if outcome != "ok"}
    assert failed == {
        "zero": "not-media", "text": "not-media", "cut": "truncated", "silent": "no-audio", "gone": "absent",
    }  # fmt: skip
    assert set(store.reasons(key)) == set(failed)
    assert store.verify() == []
    for name, outcome in found.items():
        if outcome == "ok":
            assert store.read(name, key).shape == (2, 128)
    record = json.loads(receipt.read_text())
    assert sum(record["features"][key]["outcomes"].values()) == 14
    for file, digest in record["files"].items():
        assert hashlib.sha256((odd / "store" / file).read_bytes()).hexdigest() == digest
    assert "9 ok" in capsys.readouterr().out


def test_xarray_opens_the_store_with_names_and_times(odd):
    xarray = pytest.importorskip("xarray")
    main(flags(odd))
    key = FeatureStore.open(odd / "store").key("vggish")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = xarray.open_zarr(odd / "store", group=key)
    assert opened["values"].dims == ("clip", "segment", "feature")
    assert opened["segments"].attrs["units"] == "s"
    row = opened.sel(clip="plain")
    np.testing.assert_allclose(row["segments"].values, [[0, 1], [1, 2]])
    assert opened["outcome"].attrs["flag_meanings"].split()[int(row["outcome"])] == "ok"


def test_more_failures_than_allowed_is_exit_3(odd, capsys):
    assert main(flags(odd, "store", "--max-failed", "4")) == 3
    assert main(flags(odd, "store", "--max-failed", "5")) == 0


def test_names_that_no_encoder_has_are_a_usage_error_all_at_once(tmp_path, capsys):
    (tmp_path / "media").mkdir()
    save(tmp_path, [Clip("a", "a", duration_s=2.0)])
    with pytest.raises(SystemExit) as caught:
        main(flags(tmp_path, "store", "--encoders", "vgish,vggish,clip-b23"))
    assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert "'vgish'" in shown
    assert "'clip-b23'" in shown
    assert not (tmp_path / "store").exists()


def test_encoders_with_one_front_end_prepare_once_and_load_only_when_needed(tmp_path, monkeypatch):
    media = tmp_path / "media"
    media.mkdir()
    make.numbered(media / "a.mp4", duration_s=2.0, rate_hz=16_000)
    save(tmp_path, [Clip("a", "a", duration_s=2.0)])
    assert main([*flags(tmp_path, "single"), "--encoders", "vggish:preactivation"]) == 0
    assert main(flags(tmp_path)) == 0
    prepared, loaded = [], []
    monkeypatch.setattr(base, "load", lambda name, *rest, real=base.load: loaded.append(name) or real(name, *rest))
    monkeypatch.setattr(
        VGGish, "prepare", lambda *call, real=VGGish.prepare: prepared.append(call[0].spec.name) or real(*call)
    )
    both = [*flags(tmp_path), "--encoders", "vggish,vggish:preactivation"]
    assert main(both) == 0
    assert loaded == ["vggish:preactivation"], "the finished feature's encoder was loaded"
    assert main([*flags(tmp_path, "together"), "--encoders", "vggish,vggish:preactivation"]) == 0
    assert len(prepared) == 2, "two encoders of one front end prepared twice"
    stores = [FeatureStore.open(tmp_path / name) for name in ("single", "store", "together")]
    key = stores[0].key("vggish:preactivation")
    for store in stores[1:]:
        np.testing.assert_array_equal(store.read("a", key), stores[0].read("a", key))
    loaded.clear()
    assert main(both) == 0
    assert loaded == []


def test_describe_makes_nothing(odd, capsys):
    before = set(odd.iterdir())
    assert main(["--manifest", str(odd / "manifest.parquet"), "--encoders", "vggish", "--describe"]) == 0
    out = capsys.readouterr().out
    assert "14 clips" in out
    assert "vggish" in out
    assert set(odd.iterdir()) == before


def test_describe_is_of_the_flags_beside_it(odd, capsys):
    about = ["--manifest", str(odd / "manifest.parquet"), "--encoders", "vggish,clip-tiny", "--describe"]
    part = ["--shard", "1/2", "--job-clips", "4", "--weights", "vggish=random:7", "--precision", "bf16"]
    assert main([*about, *part]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    # Four blocks of at most four clips; the second part begins with the third of them.
    assert head.startswith("folder: 6 clips of 14, 8 to 13;")
    assert head.endswith("bf16")
    assert [row.split()[-1] for row in rows] == ["random:7", "published"]
    assert rows[0].split()[4:6] == ["6.14", "kB"]  # 6 clips of 2 rows of 128 float32
    with pytest.raises(SystemExit):
        main([*about, "--weights", "vggish=gone.pth"])
    assert "vggish: --weights 'gone.pth'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says", "code"),
    [
        (["--encoders", "vgish"], "vggish", 2),
        (["--weights", "somewhere.pth"], "vggish: --weights 'somewhere.pth'", 1),
        (["--media", "nowhere"], "no such folder", 1),
        (["--devices", "cpu,cpu", "--weights", "somewhere.pth"], "vggish: --weights 'somewhere.pth'", 1),
        (["--encoders", "clap-tiny", "--weights", "pretrained"], "clap-tiny: no published", 1),
        (["--shard", "3/3"], "from 0 to 2", 2),
        (["--shard", "3"], "write i/n", 2),
        (["--job", "7"], "jobs 0 to 0", 2),
        (["--encoders", "vggish,vggish"], "each name once", 2),
        (["--weights", "vgish=random:0"], "not among", 2),
        (["--redo", "bad"], "outcomes are", 2),
        (["--device", "gpu"], "write cpu", 2),
        (["--workers", "-1"], "at least 0", 2),
        (["--job-clips", "-3"], "at least 1", 2),
    ],
)
def test_wrong_use_is_explained(odd, capsys, more, says, code):
    with pytest.raises(SystemExit) as caught:
        main([*flags(odd, "other"), *more])
    assert caught.value.code == code
    assert says in capsys.readouterr().err


def test_weights_that_do_not_fit_leave_no_key(odd, capsys):
    torch.save({"another": torch.zeros(3)}, odd / "another.pth")
    with pytest.raises(SystemExit):
        main([*flags(odd, "unfit"), "--weights", str(odd / "another.pth")])
    assert "checkpoint does not fit vggish" in capsys.readouterr().err
    assert FeatureStore.open(odd / "unfit").keys() == []
    assert main(flags(odd, "unfit")) == 0
    assert len(FeatureStore.open(odd / "unfit").keys()) == 1


def test_a_recording_that_states_no_length_gets_all_its_rows(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    make.live_recording(media / "rec.webm", duration_s=6.0)
    found = folder.read(media)
    assert found.clips[0].duration_s == pytest.approx(6.0, abs=0.2)
    found.save(tmp_path / "manifest.parquet")
    assert main(flags(tmp_path)) == 0
    store = FeatureStore.open(tmp_path / "store")
    assert len(store.read("rec", store.key("vggish"))) == 6
    save(tmp_path, [dataclasses.replace(found.clips[0], duration_s=None)])
    assert main(flags(tmp_path, "unknown")) == 0
    store = FeatureStore.open(tmp_path / "unknown")
    assert store.outcomes(store.key("vggish")) == {"rec": "wrong-length"}
