"""Where pseudo-labels are: a feature store whose rows are scores and labels of classes instead of features.

    L/<teacher>-scores.<recipe>.<hash>/values   (clip, segment, class) float32, scale x cosine; NaN where no row
                                      /text     (class, feature) float32, the caption embeddings that made them
                                      /class    (class) names
    L/<teacher>-labels.<mask>.<hash>/values     (clip, segment, class) uint8

Blocks, commits, outcomes and verification are those of `pipeline.store`; `python -m pipeline.verify` checks a label
store too.  A scores key stands for teacher weights, feature and captions; a labels key for scores, rule, thresholds
and mask, so other thresholds are another key, and no encoder has to run for it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extractors.spec import FeatureSpec, Grid
from pipeline.layout import JOB_CLIPS, Companion
from pipeline.manifest import Manifest
from pipeline.outcomes import MEANING
from pipeline.store import FeatureStore, NoRows, StoreError

MODALITIES = ("audio", "visual")


@dataclass(frozen=True)
class Scoring:
    """How scores of one modality come about.

    Args:
        modality: `visual` or `audio`.
        teacher: spec of the stored features that were compared with the captions.
        classes, captions: in class order.
        scale: factor of the cosine.
        per_segment: feature rows that are averaged for one label segment.
    """

    modality: str
    teacher: FeatureSpec
    classes: tuple[str, ...]
    captions: tuple[str, ...]
    scale: float
    per_segment: int = 1

    @property
    def spec(self) -> FeatureSpec:
        """Spec of the scores; its key changes with the teacher's weights and with every caption."""
        wording = hashlib.sha256(json.dumps([self.classes, self.captions]).encode()).hexdigest()
        grid, count = self.teacher.grid, self.per_segment
        return FeatureSpec(
            encoder=f"{self.teacher.encoder}-scores",
            recipe=self.teacher.recipe,
            modality=self.modality,
            layer="logits",
            preprocess=(f"feature {self.teacher.key}", f"mean over {count} rows", f"captions sha256:{wording}"),
            postprocess=("cosine", f"times {self.scale!r}"),
            grid=Grid(grid.window_s * count, grid.hop_s * count, grid.count // count if grid.count else None),
            sampler=None,
            shape=(len(self.classes),),
            precision=self.teacher.precision,
            weights=self.teacher.weights,
        )

    def companion(self, text: np.ndarray) -> Companion:
        facts = dataclasses.asdict(self) | {"teacher": self.teacher.to_dict(), "kind": "scores"}
        names = np.array(self.classes, dtype=object)
        return Companion(
            facts,
            ("class",),
            {"class": (("class",), names), "text": (("class", "feature"), np.asarray(text, np.float32))},
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scoring:
        values = {name: value for name, value in values.items() if name != "kind"}
        values["teacher"] = FeatureSpec.from_dict(values["teacher"])
        return cls(**values | {name: tuple(values[name]) for name in ("classes", "captions")})


@dataclass(frozen=True)
class Labelling:
    """How labels come from scores.

    Args:
        scores: key of the scores.
        rule: `valor2023` (strictly greater than the class threshold) or `lsld2023` (best caption of the clip's labels).
        thresholds: in class order; empty where the rule has none.
        mask: `video-label`: only classes of the clip's weak label may fire; `none`: all may.
        origin: where the thresholds come from, in words.
    """

    scores: str
    rule: str
    thresholds: tuple[float, ...]
    mask: str
    origin: str = ""

    def spec(self, scoring: Scoring) -> FeatureSpec:
        """Spec of the labels; `origin` has no part in its key."""
        numbers = ", ".join(repr(float(value)) for value in self.thresholds)
        return dataclasses.replace(
            scoring.spec,
            encoder=f"{scoring.teacher.encoder}-labels",
            recipe=self.mask,
            layer="labels",
            preprocess=(f"scores {self.scores}",),
            postprocess=(f"rule {self.rule}", f"strictly greater than [{numbers}]", f"mask {self.mask}"),
            dtype="uint8",
        )

    def companion(self, scoring: Scoring) -> Companion:
        facts = dataclasses.asdict(self) | {
            "kind": "labels",
            "modality": scoring.modality,
            "classes": scoring.classes,
            "teacher": scoring.teacher.name,
        }
        names = np.array(scoring.classes, dtype=object)
        return Companion(facts, ("class",), {"class": (("class",), names)})


class LabelStore:
    """Pseudo-labels and scores of a manifest's clips, one set of labels per modality.

    Args:
        path: folder that `pipeline.pseudolabel` wrote.
        mask: which labels; by default `video-label` if the folder has them, else `none`.
        keys: modality -> labels key, where the folder has several for one modality and mask.
    Raises:
        StoreError: no label store, no labels of that mask, several sets of them, modalities with different classes.
    """

    def __init__(
        self, path: str | os.PathLike[str], mask: str | None = None, keys: dict[str, str] | None = None
    ) -> None:
        self.store = FeatureStore.open(path)
        self.path = Path(path)
        keys_there = self.store.keys()
        facts = {key: self.store.companion(key) for key in keys_there}
        made = {key: found for key, found in facts.items() if found.get("kind") == "labels"}
        if not made:
            raise StoreError(f"{path}: holds no pseudo-labels; `python -m pipeline.pseudolabel` makes them")
        masks = sorted({found["mask"] for found in made.values()})
        self.mask = mask or ("video-label" if "video-label" in masks else masks[0])
        if self.mask not in masks:
            raise StoreError(f"{path}: no labels with mask {self.mask!r}; it has {', '.join(masks)}")
        self.keys: dict[str, str] = {}
        for modality in MODALITIES:
            wanted = (keys or {}).get(modality)
            fits = [
                key
                for key, found in made.items()
                if found["modality"] == modality and found["mask"] == self.mask and wanted in (None, key)
            ]
            if len(fits) > 1 or (wanted and not fits):
                have = ", ".join(key for key, found in made.items() if found["modality"] == modality)
                raise StoreError(
                    f"{path}: no single set of {modality} labels with mask {self.mask}"
                    f"{f' called {wanted}' if wanted else ''}; it has {have}. Label into a folder of its own."
                )
            if fits:
                self.keys[modality] = fits[0]
        found = {modality: tuple(made[key]["classes"]) for modality, key in self.keys.items()}
        if len(set(found.values())) > 1:
            raise StoreError(f"{path}: audio and visual labels are of different classes")
        self.classes: tuple[str, ...] = next(iter(found.values()))
        self._outcomes: dict[str, dict[str, str]] = {}
        self._scores = {modality: made[key]["scores"] for modality, key in self.keys.items()}

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], mask: str | None = None, keys: dict[str, str] | None = None
    ) -> LabelStore:
        return cls(path, mask, keys)

    def labels(self, clip_id: str, modality: str) -> np.ndarray:
        """(T, C) uint8, 0 and 1.

        Raises:
            StoreError: no teacher for the modality, unknown clip, or the clip has no labels; the message says why.
        """
        return self._read(clip_id, self._key(modality))

    # The name under which trainers and exports ask for labels.
    read = labels

    def times(self, modality: str, rows: int) -> np.ndarray:
        """(rows, 2) float64: start and end in seconds of the first rows of any clip."""
        return row_times(self.store.spec(self._key(modality)).grid, rows)

    def scores(self, clip_id: str, modality: str) -> np.ndarray:
        """(T, C) float32, scale x cosine, from which the labels were made."""
        self._key(modality)
        return self._read(clip_id, self._scores[modality])

    def text(self, modality: str) -> np.ndarray:
        """(C, D) float32 caption embeddings of the classes by the frozen teacher: LINK's text features."""
        self._key(modality)
        return self.store.array(self._scores[modality], "text")[...]

    def thresholds(self, modality: str) -> np.ndarray:
        """(C,) float64; empty where the rule has none."""
        return np.array(self.store.companion(self._key(modality))["thresholds"], dtype=np.float64)

    def scoring(self, modality: str) -> Scoring:
        """Teacher, captions and scale."""
        self._key(modality)
        return Scoring.from_dict(self.store.companion(self._scores[modality]))

    def outcome(self, clip_id: str, modality: str) -> str:
        """Outcome of the clip: `ok`, or why it has no labels."""
        return self.outcomes(modality)[clip_id]

    def outcomes(self, modality: str) -> dict[str, str]:
        """Outcome of every clip, read once."""
        if modality not in self._outcomes:
            self._outcomes[modality] = self.store.outcomes(self._key(modality))
        return self._outcomes[modality]

    def has(self, clip_id: str, modality: str) -> bool:
        """Whether the clip has labels of this modality."""
        return modality in self.keys and self.outcomes(modality).get(clip_id) == "ok"

    def _key(self, modality: str) -> str:
        if modality not in self.keys:
            raise StoreError(f"{self.path}: no {modality} labels; it has {', '.join(self.keys)}")
        return self.keys[modality]

    def _read(self, clip_id: str, key: str) -> np.ndarray:
        try:
            return self.store.read(clip_id, key)
        except NoRows as error:
            raise StoreError(
                f"{self.path}: clip {clip_id} has no pseudo-labels: {MEANING[error.outcome]} ({error.outcome})"
            ) from error


def row_times(grid: Grid, rows: int) -> np.ndarray:
    """(rows, 2) float64: start and end in seconds of label rows, as the store's `segments` hold them."""
    starts_s = np.arange(rows) * grid.hop_s
    return np.stack([starts_s, starts_s + grid.window_s], axis=1)


def create(
    path: str | os.PathLike[str],
    manifest: Manifest,
    scorings: Iterable[tuple[Scoring, np.ndarray]] = (),
    labellings: Iterable[tuple[Labelling, Scoring]] = (),
    job_clips: int = JOB_CLIPS,
) -> FeatureStore:
    """Plan scores (with their text embeddings) and labels; what is planned already stays as it is."""
    planned = {scoring.spec.key: (scoring.spec, scoring.companion(text)) for scoring, text in scorings}
    for labelling, scoring in labellings:
        spec = labelling.spec(scoring)
        planned[spec.key] = (spec, labelling.companion(scoring))
    companions = {key: companion for key, (_, companion) in planned.items()}
    return FeatureStore.create(path, manifest, [spec for spec, _ in planned.values()], job_clips, companions)
