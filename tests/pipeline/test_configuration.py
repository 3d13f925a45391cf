"""What a configuration is refused for, and what becomes of its paths."""

import re

import pytest
import yaml

from pipeline.configuration import SCHEMA, read
from pipeline.exporting import FORMATS
from pipeline.models.table import MODELS
from pipeline.planning import ROOT


@pytest.fixture
def config(tmp_path):
    def write(**values) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({"run": "run", **values}))
        return str(path)

    return write


def test_entries_that_would_share_their_files_are_named_together(config):
    trainings = [{"model": "avel"}, {"model": "avel", "setting": "supervised"}, {"model": "avel", "name": "other"}]
    tunings = [{"name": "r", "visual": "vgg19", "audio": "vggish"}] * 2
    layouts = ["hdf5", {"format": "hdf5", "features": {"audio": "vggish"}}]
    settings = {"encoders": ["vggish"], "train": trainings, "finetune": tunings, "export": layouts}
    with pytest.raises(ValueError, match="`name:`") as caught:
        read(config(datasets={"ave": settings}))
    lines = str(caught.value).splitlines()[1:]
    assert [re.search(r"datasets\S+ \d entries are \S+,", line)[0] for line in lines] == [
        "datasets.ave.train: 2 entries are avel-supervised,",
        "datasets.ave.finetune: 2 entries are r,",
        "datasets.ave.export: 2 entries are hdf5,",
    ]
    settings |= {"train": trainings[1:], "finetune": tunings[:1], "export": layouts[1:]}
    assert len(read(config(datasets={"ave": settings}))["datasets"]["ave"]["train"]) == 2


def test_misspelt_values_are_refused_together(config):
    settings = {"encoders": ["vggish"], "export": ["hdf6"], "train": [{"model": "avell"}]}
    small = {"mem_mb": 1, "runtime_min": 1}
    with pytest.raises(ValueError, match="hdf6") as caught:
        read(config(datasets={"ave": settings}, resources={"extrakt": small}))
    for word in ("hdf6", "avell", "extrakt"):
        assert f"'{word}'" in str(caught.value)


def test_the_schema_lists_what_the_tables_and_the_rules_have():
    schema = yaml.safe_load(SCHEMA.read_text())["properties"]
    dataset = schema["datasets"]["additionalProperties"]["properties"]
    assert dataset["export"]["items"]["oneOf"][0]["enum"] == list(FORMATS)
    assert dataset["train"]["items"]["properties"]["model"]["enum"] == list(MODELS)
    rules = "".join(path.read_text() for path in (ROOT / "workflows" / "rules").glob("*.smk"))
    asked = set(re.findall(r'(?:memory|minutes)\("(\w+)"\)', rules))
    assert set(schema["resources"]["propertyNames"]["enum"]) == asked


def test_the_home_folder_stands_for_a_tilde(config, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = {
        "encoders": ["vggish", "vgg19"], "media": "~/clips", "annotations": "a~b",
        "weights": ["vgg19=~/my.pth", "random:0"], "acquire": {"source": "http", "from": "http://host/~you/{clip_id}"},
    }  # fmt: skip
    found = read(config(run="~/runs", datasets={"ave": settings}))
    assert found["run"] == f"{tmp_path}/runs"
    assert found["datasets"]["ave"] == settings | {
        "media": f"{tmp_path}/clips", "weights": [f"vgg19={tmp_path}/my.pth", "random:0"],
    }  # fmt: skip


@pytest.mark.parametrize("text", ["a: [1", "- a", "a: \xff"])
def test_what_is_no_configuration_is_one_sentence_with_its_file(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.yaml: (not YAML|expected)"):
        read(path)
