"""What holds for every dataset under `manifests/`: a complete description, prompts for every class, a command."""

import re

import pytest

from pipeline import prepare
from pipeline.datasets import description

NAMES = sorted(path.parent.name for path in description.MANIFESTS.glob("*/dataset.yaml"))


def test_every_described_dataset_has_a_command_and_the_other_way_round():
    assert set(NAMES) == set(prepare.DATASETS) - {"folder"}


@pytest.mark.parametrize("name", NAMES)
def test_a_description_says_what_a_user_must_know(name):
    described = description.load(name)
    for fact in ("title", "task", "citation", "licence", "prompts"):
        assert described.facts.get(fact), fact
    assert set(described.facts["licence"]) == {"annotations", "media"}


@pytest.mark.parametrize("name", NAMES)
def test_published_files_have_a_checksum_and_an_origin(name):
    described = description.load(name)
    assert described.files or name == "demo"
    for file in described.files:
        assert file.origin
        assert file.sha256 or not file.required
        for digest in filter(None, (file.sha256, *file.variants)):
            assert re.fullmatch("[0-9a-f]{64}", digest)


@pytest.mark.parametrize("name", NAMES)
def test_every_class_has_prompts_that_say_whose_they_are(name):
    described = description.load(name)
    prompts = description.read_prompts(description.MANIFESTS / name / "prompts.tsv", described.classes)
    assert len({prompt.label for prompt in prompts}) == len(described.classes)
    for prompt in prompts:
        assert prompt.visual.startswith("A photo of ")
        assert prompt.audio.startswith("This is a sound of ")
        assert prompt.source in ("ours", "valor2023")
        assert (prompt.visual_threshold is None) == (name == "demo")


@pytest.mark.parametrize(("name", "classes"), [("ave", 28), ("llp", 25), ("unav100", 100), ("demo", 6)])
def test_vocabularies(name, classes):
    described = description.load(name)
    assert len(described.classes) == classes
    if "counts" in described.facts:
        counts = described.facts["counts"]
        assert counts["classes"] == classes
        assert sum(counts["splits"].values()) == counts["clips"]
    if "background_index" in described.facts:
        assert described.facts["background_index"] == classes
