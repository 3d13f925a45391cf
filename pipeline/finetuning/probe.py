"""A linear probe: how much of the segment labels a logistic regression on single rows of a feature finds."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.datasets.ave import segment_labels
from pipeline.manifest import Manifest
from pipeline.store import FeatureStore, NoRows

_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
_SPLITS = ("train", "val", "test")

#: (n, D) rows, (n,) class numbers and (n,) clip numbers of a split.
Rows = tuple[torch.Tensor, torch.Tensor, np.ndarray]


def probe(manifest: Manifest, store: FeatureStore, key: str, seeds: list[int]) -> list[float]:
    """AVE accuracy on the test split, per cent, at the ridge that is best on the validation split.

    Args:
        seeds: each draws the training clips anew, with replacement: the fit itself has no randomness.
    Returns:
        one accuracy per seed.
    Raises:
        ValueError: a split has no clip with rows of this key.
    """
    data = {split: _rows(manifest, store, key, split) for split in _SPLITS}
    mean, deviation = data["train"][0].mean(0), data["train"][0].std(0) + 1e-6
    data = {split: ((rows - mean) / deviation, labels, clips) for split, (rows, labels, clips) in data.items()}
    found = []
    for seed in seeds:
        rows, labels, clips = data["train"]
        own = np.unique(clips)
        counts = np.bincount(np.random.default_rng(seed).choice(own, len(own)), minlength=own.max() + 1)
        weight = torch.from_numpy(counts[clips].astype(np.float64))
        tried = [_fit(rows, labels, weight / weight.sum(), data, ridge) for ridge in _RIDGES]
        found.append(max(tried, key=lambda accuracy: accuracy["val"])["test"])
    return found


def _rows(manifest: Manifest, store: FeatureStore, key: str, split: str) -> Rows:
    labels = segment_labels(manifest).argmax(-1)
    rows, wanted, clips = [], [], []
    for number, clip in enumerate(manifest.clips):
        if clip.split == split:
            try:
                values = store.read(clip.id, key)
            except NoRows:
                continue
            rows.append(values.reshape(len(values), -1))
            wanted.append(labels[number, : len(values)])
            clips += [number] * len(values)
    if not rows:
        raise ValueError(f"{store.path}: no clip of split {split!r} has rows of {key}")
    return torch.from_numpy(np.concatenate(rows)).double(), torch.from_numpy(np.concatenate(wanted)), np.array(clips)


def _fit(
    rows: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, data: dict[str, Rows], ridge: float
) -> dict[str, float]:
    """Accuracy on validation and test of one regression, per cent."""
    plane = torch.zeros(rows.shape[1] + 1, int(labels.max()) + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([plane], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        each = torch.nn.functional.cross_entropy(rows @ plane[:-1] + plane[-1], labels, reduction="none")
        loss = (weight * each).sum() + ridge * plane[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return {
            split: 100.0 * float(((x @ plane[:-1] + plane[-1]).argmax(1) == y).double().mean())
            for split, (x, y, _) in data.items()
            if split != "train"
        }
