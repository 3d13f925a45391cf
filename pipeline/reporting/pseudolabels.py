"""Pseudo-labels of a run: how good they are by class, how their thresholds were found, and scores over time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.labels import LabelStore
from pipeline.pseudolabelling.truth import true_rows
from pipeline.reporting import drawing
from pipeline.reporting.gather import Run, json_files

_CLASSES_DRAWN = 32
_CLIPS_DRAWN = 3
_CURVES_DRAWN = 8
#: What a row of the table compares, in this order.
COLUMNS = ("labels", "chance", "majority", "all classes", "weak label")


@dataclass(frozen=True)
class LabelReport:
    """What there is to say about one receipt of `pseudolabel`.

    Args:
        teachers: modality -> name, scale, and where the thresholds come from.
        rows: split, mask, modality, and segment F of `COLUMNS`, per cent.
        figures: title -> SVG.
    """

    teachers: list[dict[str, Any]]
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    figures: dict[str, str]


def label_reports(run: Run) -> list[LabelReport]:
    """One for each receipt of the stage."""
    return [_report(run, made, number) for number, (_, made) in enumerate(_receipts(run))]


def _receipts(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, content in json_files(run, "receipts"):
        if content.get("stage") == "pseudolabel":
            yield name, content


def _report(run: Run, made: dict[str, Any], number: int) -> LabelReport:
    teachers = [
        {"modality": modality, "name": entry["teacher"]["name"], "weights": entry["teacher"]["weights"][:23]}
        | {"scale": entry["scale"], "origin": entry["origin"]}
        for modality, entry in made["modalities"].items()
    ]
    rows = [
        {"split": split, "mask": mask, "modality": modality, "scored": f"{found['scored']} of {found['clips']}"}
        | {name: values[name]["segment"] for name in COLUMNS if name in values}
        for mask, splits in made["evaluation"].items()
        for split, found in splits.items()
        for modality, values in found["f"].items()
    ]
    figures = {}
    for title, draw in (
        ("Precision and recall by class", lambda: _classes(made, f"labels{number}a")),
        ("F-score over the threshold, on the calibration split", lambda: _curves(made, f"labels{number}b")),
        ("Scores over time against the truth", lambda: _timelines(run, made, f"labels{number}c")),
    ):
        if svg := run.attempt(title, draw):
            figures[title] = svg
    return LabelReport(teachers, COLUMNS, rows, figures)


def _shown_split(made: dict[str, Any]) -> tuple[str, str, dict[str, Any]] | None:
    """Mask, split and evaluation that the pictures show: unmasked labels of the test split, if there are any."""
    for mask in ("none", "video-label"):
        splits = made["evaluation"].get(mask, {})
        for split in ("test", *splits):
            if split in splits:
                return mask, split, splits[split]
    return None


def _classes(made: dict[str, Any], prefix: str) -> str | None:
    """Filled dots are precision, open ones recall; a class without a dot was never labelled, or never there."""
    if (shown := _shown_split(made)) is None:
        return None
    mask, split, found = shown
    names = list(next(iter(found["classes"].values())))[:_CLASSES_DRAWN]
    with drawing.style():
        figure = drawing.new_figure(7.2, 1.1 + 0.24 * len(names))
        for place, (modality, classes) in enumerate(found["classes"].items()):
            axes = figure.add_subplot(1, len(found["classes"]), place + 1)
            colour = drawing.colour(modality)
            for y, name in enumerate(names):
                for metric, face in (("precision", colour), ("recall", "none")):
                    if classes[name][metric] is not None:
                        axes.plot(classes[name][metric], y, "o", color=colour, markerfacecolor=face, markersize=5)
            axes.set_xlim(-0.05, 1.05)
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_yticks(
                range(len(names)), [drawing.plain(name, 22) for name in names] if not place else [""] * len(names)
            )
            axes.grid(axis="x")
            axes.set_title(f"{modality}: precision (filled), recall (open)", loc="left")
        figure.tight_layout()
        return drawing.to_svg(figure, prefix, f"precision and recall by class, split {split}, mask {mask}")


def _curves(made: dict[str, Any], prefix: str) -> str | None:
    if not made.get("curves"):
        return None
    with drawing.style():
        figure = drawing.new_figure(7.2, 2.6)
        for place, (modality, entry) in enumerate(made["curves"].items()):
            axes = figure.add_subplot(1, len(made["curves"]), place + 1)
            for colour, (name, found) in zip(
                drawing.SERIES, list(entry["classes"].items())[:_CURVES_DRAWN], strict=False
            ):
                line = axes.plot(
                    found["curve"]["threshold"], found["curve"]["f"], color=drawing.colour(colour), linewidth=1.1
                )
                axes.axvline(found["threshold"], color=drawing.colour(colour), linewidth=0.6, linestyle=":")
                line[0].set_label(drawing.plain(name, 16))
            axes.set_title(f"{modality}, split {entry['split']}", loc="left")
            axes.set_xlabel("threshold on the score")
            axes.set_ylim(0, 1.03)
            axes.grid(axis="y")
            if place == 0:
                axes.legend(fontsize=7, frameon=False)
        figure.tight_layout()
        return drawing.to_svg(figure, prefix, "F-score of every class over its threshold")


def _timelines(run: Run, made: dict[str, Any], prefix: str) -> str | None:
    """Score minus threshold of every class and second; a frame is drawn where the class is true."""
    shown = _shown_split(made)
    if run.manifest is None or shown is None or not (run.path / "labels").is_dir():
        return None
    mask, split, _ = shown
    keys = {modality: entry["labels"][mask] for modality, entry in made["modalities"].items()}
    store = LabelStore.open(run.path / "labels", mask, keys)
    clips = [
        clip for clip in run.manifest.split(split) if clip.events and all(store.has(clip.id, name) for name in keys)
    ]
    clips = clips[:_CLIPS_DRAWN]
    if not clips or not all(len(store.thresholds(modality)) for modality in keys):
        return None
    names = store.classes[:_CLASSES_DRAWN]
    with drawing.style():
        figure = drawing.new_figure(7.2, len(clips) * (0.6 + 0.17 * len(names)))
        for row, clip in enumerate(clips):
            for column, modality in enumerate(keys):
                axes = figure.add_subplot(len(clips), len(keys), row * len(keys) + column + 1)
                above = store.scores(clip.id, modality).astype(np.float64) - store.thresholds(modality)
                times_s = store.times(modality, len(above))
                truth = true_rows(clip, store.classes, modality, times_s).T
                colour = drawing.colour(modality)
                largest = max(float(above.max()), 1e-9)
                for y, t in zip(*np.nonzero((above > 0).T[: len(names)]), strict=True):
                    depth = 0.25 + 0.75 * float(above[t, y]) / largest
                    start_s, end_s = times_s[t]
                    axes.fill(
                        [start_s, end_s, end_s, start_s],
                        [y - 0.4, y - 0.4, y + 0.4, y + 0.4],
                        color=colour,
                        alpha=depth,
                        linewidth=0,
                    )
                for y, t in zip(*np.nonzero(truth[: len(names)]), strict=True):
                    axes.plot(
                        times_s[t],
                        [y + 0.4, y + 0.4],
                        color=drawing.colour("ink"),
                        linewidth=1.6,
                        solid_capstyle="butt",
                    )
                axes.set_xlim(0, times_s[-1, 1])
                axes.set_ylim(len(names) - 0.3, -0.6)
                axes.set_yticks(
                    range(len(names)), [drawing.plain(name, 18) for name in names] if not column else [""] * len(names)
                )
                axes.tick_params(labelsize=7)
                axes.set_title(f"{drawing.plain(clip.id, 26)}, {modality}", loc="left", fontsize=8)
        figure.tight_layout()
        return drawing.to_svg(
            figure, prefix, "scores above the threshold over time; a black line where the class is true"
        )
