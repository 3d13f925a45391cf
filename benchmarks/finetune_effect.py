"""What fine-tuning changed: a linear probe of segment labels on visual features before and after, seed by seed.

    python benchmarks/finetune_effect.py --manifest M --store S --before KEY ... --after KEY ...

The probe is a logistic regression on single seconds, fitted on the training split and chosen by validation accuracy
over a few ridge strengths; the number is AVE accuracy on the test split (event class or background).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from pipeline.datasets.ave import segment_labels
from pipeline.manifest import Manifest
from pipeline.store import FeatureStore, NoRows

_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--manifest", required=True, type=Path)
    made.add_argument("--store", required=True, type=Path)
    made.add_argument("--before", required=True, nargs="+", metavar="KEY")
    made.add_argument("--after", required=True, nargs="+", metavar="KEY", help="in the order of --before")
    arguments = made.parse_args()
    manifest, store = Manifest.load(arguments.manifest), FeatureStore.open(arguments.store)
    found = {
        name: [probe(manifest, store, store.key(key)) for key in keys]
        for name, keys in (("before", arguments.before), ("after", arguments.after))
    }
    for name, values in found.items():
        spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
        print(f"{name:7} {np.mean(values):6.2f} ± {spread:.2f}   " + "  ".join(f"{value:.2f}" for value in values))
    gains = np.subtract(found["after"], found["before"])
    print(f"{'gain':7} {gains.mean():+6.2f}        " + "  ".join(f"{gain:+.2f}" for gain in gains))


def probe(manifest: Manifest, store: FeatureStore, key: str) -> float:
    """Test accuracy in per cent at the ridge that is best on validation."""
    data = {split: _rows(manifest, store, key, split) for split in ("train", "val", "test")}
    mean, deviation = data["train"][0].mean(0), data["train"][0].std(0) + 1e-6
    data = {split: ((rows - mean) / deviation, labels) for split, (rows, labels) in data.items()}
    tried = [_fit(data, ridge) for ridge in _RIDGES]
    return max(tried, key=lambda scores: scores["val"])["test"]


def _rows(manifest: Manifest, store: FeatureStore, key: str, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, D) rows of all seconds of a split's readable clips and their class numbers."""
    labels = segment_labels(manifest).argmax(-1)
    rows, wanted = [], []
    for number, clip in enumerate(manifest.clips):
        if clip.split == split:
            try:
                values = store.read(clip.id, key)
            except NoRows:
                continue
            rows.append(values.reshape(len(values), -1))
            wanted.append(labels[number, : len(values)])
    return torch.from_numpy(np.concatenate(rows)).double(), torch.from_numpy(np.concatenate(wanted))


def _fit(data: dict[str, tuple[torch.Tensor, torch.Tensor]], ridge: float) -> dict[str, float]:
    rows, labels = data["train"]
    weight = torch.zeros(rows.shape[1] + 1, int(labels.max()) + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (
            torch.nn.functional.cross_entropy(rows @ weight[:-1] + weight[-1], labels)
            + ridge * weight[:-1].square().sum()
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return {
            split: 100.0 * float(((x @ weight[:-1] + weight[-1]).argmax(1) == y).double().mean())
            for split, (x, y) in data.items()
        }


if __name__ == "__main__":
    main()
