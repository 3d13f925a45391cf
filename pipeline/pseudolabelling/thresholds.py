"""Thresholds: published ones, which belong to one teacher, and calibrated ones, which say whose they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from extractors.spec import FeatureSpec
from pipeline.labels import Scoring
from pipeline.pseudolabelling.captions import Captions
from pipeline.run import write_json

_FORMAT = 1
_CURVE_POINTS = 60
#: The features whose logits the numbers in the prompt tables were chosen on; ours follow VALOR's scale.
TUNED_FOR = {"visual": "clip-l14:valor2023", "audio": "clap:valor2023"}


def published(captions: Captions, teacher: FeatureSpec, accept: bool = False) -> tuple[float, ...]:
    """Thresholds of the prompt table, if they were made for this teacher.

    Args:
        accept: use them with another teacher all the same.
    Raises:
        ValueError: classes without a threshold, or another teacher.
    """
    lacking = [name for name, value in zip(captions.classes, captions.thresholds, strict=True) if value is None]
    if lacking:
        raise ValueError(
            f"{captions.modality}: no threshold for {len(lacking)} of {len(captions.classes)} classes "
            f"({', '.join(lacking[:5])}); pass --calibrate SPLIT or --thresholds FILE"
        )
    wanted = TUNED_FOR[captions.modality]
    if teacher.name != wanted and not accept:
        raise ValueError(
            f"{captions.modality}: the thresholds of the prompt table are for {wanted}, the teacher is {teacher.name}, "
            "whose logits have another scale. Pass --calibrate SPLIT (with dense labels), --thresholds FILE, or "
            "--accept-thresholds to use them all the same."
        )
    return tuple(float(value) for value in captions.thresholds)


def curve(scores: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F of `score > threshold` at every threshold that changes a decision.

    Args:
        scores: (N,) of one class.
        truth: (N,) 0 and 1.
    Returns:
        `threshold`, `precision`, `recall`, `f`, ascending in threshold: from below the lowest score (everything fires)
        to the highest (nothing does).  Between two scores the threshold is the middle.
    """
    order = np.argsort(scores, kind="stable")[::-1]
    ordered, hits = np.asarray(scores, np.float64)[order], np.cumsum(np.asarray(truth)[order] > 0)
    last = np.flatnonzero(np.append(ordered[1:] < ordered[:-1], True))  # fire down to here: whole ties only
    below = np.append(ordered[last[:-1] + 1], 2 * ordered[-1] - ordered[0] - 1.0)
    fired, found, positives = last + 1.0, hits[last].astype(np.float64), float(hits[-1])
    threshold = np.concatenate([[ordered[0]], (ordered[last] + below) / 2])
    found, fired = np.concatenate([[0.0], found]), np.concatenate([[0.0], fired])
    precision = np.divide(found, fired, out=np.ones_like(found), where=fired > 0)
    recall = found / positives if positives else np.zeros_like(found)
    total = fired + positives
    f = np.divide(2 * found, total, out=np.zeros_like(found), where=total > 0)
    return {
        name: values[::-1]
        for name, values in zip(
            ("threshold", "precision", "recall", "f"), (threshold, precision, recall, f), strict=True
        )
    }


def calibrate(scores: np.ndarray, truth: np.ndarray, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Per class the threshold with the best F-score over segments, and the curve that shows it.

    Args:
        scores: (N, C) over all segments of a split; without mask.
        truth: (N, C) 0 and 1.
    Returns:
        class -> `threshold`, `f`, `positives`, `curve`.  A class that the split never shows gets its highest score, so
        that it never fires there, and F None.
    """
    found = {}
    for column, name in enumerate(classes):
        line = curve(scores[:, column], truth[:, column])
        positives = int((truth[:, column] > 0).sum())
        best = int(np.argmax(line["f"])) if positives else len(line["f"]) - 1
        shown = np.unique(np.linspace(0, len(line["f"]) - 1, _CURVE_POINTS).round().astype(int))
        found[name] = {
            "threshold": float(line["threshold"][best]),
            "f": float(line["f"][best]) if positives else None,
            "positives": positives,
            "curve": {key: [round(float(value), 6) for value in values[shown]] for key, values in line.items()},
        }
    return found


def save(path: Path, entries: dict[str, dict[str, Any]]) -> None:
    """Write calibrated thresholds: modality -> what `entry` made."""
    write_json(path, {"format": _FORMAT, "modalities": entries})


def entry(scoring: Scoring, split: str, classes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Calibrated thresholds with the identity of the teacher and the captions they belong to."""
    return {
        "teacher": scoring.teacher.key,
        "name": scoring.teacher.name,
        "scores": scoring.spec.key,
        "split": split,
        "classes": classes,
    }


def load(path: Path, scoring: Scoring) -> tuple[tuple[float, ...], str]:
    """Calibrated thresholds of one modality in class order, and where they come from.

    Raises:
        ValueError: the file is none, or its thresholds belong to another teacher, other captions or other classes.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        found = content["modalities"].get(scoring.modality)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a file of calibrated thresholds ({error!r})") from error
    if content.get("format") != _FORMAT:
        raise ValueError(f"{path}: format {content.get('format')}, this version reads {_FORMAT}")
    if found is None:
        raise ValueError(f"{path}: no {scoring.modality} thresholds; it has {', '.join(content['modalities'])}")
    if found["scores"] != scoring.spec.key:
        other = "another teacher" if found["teacher"] != scoring.teacher.key else "other captions"
        raise ValueError(
            f"{path}: the {scoring.modality} thresholds belong to {other} ({found['name']}, {found['teacher']}; "
            f"scores {found['scores']}), the teacher here is {scoring.teacher.key} with scores {scoring.spec.key}. "
            "Calibrate again: --calibrate SPLIT."
        )
    if lacking := [name for name in scoring.classes if name not in found["classes"]]:
        raise ValueError(f"{path}: no {scoring.modality} threshold for {', '.join(lacking)}")
    values = tuple(float(found["classes"][name]["threshold"]) for name in scoring.classes)
    return values, f"calibrated on split {found['split']}"
