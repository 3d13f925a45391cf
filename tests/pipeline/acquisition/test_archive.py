"""Archives give what they hold, and hostile ones are refused before anything is unpacked."""

import io
import stat
import tarfile
import zipfile

import pytest

from pipeline.acquisition.archive import ArchiveSource, Limits
from pipeline.manifest import Clip, ManifestError

CLIP = Clip("0000_-aBcDeFgHiJ", "-aBcDeFgHiJ", None, 10.0)


def _zip(path, *entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def _tar(path, *members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data, kind in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size = kind, len(data)
            entry.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_members_are_found_by_id_and_come_out_whole(tmp_path, kind):
    data = bytes(range(256)) * 500
    path = tmp_path / f"AVE.{kind}"
    if kind == "zip":
        _zip(path, ("AVE/notes.txt", b"x"), ("AVE/-aBcDeFgHiJ.mp4", data))
    else:
        entries = [("./AVE/notes.txt", b"x", tarfile.REGTYPE), ("./AVE/-aBcDeFgHiJ.mp4", data, tarfile.REGTYPE)]
        _tar(path, *entries, mode="w:" + kind.partition(".")[2])
    source = ArchiveSource([path])
    place = source.locate(CLIP)
    assert place.name == "AVE/-aBcDeFgHiJ.mp4"
    assert source.size(place) == len(data)
    folder = tmp_path / "work"
    folder.mkdir()
    fetched = source.fetch(place, folder)
    assert fetched.path.read_bytes() == data
    assert fetched.path.parent == folder
    assert source.locate(Clip("x", "x")) is None


@pytest.mark.parametrize("name", ["../evil.mp4", "a/../../evil.mp4", "/evil.mp4", "C:/evil.mp4", "a\\..\\evil.mp4"])
def test_names_that_lead_outside_are_refused(tmp_path, name):
    good = ("-aBcDeFgHiJ.mp4", b"x")
    with pytest.raises(ManifestError, match=r"leads outside|drive letter"):
        ArchiveSource([_tar(tmp_path / "x.tar", (*good, tarfile.REGTYPE), (name, b"x", tarfile.REGTYPE))])
    with pytest.raises(ManifestError, match=r"leads outside|drive letter"):
        ArchiveSource([_zip(tmp_path / "x.zip", good, (name, b"x"))])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar_are_refused(tmp_path, kind):
    with pytest.raises(ManifestError, match=r"link|special"):
        ArchiveSource([_tar(tmp_path / "x.tar", ("-aBcDeFgHiJ.mp4", b"", kind))])


def test_links_in_zip_are_refused(tmp_path):
    entry = zipfile.ZipInfo("-aBcDeFgHiJ.mp4")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(ManifestError, match="a link"):
        ArchiveSource([_zip(tmp_path / "x.zip", (entry, "/etc/passwd"))])


def test_bombs_are_refused_quickly(tmp_path):
    zeros = bytes(20 << 20)
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("-aBcDeFgHiJ.mp4", zeros)
    _tar(
        tmp_path / "b.tar.gz",
        ("-aBcDeFgHiJ.mp4", zeros, tarfile.REGTYPE),
        ("b.mp4", b"x", tarfile.REGTYPE),
        mode="w:gz",
    )
    for name in ("b.zip", "b.tar.gz"):
        with pytest.raises(ManifestError, match="as in a bomb"):
            ArchiveSource([tmp_path / name])


def test_overlapping_members_are_refused(tmp_path):
    """Many directory entries that all point at one member: small files that unpack to terabytes."""
    path = _zip(tmp_path / "x.zip", ("a.mp4", bytes(1000)), ("b.mp4", bytes(1000)), ("c.mp4", bytes(1000)))
    data = bytearray(path.read_bytes())
    first = data.index(b"PK\x01\x02")
    for at in (
        data.index(b"PK\x01\x02", first + 1),
        data.index(b"PK\x01\x02", data.index(b"PK\x01\x02", first + 1) + 1),
    ):
        data[at + 42 : at + 46] = data[first + 42 : first + 46]
    central = bytes(data[first:])
    short = bytes(data[: data.index(b"PK\x03\x04", 4)])
    end = bytearray(central)
    at = end.index(b"PK\x05\x06")
    end[at + 16 : at + 20] = len(short).to_bytes(4, "little")
    path.write_bytes(short + bytes(end))
    with pytest.raises(ManifestError, match=r"overlap|unreadable"):
        ArchiveSource([path])


def test_limits_encryption_and_rubbish(tmp_path):
    path = _zip(tmp_path / "x.zip", ("a.mp4", bytes(100)), ("b.mp4", bytes(100)))
    with pytest.raises(ManifestError, match="more than 50") as caught:
        ArchiveSource([path], limits=Limits(member_bytes=50))
    assert len(caught.value.problems) == 2  # all at once
    with pytest.raises(ManifestError, match="200 bytes unpacked"):
        ArchiveSource([path], limits=Limits(total_bytes=150))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ManifestError, match="encrypted"):
        ArchiveSource([path])
    (tmp_path / "y.zip").write_bytes(b"no archive")
    with pytest.raises(ManifestError) as caught:
        ArchiveSource([tmp_path / "y.zip", tmp_path / "z.tar"])
    assert len(caught.value.problems) == 2
