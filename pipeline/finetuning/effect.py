"""What fine-tuning changed, as plain numbers: retrieval, a linear probe, and trained models, before and after."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

#: Per cent; a smaller change is a row or two of a small test split.
_LEAST_GAIN = 1.0
#: The number of a trained model that is compared.
_SELECTION, _SPLIT = "best-validation", "test"


@dataclass(frozen=True)
class Row:
    """One measure before and after, by seed.

    Args:
        measure: what is measured, in per cent; higher is better.
        before, after: seed -> value.
        note: what a reader has to know.
    """

    measure: str
    before: dict[int, float]
    after: dict[int, float]
    note: str = ""

    @property
    def gains(self) -> list[float]:
        """After minus before of the seeds that both have."""
        return [self.after[seed] - self.before[seed] for seed in sorted(set(self.before) & set(self.after))]

    @property
    def verdict(self) -> str:
        """A gain counts if at least three seeds agree on its sign, and it exceeds their spread and 1 %."""
        gains = self.gains
        if len(gains) < 3:
            return f"{len(gains)} seed{'s' if len(gains) != 1 else ''}: nothing follows"
        mean, spread = float(np.mean(gains)), float(np.std(gains, ddof=1))
        agree = all(gain * mean > 0 for gain in gains)
        if agree and abs(mean) > max(spread, _LEAST_GAIN):
            return "better" if mean > 0 else "worse"
        return "no difference established"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"gains": self.gains, "verdict": self.verdict}


@dataclass
class Effect:
    """One encoder, tuned against one audio feature with several seeds.

    Args:
        tunings: seed -> receipt of `finetune`; `frozen`: the same of trainings of the projections alone.
    """

    facts: dict[str, Any]
    tunings: dict[int, dict[str, Any]] = field(default_factory=dict)
    frozen: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def tuned_weights(self) -> dict[str, int]:
        """Weights of the tuned encoders, as specs name them -> seed."""
        return {f"sha256:{made['weights']['sha256']}": seed for seed, made in self.tunings.items()}


def effects(receipts: list[dict[str, Any]]) -> list[Effect]:
    """Receipts of `finetune` that differ by seed, or by what was trained, belong together.

    Raises:
        ValueError: no encoder was tuned in any of them.
    """
    found: dict[str, Effect] = {}
    for made in receipts:
        facts = made["arguments"]
        recipe = {name: value for name, value in facts["recipe"].items() if name != "tune"}
        same = {name: facts[name] for name in ("visual", "weights", "audio", "manifest")} | {"recipe": recipe}
        effect = found.setdefault(repr(sorted(same.items())), Effect(same))
        kind = effect.frozen if facts["recipe"]["tune"] == "projections" else effect.tunings
        kind[facts["seed"]] = made
    tuned = [effect for effect in found.values() if effect.tunings]
    if not tuned:
        raise ValueError("none of these receipts is of a fine-tuning of an encoder; give finetune.json files")
    return tuned


def retrieval_rows(effect: Effect) -> list[Row]:
    """R@1 and R@5 in both directions on the validation split.

    Before is the frozen encoder with projections that were trained in the same way; where nobody trained them, random
    projections, which is no fair comparison and said in the note.
    """
    rows = []
    first = next(iter(effect.tunings.values()))
    for way, values in (first["best"].get("retrieval") or {}).items():
        for metric in values:
            after = {seed: made["best"]["retrieval"][way][metric] for seed, made in effect.tunings.items()}
            if effect.frozen:
                before = {seed: made["best"]["retrieval"][way][metric] for seed, made in effect.frozen.items()}
                note = "before: frozen encoder, trained projections"
            else:
                before = {seed: made["before"][way][metric] for seed, made in effect.tunings.items()}
                note = "before: random projections, so part of the gain is theirs"
            rows.append(Row(f"retrieval, {way}, {metric}", before, after, note))
    return rows


def model_rows(effect: Effect, before_key: str, after_keys: dict[str, int], scores: list[dict[str, Any]]) -> list[Row]:
    """Main score of trained models that read the feature before and after, all else being the same.

    A row is by seed of the training where each training seed saw one tuned encoder; where one saw several, it is by
    seed of the fine-tuning, and a value is the mean over the trainings.

    Args:
        after_keys: feature key -> seed of the fine-tuning.
        scores: files of `pipeline.score`.
    Raises:
        ValueError: one has no score on test clips.
    """
    #: before: training seed -> score; after: (fine-tuning seed, training seed) -> score.
    sides: dict[tuple[str, ...], tuple[dict[int, float], dict[tuple[int, int], float]]] = {}
    for content in scores:
        keys = {stream: entry["key"] for stream, entry in content["features"].items()}
        changed = [stream for stream, key in keys.items() if key == before_key or key in after_keys]
        if not changed:
            continue
        others = sorted(f"{stream} {key}" for stream, key in keys.items() if stream not in changed)
        name = (content["model"], content["setting"], content["task"], content.get("experiment"), *others)
        before, after = sides.setdefault(name, ({}, {}))
        for run in content["runs"]:
            if _SPLIT not in run["scores"].get(_SELECTION, {}):
                raise ValueError(f"the scores of {name[0]}, {name[1]}, seed {run['seed']} are of no {_SPLIT} clips")
            score = run["scores"][_SELECTION][_SPLIT]["main"]
            if keys[changed[0]] == before_key:
                before[run["seed"]] = score
            else:
                after[after_keys[keys[changed[0]]], run["seed"]] = score
    metric = {"ave": "AVE accuracy", "avvp": "AVVP segment Type"}
    return [
        Row(f"{metric.get(name[2], name[2])} of {name[0]}, {name[1]}", *_by_seed(before, after), "; ".join(name[4:]))
        for name, (before, after) in sides.items()
        if before and after
    ]


def _by_seed(
    before: dict[int, float], after: dict[tuple[int, int], float]
) -> tuple[dict[int, float], dict[int, float]]:
    """Both sides by one seed: see `model_rows`."""
    trainings = [training for _, training in after]
    if len(set(trainings)) == len(trainings):
        return before, {training: score for (_, training), score in after.items()}
    seeds = {tuning: [training for one, training in after if one == tuning] for tuning, _ in after}
    paired = {tuning: [before[training] for training in own if training in before] for tuning, own in seeds.items()}
    return (
        {tuning: float(np.mean(values)) for tuning, values in paired.items() if values},
        {tuning: float(np.mean([after[tuning, training] for training in own])) for tuning, own in seeds.items()},
    )
