"""`refine_label/*.npz` of the LLP layout: LSLD's labels of the training clips, in the two steps that made them.

    denoised_label.npz   step 1: of the clip's labels, those that the best caption of the segment names (rule lsld2023)
    final_label.npz      step 2: the same for sound; visual labels that CLIP doubts become numbers between 0 and 1

LSLD trains on the second file; its `--mode label_denoise` makes either one that is absent.
Source: Fan et al., NeurIPS 2023; fyyCS/LSLD@d34c988, `refineLabel` and `getVisualCleanLabel` of its `main.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets.llp import SEGMENTS
from pipeline.labels import MODALITIES, LabelStore, Scoring

# Factors of the cosine (`--event_ratio`, `--noise_ratio`): a doubted label becomes 4 cos, a suspected one 0.4 cos.
EVENT_RATIO, NOISE_RATIO = 4.0, 0.4
DENOISED, FINAL = "denoised_label.npz", "final_label.npz"


def soften(labels: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """Step 2, class by class over all segments of the training set.

    A labelled segment less similar to the class name than some segment without the label is doubted; a segment without
    the label more similar than some labelled one is suspected.  Results outside (0, 1) change nothing.

    Args:
        labels: (N, T, C), 0 and 1.
        cosines: (N, T, C) of segments and class names; NaN where there is none, which changes nothing.
    Returns:
        (N, T, C) float32.
    """
    cosines = np.asarray(cosines, np.float32)
    known, marked = np.isfinite(cosines), np.asarray(labels) > 0
    lowest = np.where(marked & known, cosines, np.inf).min(axis=(0, 1))
    highest = np.where(~marked & known, cosines, -np.inf).max(axis=(0, 1))
    softened = np.asarray(labels, np.float32).copy()
    for chosen, ratio in (
        (marked & (cosines < highest), EVENT_RATIO),
        (~marked & (cosines > lowest), NOISE_RATIO),
    ):
        value = cosines * np.float32(ratio)
        chosen &= (value > 0) & (value < 1)
        softened[chosen] = value[chosen]
    return softened


def name_scores(labels: LabelStore) -> str | None:
    """Key of the visual cosines with bare class names, which `pipeline.pseudolabel --rule lsld2023` stores too."""
    teacher = labels.scoring("visual").teacher.key
    for key in labels.store:
        facts = labels.store.companion(key)
        if facts.get("kind") == "scores" and facts["modality"] == "visual":
            scoring = Scoring.from_dict(facts)
            if scoring.captions == scoring.classes and scoring.scale == 1.0 and scoring.teacher.key == teacher:
                return key
    return None


def write_archives(folder: Path, labels: LabelStore, names: dict[str, str]) -> list[str]:
    """The archives that this label store can give; a clip without labels has zeros.

    Args:
        names: clip id -> file id of the training clips.
    Returns:
        Notes for the person who runs LSLD.
    """
    shape = (len(names), SEGMENTS, len(labels.classes))
    made = {modality: np.zeros(shape, np.float32) for modality in MODALITIES}
    for modality, values in made.items():
        for row, clip_id in enumerate(names):
            if labels.has(clip_id, modality):
                values[row] = labels.read(clip_id, modality)
    notes = [
        # A warning to the reader of the file; this project never passes the flag itself.
        "refine_label/*.npz hold Python objects because LSLD's loader expects them: reading needs allow_pickle=True, "
        "so open only archives that you made yourself"
    ]
    rules = {labels.store.companion(key)["rule"] for key in labels.keys.values()}
    if rules != {"lsld2023"} or len(labels.keys) < len(MODALITIES):
        _write(folder / FINAL, names, made["audio"], made["visual"])
        return [
            *notes,
            f"{FINAL} holds labels by {', '.join(sorted(rules))}, not by LSLD's two steps; {DENOISED} is left out",
        ]
    _write(folder / DENOISED, names, made["audio"], made["visual"])
    if (key := name_scores(labels)) is None:
        return [
            *notes,
            f"{FINAL} is left out: the label store lacks the cosines with bare class names. Run pipeline.pseudolabel "
            "--rule lsld2023 once more, or LSLD's own --mode label_denoise, which makes it from the other file",
        ]
    cosines = np.full(shape, np.nan, np.float32)
    for row, clip_id in enumerate(names):
        if labels.has(clip_id, "visual"):
            cosines[row] = labels.store.read(clip_id, key)
    _write(folder / FINAL, names, made["audio"], soften(made["visual"], cosines))
    return notes


class _AsTensor:
    """Pickled as a CPU tensor: torch's own pickles hold addresses in memory, other ones in every process."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __reduce__(self) -> tuple[Any, ...]:
        import torch

        return torch.FloatTensor, (self.values,)


def _write(path: Path, names: dict[str, str], audio: np.ndarray, visual: np.ndarray) -> None:
    """Keys `label_a`, `label_v`, each a 0-d object array around {file id: CPU tensor (T, C) float32}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {}
    for key, values in (("label_a", audio), ("label_v", visual)):
        tensors = {name: _AsTensor(rows) for name, rows in zip(names.values(), values, strict=True)}
        entries[key] = np.array(tensors, dtype=object)
    beside = path.with_name(path.name + ".partial")
    with open(beside, "wb") as file:
        np.savez(file, **entries)
    beside.replace(path)
