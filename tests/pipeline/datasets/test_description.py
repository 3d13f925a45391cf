"""Descriptions: tables are read strictly, with file and line for everything wrong in them."""

import hashlib

import pytest

from pipeline.datasets import description
from pipeline.datasets.description import AnnotationFile, Description
from pipeline.manifest import ManifestError

PROMPTS = "class\tvisual\tvisual_threshold\taudio\taudio_threshold\tsource\tnote\n"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_classes_in_order(tmp_path):
    assert description.read_classes(write(tmp_path / "c.tsv", "index\tname\n0\tBark, loud\n1\tÉ\n")) == (
        "Bark, loud",
        "É",
    )


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("index\tname\n0\ta\n2\tb\n", ":3: index '2', expected 1"),
        ("index\tname\n0\ta\n1\ta\n", ":3: class 'a' is listed twice"),
        ("name\n0\n", ":1: columns are"),
        ("index\tname\n0\n", ":2: expected 2 fields"),
        ("index\tname\n0\ta\tb\n", ":2: expected 2 fields"),
    ],
)
def test_bad_classes(tmp_path, text, fragment):
    with pytest.raises(ManifestError) as caught:
        description.read_classes(write(tmp_path / "c.tsv", text))
    assert fragment in caught.value.problems[0]


def test_prompts_come_in_class_order_and_keep_their_spelling(tmp_path):
    path = write(
        tmp_path / "p.tsv", PROMPTS + 'b\tA photo of a "b".\t-1.5\tthe sound\t2\tours\tnote\na\tA.\t\tB\t\tours\t\n'
    )
    first, second = description.read_prompts(path, ("a", "b"))
    assert (first.label, first.visual_threshold, first.audio_threshold, first.note) == ("a", None, None, "")
    assert (second.visual, second.visual_threshold, second.audio_threshold) == ('A photo of a "b".', -1.5, 2.0)


def test_bad_prompts_are_listed_at_once(tmp_path):
    rows = ["a\tA.\thigh\tB\t1\tours\t", "c\tA.\t1\tB\t1\tours\t", "a\tA.\t1\tB\t1\tours\t"]
    with pytest.raises(ManifestError) as caught:
        description.read_prompts(write(tmp_path / "p.tsv", PROMPTS + "\n".join(rows) + "\n"), ("a", "b"))
    text = "\n".join(caught.value.problems)
    for fragment in (
        ":2: visual_threshold 'high'",
        ":3: class 'c'",
        ":4: class 'a' has two",
        "class 'b' has no prompt",
    ):
        assert fragment in text


def test_checksums(tmp_path):
    digests = {name: hashlib.sha256(write(tmp_path / name, name).read_bytes()).hexdigest() for name in "abcd"}
    described = Description(
        "toy",
        (),
        (
            AnnotationFile("a", digests["a"]),
            AnnotationFile("b", "0" * 64, variants={digests["b"]: "older"}),
            AnnotationFile("c", "0" * 64, "its page"),
            AnnotationFile("d"),
            AnnotationFile("e", "0" * 64, "its page"),
            AnnotationFile("f", required=False),
        ),
    )
    found, problems = described.verify(tmp_path)
    assert {name: entry["version"] for name, entry in found.items()} == {
        "a": "published",
        "b": "older",
        "c": "unknown",
        "d": "unknown",
    }
    assert [problem.split(":")[0] for problem in problems] == [str(tmp_path / "c"), str(tmp_path / "e")]
    assert digests["c"] in problems[0]
    assert "0" * 64 in problems[0]
    assert "its page" in problems[1]
    assert [problem.split(":")[0] for problem in described.verify(tmp_path, True)[1]] == [str(tmp_path / "e")]


def test_an_unknown_dataset_is_an_error():
    with pytest.raises(ManifestError, match=r"dataset\.yaml"):
        description.load("nowhere")
