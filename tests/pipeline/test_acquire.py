"""The acquire stage end to end, against a server on loopback that misbehaves on demand."""

from __future__ import annotations

import json
import re
import tarfile
import time
import zipfile
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from yt_dlp.downloader.common import FileDownloader

from pipeline import acquire
from pipeline.acquisition.facts import inspect
from pipeline.manifest import Clip
from pipeline.mediafile import find
from tests import media_factory
from tests.pipeline.acquisition.command import Run, clip
from tests.pipeline.acquisition.server import MisbehavingServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """`v.mp4`: four seconds whose frames carry their numbers; `t.mp4`: the first two of them."""
    folder = tmp_path_factory.mktemp("files")
    media_factory.numbered(folder / "v.mp4", duration_s=4, width=160, height=120)
    media_factory.numbered(folder / "t.mp4", duration_s=2, width=160, height=120)
    return folder


@pytest.fixture
def server(files):
    with MisbehavingServer(files) as running:
        yield running


def first_number(path: Path) -> int:
    import av

    with av.open(str(path)) as container:
        return media_factory.read_number(next(container.decode(video=0)).to_ndarray(format="rgb24"))


# What the server does, and how the clip must end, with the number of requests that it takes.
BEHAVIOURS = {
    "ok": ("ok", 1),
    "redirect-ok": ("ok", 2),
    "flaky-1": ("ok", 2),
    "refuse-2": ("ok", 3),
    "cut-1": ("ok", 2),
    "404": ("absent", 1),
    "410": ("removed", 1),
    "403": ("transient", 3),
    "503": ("transient", 3),
    "truncated": ("truncated", 3),
    "slow": ("timeout", 1),
    "wrong": ("not-media", 1),
    "endless": ("too-large", 1),
    "redirect-file": ("unavailable", 1),
    "redirect-private": ("unavailable", 1),
}


def test_a_server_that_misbehaves_in_every_way(server, tmp_path, capsys):
    clips = [clip(number, split="train" if number % 2 else "test") for number in range(len(BEHAVIOURS))]
    clips.append(clip(0, 1.37, name="-second-of-0"))
    run = Run(tmp_path, clips)
    pairs = list(zip(BEHAVIOURS, clips, strict=False))
    lines = [f"{one.source_id}\t{server.url}/{how}/v.mp4?{one.source_id}" for how, one in pairs]
    (tmp_path / "list.tsv").write_text("\n".join(lines))
    command = ("--source", "http", "--from", tmp_path / "list.tsv", "--hygiene", tmp_path / "hygiene.json")
    assert run(*command) == 0

    attempts = run.attempts()
    for (how, (outcome, requests)), one in zip(BEHAVIOURS.items(), clips, strict=False):
        assert attempts[one.id][-1] == outcome, how
        asked = sum(one.source_id in path or (how, path) == ("redirect-ok", "/ok/v.mp4") for path in server.gets())
        assert asked == requests, how
        assert (run.media / f"{one.id}.mp4").exists() == (outcome == "ok"), how
    # One download for both clips of video 0, each cut to the frame.
    assert first_number(run.media / f"{clips[0].id}.mp4") == 25
    assert first_number(run.media / "-second-of-0.mp4") == 35
    assert inspect(run.media / "-second-of-0.mp4").frames == 50

    expected = Counter(outcome for outcome, _ in BEHAVIOURS.values()) + Counter(["ok"])
    receipt = run.receipt()
    assert receipt["counts"]["outcomes"] == dict(expected)
    assert sum(receipt["counts"]["outcomes"].values()) == receipt["counts"]["clips"] == len(clips)
    assert sum(sum(count.values()) for count in receipt["counts"]["splits"].values()) == len(clips)
    assert json.loads((tmp_path / "hygiene.json").read_text())["clips"] == expected["ok"]
    assert "6 of 16 clips are here" in capsys.readouterr().out
    ok = next(record for record in run.records() if record.get("clip") == "-second-of-0")
    assert ok["media"]["window"] == {"start_s": 1.37, "duration_s": 2.0}
    assert ok["media"]["settings"]["crf"] == 18
    media = [json.loads(line) for line in (run.media / "media.ave.jsonl").read_text().splitlines()]
    assert [line["made"] for line in media] == ["cut"] * expected["ok"]
    assert all(find(one, run.media) == (run.media / f"{one.id}.mp4", False) for one in (clips[0], clips[-1]))

    # The same command again asks only for what may have been bad luck; --retry none and a summary ask nobody.
    before, first = len(server.gets()), run.ledger.read_bytes()
    assert run(*command, "--retry", "none") == 0
    assert run("--summary") == 0
    assert len(server.gets()) == before
    assert run.ledger.read_bytes() == first
    assert run(*command, "--tries", "1") == 0
    assert sorted(path.split("/")[1] for path in server.gets()[before:]) == ["403", "503", "slow", "truncated"]
    before = len(server.gets())
    assert run(*command, "--tries", "1", "--retry", "all", "--max-failed", "9") == 3
    assert len(server.gets()) - before == len(clips) - expected["ok"]
    assert run.ledger.read_bytes().startswith(first)


