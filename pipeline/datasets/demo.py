"""The demo: a small generated dataset, free of rights, with something true to learn for every trainer.

Its folder holds the clips, `annotations/ave` and `annotations/llp` in the published formats of those datasets, and
`annotations/captions.tsv` for the split `teacher`.  `demo-plan.json` is written first and says what is being made;
`demo.json`, the receipt, is written last and says that all of it is there.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from pipeline.datasets import demo_media
from pipeline.datasets.demo_scene import DemoPlan, Scene, scenes
from pipeline.datasets.description import MANIFESTS, Description, Prompt, read_prompts
from pipeline.manifest import Clip, Manifest, ManifestError

PLAN, RECEIPT = "demo-plan.json", "demo.json"
VISUAL_PREFIX, AUDIO_PREFIX = "A photo of ", "This is a sound of "

__all__ = ["DemoPlan", "captions", "generate", "read"]


def read(description: Description, folder: Path, plan: DemoPlan, workers: int = 2) -> Manifest:
    """The demo's manifest; its media are generated first where they are missing or damaged.

    Raises:
        ManifestError: the folder holds something else.
    """
    made = scenes(plan, description.classes)
    prompts = read_prompts(MANIFESTS / description.name / "prompts.tsv", description.classes)
    generate(folder, plan, made, prompts, workers)
    clips = tuple(
        Clip(
            id=scene.id,
            source_id=scene.id,
            start_s=0.0,
            duration_s=float(scene.duration_s),
            split=scene.split,
            labels=scene.labels,
            events=scene.events,
        )
        for scene in made
    )
    facts = description.facts | {
        "plan": plan.to_dict(),
        "broken": {scene.id: scene.broken for scene in made if scene.broken},
        "captions": {scene.id: captions(scene, prompts) for scene in made if scene.split == "teacher"},
    }
    return Manifest(description.name, clips, description.classes, facts)


def captions(scene: Scene, prompts: Iterable[Prompt]) -> dict[str, str]:
    """What a person would write under the pictures (`visual`) and under the sound (`audio`) of a teacher clip."""
    of = {prompt.label: prompt for prompt in prompts}
    seen = [of[stretch.label].visual.removeprefix(VISUAL_PREFIX).removesuffix(".") for stretch in scene.sights]
    heard = [of[stretch.label].audio.removeprefix(AUDIO_PREFIX) for stretch in scene.sounds]
    return {
        "visual": f"{VISUAL_PREFIX}{' and '.join(seen) or 'nothing'}.",
        "audio": f"{AUDIO_PREFIX}{' and '.join(heard) or 'nothing'}",
    }


def generate(folder: Path, plan: DemoPlan, made: tuple[Scene, ...], prompts: tuple[Prompt, ...], workers: int) -> None:
    """Make what is missing: clips, annotation files, and last the receipt with the SHA-256 of every file.

    Raises:
        ManifestError: the folder has files in it that this did not write.
    """
    whole = _whole(folder, plan)
    missing = [scene for scene in made if f"{scene.id}.mp4" not in whole and scene.broken != "absent"]
    if not missing and (folder / RECEIPT).is_file():
        return
    (folder / RECEIPT).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / PLAN, json.dumps(plan.to_dict(), indent=1))
    print(f"demo: generating {len(missing)} clips in {folder}", file=sys.stderr)
    job = partial(demo_media.write, folder=folder)
    if workers > 1 and len(missing) > 4:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
            list(pool.map(job, missing, chunksize=4))
    else:
        for scene in missing:
            job(scene)
    _write_annotations(folder / "annotations", made, prompts)
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in (folder / f"{scene.id}.mp4" for scene in made if scene.broken != "absent")
    }
    _write(folder / RECEIPT, json.dumps({"plan": plan.to_dict(), "files": files}, indent=1))


def _end_with_parent() -> None:
    """Worker processes whose parent was killed would otherwise wait for work for ever."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _whole(folder: Path, plan: DemoPlan) -> set[str]:
    """Names of the clips that need not be made again.  Clips of another plan are removed."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return set()
    if not (folder / PLAN).is_file():
        raise ManifestError(
            f"demo media in {folder}",
            [f"{folder}: not empty and not a demo folder ({PLAN} is missing); name a new one"],
        )
    for left_over in folder.glob("demo-*.partial"):
        left_over.unlink()
    clips = {path.name: path for path in folder.glob("demo-*.mp4")}
    if _json(folder / PLAN) != plan.to_dict():
        (folder / RECEIPT).unlink(missing_ok=True)
        for path in clips.values():
            path.unlink()
        return set()
    if not (folder / RECEIPT).is_file():
        return set(clips)  # interrupted: each clip got its name only when it was whole
    files = _json(folder / RECEIPT).get("files", {})
    return {name for name, path in clips.items() if name in files and _sha256(path) == files[name]["sha256"]}


def _write_annotations(folder: Path, made: tuple[Scene, ...], prompts: tuple[Prompt, ...]) -> None:
    """The same truth in the formats of AVE (one audio-visual event) and LLP (what is heard, what is seen)."""
    import h5py
    import numpy as np

    ave, llp = folder / "ave", folder / "llp"
    for path in (ave, llp):
        path.mkdir(parents=True, exist_ok=True)
    clips = [scene for scene in made if scene.split != "teacher"]
    lines = [f"{clip.main.label}&{clip.id}&good&{clip.main.start_s}&{clip.main.end_s}" for clip in clips]
    _write(ave / "Annotations.txt", "\n".join(lines) + "\n")
    for split, name in (("train", "AVVP_train.csv"), ("val", "AVVP_val_pd.csv"), ("test", "AVVP_test_pd.csv")):
        rows = [index for index, clip in enumerate(clips) if clip.split == split]
        unfinished = ave / f"{split}_order.h5.partial"
        with h5py.File(unfinished, "w") as file:
            file["order"] = np.array(rows, dtype=np.int64)
        os.replace(unfinished, ave / f"{split}_order.h5")
        table = [f"{clips[row].id}_0_10\t{','.join(clips[row].labels)}" for row in rows]
        _write(llp / name, "\n".join(["filename\tevent_labels", *table]) + "\n")
    for modality in ("audio", "visual"):
        table = [
            f"{clip.id}_0_10\t{stretch.start_s}\t{stretch.end_s}\t{stretch.label}"
            for clip in clips
            if clip.split != "train"
            for stretch in (clip.sounds if modality == "audio" else clip.sights)
        ]
        _write(llp / f"AVVP_eval_{modality}.csv", "\n".join(["filename\tonset\toffset\tevent_labels", *table]) + "\n")
    table = [(scene.id, captions(scene, prompts)) for scene in made if scene.split == "teacher"]
    rows = [f"{name}\t{said['visual']}\t{said['audio']}" for name, said in table]
    _write(folder / "captions.tsv", "\n".join(["id\tvisual\taudio", *rows]) + "\n")


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".partial")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
