"""A few real clips of two seconds, made once per test session."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipeline.datasets import demo, demo_media
from pipeline.datasets.demo_scene import DemoPlan, scenes
from pipeline.datasets.description import MANIFESTS, load, read_prompts
from pipeline.manifest import Clip, Manifest

COUNT = 8


@pytest.fixture(scope="session")
def small_clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """Folder of media and a manifest: captioned clips, five of split train and three of val; the last has no file."""
    folder = tmp_path_factory.mktemp("small-clips")
    description = load("demo")
    prompts = read_prompts(MANIFESTS / "demo" / "prompts.tsv", description.classes)
    made = scenes(DemoPlan(train=0, val=0, test=0, teacher=COUNT, broken=0), description.classes)
    for scene in made[:-1]:
        demo_media.write(dataclasses.replace(scene), folder)
    clips = tuple(
        Clip(scene.id, scene.id, 0.0, 2.0, "train" if row < 5 else "val", scene.labels, scene.events)
        for row, scene in enumerate(made)
    )
    captions = {scene.id: demo.captions(scene, prompts) for scene in made}
    return folder, Manifest("demo", clips, description.classes, {"captions": captions})
