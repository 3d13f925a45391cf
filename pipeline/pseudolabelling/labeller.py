"""From stored features to a label store: scores first, then labels from the scores, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import labels
from pipeline.content import rows_digest
from pipeline.datasets.llp import weak_labels
from pipeline.labels import Labelling, Scoring
from pipeline.manifest import Manifest
from pipeline.outcomes import MEANING
from pipeline.pseudolabelling import rules
from pipeline.pseudolabelling.captions import Captions
from pipeline.pseudolabelling.teachers import TextSide, segment_rows
from pipeline.pseudolabelling.thresholds import calibrate
from pipeline.pseudolabelling.truth import true_rows
from pipeline.store import FeatureStore, NoRows, StoreError


@dataclass(frozen=True)
class Labeller:
    """Labels the clips of a manifest by stored features.

    Args:
        manifest: whose clips are labelled; the features may be of a larger one.
        features: store of the teachers' features.
        out: folder of the label store.
        job_clips: clips per block at most.
    """

    manifest: Manifest
    features: FeatureStore
    out: Path
    job_clips: int = labels.JOB_CLIPS

    def scoring(self, captions: Captions, text: TextSide, cosine: bool = False) -> Scoring:
        """Scores of every clip by one teacher; what is stored already is taken, without loading the teacher.

        Args:
            cosine: leave the logit scale out (LSLD).
        Raises:
            ValueError: the captions' space has another size than the features'.
        """
        known = self._known(captions, text, cosine)
        if known is None:
            embedded = text.encode(captions.texts)
            if embedded.shape[1:] != tuple(text.spec.shape):
                raise ValueError(
                    f"{text.spec.name}: captions have {embedded.shape[1]} numbers, the stored rows {text.spec.shape[0]}"
                )
            known = Scoring(
                captions.modality,
                text.spec,
                captions.classes,
                captions.texts,
                1.0 if cosine else text.scale,
                segment_rows(text.spec),
            )
            labels.create(self.out, self.manifest, [(known, embedded)], job_clips=self.job_clips)
        self._score(known)
        return known

    def _known(self, captions: Captions, text: TextSide, cosine: bool) -> Scoring | None:
        """The stored scoring of these captions by these features."""
        if not (self.out / "zarr.json").exists():
            return None
        store = FeatureStore.open(self.out)
        keys = store.keys()
        for key in keys:
            facts = store.companion(key)
            if facts.get("kind") == "scores":
                scoring = Scoring.from_dict(facts)
                same = (scoring.teacher.key, scoring.classes, scoring.captions) == (
                    text.spec.key,
                    captions.classes,
                    captions.texts,
                )
                if same and (scoring.scale == 1.0) == cosine:
                    return scoring
        return None

    def _store(self) -> FeatureStore:
        return FeatureStore.create(self.out, self.manifest, [], self.job_clips)

    def _score(self, scoring: Scoring) -> None:
        store, key = self._store(), scoring.spec.key
        embedded = store.array(key, "text")[...]
        source = scoring.teacher.key

        def of(clip_id: str) -> np.ndarray:
            rows = rules.pool(self.features.read(clip_id, source), scoring.per_segment)
            return rules.score(rows, embedded, scoring.scale)

        self._write(store, scoring, key, of)

    def label(self, scoring: Scoring, labelling: Labelling) -> str:
        """Labels by thresholds.  Returns the key."""
        spec = labelling.spec(scoring)
        store = labels.create(self.out, self.manifest, labellings=[(labelling, scoring)], job_clips=self.job_clips)
        weak = dict(zip(self.manifest.ids, weak_labels(self.manifest.clips, scoring.classes), strict=True))
        thresholds = np.array(labelling.thresholds)

        def of(clip_id: str) -> np.ndarray:
            allowed = weak[clip_id] if labelling.mask == "video-label" else None
            return rules.fire(store.read(clip_id, labelling.scores), thresholds, allowed)

        self._write(store, scoring, spec.key, of, labelling.scores)
        return spec.key

    def choose(self, scoring: Scoring, labelling: Labelling, captions: Captions, text: TextSide) -> str:
        """Labels by LSLD's captions.  Returns the key."""
        spec = labelling.spec(scoring)
        store = labels.create(self.out, self.manifest, labellings=[(labelling, scoring)], job_clips=self.job_clips)
        weak = dict(zip(self.manifest.ids, weak_labels(self.manifest.clips, scoring.classes), strict=True))
        prefix = captions.shared_prefix
        words = tuple(caption.removeprefix(prefix) for caption in captions.texts)
        encoded: dict[tuple[int, ...], np.ndarray] = {}

        def of(clip_id: str) -> np.ndarray:
            store.read(clip_id, labelling.scores)  # a clip without scores has no labels either
            own = tuple(int(index) for index in np.flatnonzero(weak[clip_id]))
            rows = rules.pool(self.features.read(clip_id, scoring.teacher.key), scoring.per_segment)
            if not 0 < len(own) <= rules.MOST_CANDIDATES:
                return np.repeat(weak[clip_id][None].astype(np.uint8), len(rows), axis=0)
            offered = rules.candidates(words, own, prefix)
            if own not in encoded:
                encoded[own] = text.encode(tuple(candidate.caption for candidate in offered))
            return rules.choose(rules.score(rows, encoded[own], 1.0), offered, len(words))

        self._write(store, scoring, spec.key, of, labelling.scores)
        return spec.key

    def _write(self, store: FeatureStore, scoring: Scoring, key: str, of, after: str | None = None) -> None:
        """Make the blocks of a key that are missing, or whose rows upstream were made anew since.

        A clip without rows keeps the outcome that it has upstream.
        """
        upstream, source = (store, after) if after else (self.features, scoring.teacher.key)
        reasons = upstream.reasons(source)
        known = set(upstream.ids)
        for block, span in list(store.blocks(key)):
            stored = [clip.id for clip in self.manifest.clips[span.start : span.stop] if clip.id in known]
            made_from = rows_digest(upstream, source, stored)
            record = store.commit(key, block)
            if record is not None and record.get("made_by") == made_from:
                continue
            writer = store.writer(key, block, made_from)
            for row in span:
                clip = self.manifest.clips[row]
                if clip.id not in known:
                    writer.fail(row, "absent", "the feature store does not have the clip")
                    continue
                try:
                    rows = of(clip.id)
                except NoRows as error:
                    if error.outcome == "pending":
                        raise StoreError(
                            f"{upstream.path}: {source} is not finished (clip {clip.id}: {MEANING['pending']}); "
                            "let extract finish first"
                        ) from error
                    writer.fail(row, error.outcome, reasons.get(clip.id, MEANING[error.outcome]))
                    continue
                writer.put(row, rows, labels.row_times(scoring.spec.grid, len(rows)))
            writer.commit()

    def calibrated(self, scoring: Scoring, split: str) -> dict[str, dict]:
        """Per class the F-optimal threshold on a split with dense labels.

        Raises:
            ValueError: the split has no dense labels, or no clip of it has scores.
        """
        clips = self.manifest.split(split)
        if not any(clip.events for clip in clips):
            have = ", ".join(f"{name} {count}" for name, count in self.manifest.splits().items())
            raise ValueError(f"--calibrate {split}: no clip of it has dense labels; splits are {have}")
        store = self._store()
        scores, truth = [], []
        for clip in clips:
            try:
                rows = store.read(clip.id, scoring.spec.key)
            except NoRows:
                continue
            times_s = labels.row_times(scoring.spec.grid, len(rows))
            scores.append(rows)
            truth.append(true_rows(clip, scoring.classes, scoring.modality, times_s))
        if not scores:
            raise ValueError(f"--calibrate {split}: no clip of it has {scoring.modality} scores")
        return calibrate(np.concatenate(scores), np.concatenate(truth), scoring.classes)