class InAnHour(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(seconds=3601)


@pytest.mark.parametrize("source", ["http", "youtube"])
def test_a_site_that_asks_to_stop_is_left_alone(server, tmp_path, capsys, monkeypatch, source):
    server.retry_after = "3600"
    run = Run(tmp_path, [clip(number) for number in range(3)])
    command = ("--source", source, "--from", f"{server.url}/429/v.mp4?v={{source_id}}")
    assert run(*command, "--concurrency", "2") == 1
    asked = len(server.requests)
    assert not (tmp_path / "receipt.json").exists()
    stop = run.records()[-1]
    assert (stop["outcome"], stop["source"]) == ("rate-limited", source)
    words = capsys.readouterr()
    assert stop["come_back"] in words.err
    assert re.search(r"\d+  rate-limited", words.out)
    assert re.search(r"\d+  pending", words.out)

    assert run(*command) == 1  # too early: nobody is asked
    assert len(server.requests) == asked
    monkeypatch.setattr(acquire, "datetime", InAnHour)
    assert run("--source", source, "--from", f"{server.url}/ok/v.mp4?v={{source_id}}") == 0
    assert run.receipt()["counts"]["outcomes"] == {"ok": 3}


def test_youtube_by_way_of_yt_dlp(server, tmp_path, capsys):
    """Ids that begin with a dash, two clips of one video, fractional starts, one clip without offsets."""
    clips = [clip(1, 0.5, "-a"), clip(1, 1.96, "-b"), clip(2), Clip("-d", "-zzzzzzzzzz", None, 2.0)]
    run = Run(tmp_path, clips)
    (tmp_path / "offsets.csv").write_text("# YTID, start_seconds, end_seconds, positive_labels\n-0000000009, 1, 3, x\n")
    template = f"{server.url}/ok/v.mp4?v={{source_id}}"
    assert run("--source", "youtube", "--from", template, "--offsets", tmp_path / "offsets.csv", "--dry-run") == 0
    assert not server.requests
    assert not run.media.exists()
    assert run("--source", "youtube", "--from", template, "--offsets", tmp_path / "offsets.csv") == 0
    assert len({path for path in server.gets() if "v=-0000000001" in path}) == 1
    assert [first_number(run.media / name) for name in ("-a.mp4", "-b.mp4")] == [13, 49]
    assert run.attempts()["-d"] == ["absent"]
    assert "1 of the missing clips may be had another time" in (said := capsys.readouterr().err)
    assert "--forcerun acquire" in said
    assert server.most_active == 1
    assert "yt-dlp" in run.records()[-1]["versions"]
    asked = len(server.requests)
    (tmp_path / "offsets.csv").write_text("-zzzzzzzzzz,1.5,3.5\n")
    assert run("--source", "youtube", "--from", template, "--offsets", tmp_path / "offsets.csv") == 0
    assert len({path for path in server.gets()[asked:]}) == 1
    assert first_number(run.media / "-d.mp4") == 38
    assert "another time" not in capsys.readouterr().err


def test_keep_the_original_and_cut_while_decoding(server, tmp_path):
    clips = [clip(1, 0.5, "-a"), clip(1, 1.5, "-b"), clip(1, 3.5, "-c")]
    run = Run(tmp_path, clips)
    origin = f"{server.url}/ok/v.mp4?v={{source_id}}"
    assert run("--source", "http", "--from", origin, "--holds", "videos", "--keep-original") == 0
    assert len(server.gets()) == 1
    assert sorted(run.files()) == ["full/-0000000001.mp4", "media.ave.jsonl"]
    assert run.attempts() == {"-a": ["ok"], "-b": ["ok"], "-c": ["too-short"]}
    assert run.records()[0]["media"]["made"] == "kept"
    assert find(clips[1], run.media) == (run.media / "full" / "-0000000001.mp4", True)
    # Another data set with the same video needs no download.
    (tmp_path / "other").mkdir()
    other = Run(tmp_path / "other", [clip(1, 1.0, "-x")], "llp")
    other.media = run.media
    assert other("--source", "http", "--from", origin) == 0
    assert len(server.gets()) == 1
    assert first_number(run.media / "-x.mp4") == 25


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz"])
def test_files_that_the_user_has(files, tmp_path, kind):
    """Trimmed clips by video id (two rows share one), a whole video, one that is broken, one that is missing."""
    have = tmp_path / "have"
    (have / "AVE").mkdir(parents=True)
    for name, origin in (("-0000000001", "t"), ("-0000000002", "v"), ("v_-0000000005", "t")):
        (have / "AVE" / f"{name}.mp4").write_bytes((files / f"{origin}.mp4").read_bytes())
    (have / "AVE" / "-0000000003.mp4").write_bytes(b"nothing")
    media_factory.no_audio(have / "AVE" / "-0000000006.mp4", duration_s=2, width=64, height=48)
    clips = [
        Clip("0000_-0000000001", "-0000000001", None, 2.0, "train", ("bark",)),
        Clip("0001_-0000000001", "-0000000001", None, 2.0, "test", ("bark",)),
        clip(2, 0.52),
        *(Clip(f"{n:04d}_-000000000{n}", f"-000000000{n}", None, 2.0) for n in (3, 4, 5, 6)),
        Clip("0007_-0000000002", "-0000000002", None, 2.0),
    ]
    run = Run(tmp_path, clips)
    origin = have
    if kind == "zip":
        origin = tmp_path / "have.zip"
        with zipfile.ZipFile(origin, "w") as archive:
            for path in sorted(have.rglob("*.mp4")):
                archive.write(path, path.relative_to(have))
    elif kind == "tar.gz":
        origin = tmp_path / "have.tar.gz"
        with tarfile.open(origin, "w:gz") as archive:
            archive.add(have, ".")
    command = ("--source", "folder" if kind == "folder" else "archive", "--from", origin)
    assert run(*command) == 0
    outcomes = ["ok", "ok", "ok", "not-media", "absent", "ok", "no-audio", "wrong-length"]
    assert [run.attempts()[one.id] for one in clips] == [[outcome] for outcome in outcomes]
    assert (run.media / "0000_-0000000001.mp4").read_bytes() == (files / "t.mp4").read_bytes()
    assert first_number(run.media / f"{clips[2].id}.mp4") == 13
    assert run.receipt()["hygiene"]["duplicates"] == [[clips[0].id, clips[1].id, clips[5].id]]
    lines = len(run.records())
    assert run(*command) == 0  # nothing new to say
    assert len(run.records()) == lines


def test_files_already_in_place_are_verified_and_damage_is_noticed(files, tmp_path):
    run = Run(tmp_path, [clip(1), clip(2)])
    run.media.mkdir()
    here = run.media / f"{clip(1).id}.mp4"
    here.write_bytes((files / "t.mp4").read_bytes())
    command = ("--source", "folder", "--from", run.media)
    assert run(*command) == 0
    assert run.attempts() == {clip(1).id: ["ok"], clip(2).id: ["absent"]}
    assert run.records()[-1]["media"]["made"] == "found"
    data = bytearray(here.read_bytes())
    here.write_bytes(data[: len(data) // 2])
    assert run(*command) == 0
    assert run.attempts()[clip(1).id] == ["ok", "truncated"]
    assert run.receipt()["counts"]["outcomes"] == {"absent": 1, "truncated": 1}


def test_hostile_archives_are_refused_whole(files, tmp_path, capsys):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(files / "t.mp4", "-0000000001.mp4")
        link = tarfile.TarInfo("link.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.add(files / "t.mp4", "../../evil.mp4")
    run = Run(tmp_path, [clip(1)])
    with pytest.raises(SystemExit) as caught:
        run("--source", "archive", "--from", tmp_path / "x.tar")
    assert caught.value.code == 1
    words = capsys.readouterr().err
    assert "'link.mp4'" in words
    assert "'../../evil.mp4'" in words
    assert not list(run.media.glob("*.mp4"))


def test_a_network_that_is_down_ends_the_run(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.acquisition.collect.TROUBLE_IN_A_ROW", 3)
    run = Run(tmp_path, [clip(number) for number in range(6)])
    command = ("--source", "http", "--from", f"{server.url}/503/v.mp4?v={{source_id}}", "--tries", "1")
    assert run(*command) == 1
    assert len(server.requests) == 3
    assert "network" in capsys.readouterr().err
    assert not (tmp_path / "receipt.json").exists()


@pytest.mark.parametrize("source", ["http", "youtube"])
def test_a_full_disk_ends_the_run_and_is_nobodys_refusal(server, tmp_path, monkeypatch, capsys, source):
    run = Run(tmp_path, [clip(number) for number in range(2)])
    command = ("--source", source, "--from", f"{server.url}/ok/v.mp4?v={{source_id}}")
    full = lambda *_: open("/dev/full", "wb")  # noqa: E731, SIM115 -- every write to it says that the disk is full
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.acquisition.client.open", full, raising=False)
        patch.setattr(FileDownloader, "sanitize_open", lambda self, name, mode: (full(), name))
        with pytest.raises(SystemExit) as ended:
            run(*command)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "acquire: No space left on device" in said
    assert str(run.media) in said
    assert run.records() == []
    assert not (tmp_path / "receipt.json").exists()
    assert run(*command) == 0
    assert run.attempts() == {clip(0).id: ["ok"], clip(1).id: ["ok"]}


def test_offsets_given_later_are_used(files, tmp_path):
    (tmp_path / "have").mkdir()
    (tmp_path / "have" / "-aBcDeFgHiJ.mp4").write_bytes((files / "v.mp4").read_bytes())
    run = Run(tmp_path, [Clip("0_x", "-aBcDeFgHiJ", None, 2.0)])
    command = ("--source", "folder", "--from", tmp_path / "have")
    assert run(*command) == 0
    (tmp_path / "offsets.csv").write_text("-aBcDeFgHiJ,1,3\n")
    assert run(*command, "--offsets", tmp_path / "offsets.csv") == 0
    assert run.attempts() == {"0_x": ["wrong-length", "ok"]}
    assert first_number(run.media / "0_x.mp4") == 25


def test_manners(server, tmp_path):
    """Pauses between downloads, two at a time only when asked, links instead of copies, streams that are needed."""
    clips = [clip(number) for number in range(4)]
    (tmp_path / "a").mkdir()
    run = Run(tmp_path / "a", clips)
    origin = f"{server.url}/ok/v.mp4?v={{source_id}}"
    started = time.monotonic()
    assert run("--source", "http", "--from", origin, "--pause", "0.4") == 0
    assert time.monotonic() - started >= 3 * 0.4
    assert server.most_active == 1
    (tmp_path / "b").mkdir()
    run = Run(tmp_path / "b", clips)
    assert run("--source", "http", "--from", origin, "--concurrency", "2") == 0
    assert run.receipt()["counts"]["outcomes"] == {"ok": 4}
    assert server.most_active <= 2

    (tmp_path / "have").mkdir()
    silent = media_factory.no_audio(tmp_path / "have" / f"{clips[0].id}.mp4", duration_s=2, width=64, height=48)
    run = Run(tmp_path, clips[:1])
    command = ("--source", "folder", "--from", tmp_path / "have", "--link")
    assert run(*command) == 0
    assert not list(run.media.glob("*.mp4"))
    assert run(*command, "--need", "video", "--retry", "all") == 0
    assert (run.media / silent.name).samefile(silent)
    assert run.attempts() == {clips[0].id: ["no-audio", "ok"]}


def test_usage(tmp_path, capsys):
    assert acquire.main(["--manifest", "x"]) == 2
    assert "--media, --ledger" in capsys.readouterr().err
    run = Run(tmp_path, [clip(1)])
    for wrong in (
        (),
        ("--source", "http"),
        ("--source", "folder", "--from", "a", "--from", "b"),
        ("--source", "youtube", "--concurrency", "0"),
        ("--source", "youtube", "--pause", "-1"),
        ("--dataset", "ave"),
    ):
        assert run(*wrong) == 2
    with pytest.raises(SystemExit, match="0"):
        acquire.main(["--help"])
    assert capsys.readouterr().out.rstrip().endswith("--ledger runs/demo/ledger.jsonl")


def test_annotation_files(tmp_path, capsys):
    real = ROOT.parent / "shared" / "data" / "ave"
    if not real.is_dir():
        pytest.skip("the published annotation files are not here")
    assert acquire.main(["--dataset", "ave", "--annotations", str(tmp_path), "--from", str(real)]) == 0
    assert "published" in capsys.readouterr().out
    (tmp_path / "Annotations.txt").unlink()
    assert acquire.main(["--dataset", "ave", "--annotations", str(tmp_path), "--from", str(tmp_path / "no")]) == 1
    assert "failed" in capsys.readouterr().out
