"""Whether a paper's number belongs beside a result: it is of the paper's dataset and features."""

from __future__ import annotations

from pipeline.store import FeatureStore

#: Task -> the dataset that its papers report.
_DATASETS = {"ave": "ave", "avvp": "llp"}


def comparable(
    task: str, dataset: str, store: FeatureStore, keys: dict[str, str], asked: dict[str, str], named: dict[str, str]
) -> bool:
    """Whether a training may stand beside the published number of its configuration.

    Args:
        keys: stream -> key of the feature that is used.
        asked: stream -> what the user, or the configuration, asked for.
        named: stream -> what the configuration names, whose number it is.
    """
    if dataset != _DATASETS[task]:
        return False
    return all(_is(store, key, asked[stream], named.get(stream)) for stream, key in keys.items())


def _is(store: FeatureStore, key: str, asked: str, name: str | None) -> bool:
    """Whether a feature that was asked for is the one of that name, and not one of other weights."""
    if asked == name or [one for one in store if store.spec(one).name == name] == [key]:
        return True
    try:
        return store.key(f"{name}=pretrained") == key
    except (ValueError, OSError):
        return False
