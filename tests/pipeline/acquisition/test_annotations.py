"""Annotation files from a folder or a server, checked against the published checksums."""

import hashlib

import pytest

from pipeline.acquisition.annotations import collect, public_url
from pipeline.acquisition.client import Client, ClientSettings
from pipeline.datasets import description
from pipeline.datasets.description import AnnotationFile, Description
from tests.pipeline.acquisition.server import MisbehavingServer

GOOD = b"Church bell&RUhOCu3LNXM&good&0&10\n"
DESCRIBED = Description(
    "x",
    ("a",),
    (
        AnnotationFile("good.txt", hashlib.sha256(GOOD).hexdigest()),
        AnnotationFile("variant.txt", "0" * 64, variants={hashlib.sha256(GOOD).hexdigest(): "an older version"}),
        AnnotationFile("changed.txt", "0" * 64),
        AnnotationFile("missing.txt", "0" * 64, required=False),
        AnnotationFile("by-hand.csv", None, "the dataset's download, see its page", required=False),
    ),
)
STATES = {"good.txt": "fetched", "variant.txt": "fetched", "changed.txt": "failed", "missing.txt": "optional"}


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    for name in ("good.txt", "variant.txt", "changed.txt"):
        (folder / name).write_bytes(GOOD)
    return folder


@pytest.mark.parametrize("over_http", [False, True])
def test_files_are_kept_only_with_a_known_checksum(tmp_path, published, over_http):
    made = tmp_path / "made"
    with MisbehavingServer(published) as server:
        origin = f"{server.url}/ok" if over_http else str(published)
        results = collect(DESCRIBED, made, origin, Client(ClientSettings()))
        assert {result.name: result.state for result in results} == STATES | {"by-hand.csv": "optional"}
        assert sorted(path.name for path in made.iterdir()) == ["good.txt", "variant.txt"]
        asked = len(server.requests)
        again = collect(DESCRIBED, made, origin, Client(ClientSettings()))
    assert [result.state for result in again][:2] == ["here", "here"]
    if over_http:
        missing = next(result.message for result in results if result.name == "missing.txt")
        assert f"by hand: {origin}/missing.txt, to be put at {made / 'missing.txt'}" in missing
        assert not {"/ok/good.txt", "/ok/variant.txt"} & set(server.gets()[asked:])


@pytest.mark.parametrize("name", ["ave", "llp", "unav100"])
def test_every_published_file_with_a_checksum_has_a_public_address(name):
    for file in description.load(name).files:
        url = public_url(file)
        assert (url is not None) == (file.sha256 is not None), file.name
        if url:
            assert url.startswith("https://raw.githubusercontent.com/")
            assert url.endswith("/" + file.name)
    assert public_url(AnnotationFile("x", origin="the authors")) is None
