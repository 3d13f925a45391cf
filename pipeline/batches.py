"""From a feature store to the tensors that a network trains on.

`ClipDataset` is a map-style torch dataset over the clips of a `Selection`; `in_memory` reads the same items into one
tensor per name, `loader` reads whole batches.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler, get_worker_info

from pipeline.selection import Selection
from pipeline.store import FeatureStore

_CLIPS_AT_ONCE = 64


class ClipDataset(Dataset):
    """Items of one split: a dict of tensors per clip, or per list of clips.

    The store is opened when the first item is read, once per process, so the dataset may be pickled (spawn) or
    inherited (fork) by loader workers.  `DataLoader(dataset, batch_size=64)` works; `loader` is faster for wide
    features, because their batches are read into the very memory that they are handed over in.

    Args:
        store: path.
        labels: name -> (N, ...) arrays over all clips of the manifest, as `targets` makes them.
    """

    def __init__(self, store: Path, selection: Selection, split: str, labels: dict[str, np.ndarray]) -> None:
        self.path = Path(store)
        self.keys, self.shapes = selection.keys, selection.shapes
        self.rows = selection.rows[split]
        self.store_rows = selection.store_rows[self.rows]
        self.labels = {name: torch.from_numpy(np.ascontiguousarray(a[self.rows])) for name, a in labels.items()}
        self._opened: tuple[int, FeatureStore] | None = None
        self._finite = {stream: np.zeros(len(self.rows), bool) for stream in self.keys}  # looked at by this process

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_opened": None}

    @property
    def store(self) -> FeatureStore:
        """The store, opened by this process: a forked worker must not share its parent's handles."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), FeatureStore.open(self.path))
        return self._opened[1]

    def __getitem__(self, index: int | Sequence[int]) -> dict[str, Tensor]:
        """Streams (T, ...) float32 and labels of one clip; of n clips for a list, with n in front.

        Raises:
            ValueError: a feature is not finite.
        """
        if isinstance(index, Sequence):
            return self._batch(index, shared=get_worker_info() is not None)
        return {name: values[0] for name, values in self._batch([index]).items()}

    def __getitems__(self, indices: list[int]) -> list[dict[str, Tensor]]:
        """Items, read together; torch's loaders ask for a batch this way, and then copy it together."""
        batch = self._batch(indices)
        return [{name: values[place] for name, values in batch.items()} for place in range(len(indices))]

    @property
    def item_bytes(self) -> int:
        """Size of one item in memory."""
        streams = sum(4 * int(np.prod(shape)) for shape in self.shapes.values())
        return streams + sum(values[0].numel() * values.element_size() for values in self.labels.values())

    def in_memory(self, device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """All items stacked, name -> (n, ...) on the device.

        Raises:
            ValueError: a feature is not finite; all such clips are named.
        """
        stacked = {name: values.to(device) for name, values in self.labels.items()}
        for stream in self.keys:
            whole = _empty((len(self), *self.shapes[stream]))
            self._read(stream, np.arange(len(self)), whole.numpy())
            stacked[stream] = whole.to(device)
        return stacked

    def _batch(self, indices: Sequence[int], shared: bool = False) -> dict[str, Tensor]:
        places = np.asarray(indices)
        found = {name: values[places] for name, values in self.labels.items()}
        for stream, shape in self.shapes.items():
            found[stream] = _empty((len(places), *shape), shared)
            self._read(stream, places, found[stream].numpy())
        return found

    def _read(self, stream: str, places: np.ndarray, out: np.ndarray) -> None:
        """Fill `out` (n, T, ...) float32, some clips at a time, so that memory does not follow n."""
        key, bad = self.keys[stream], []
        dtype = self.store.spec(key).dtype
        for start in range(0, len(places), _CLIPS_AT_ONCE):
            part, target = places[start : start + _CLIPS_AT_ONCE], out[start : start + _CLIPS_AT_ONCE]
            values = target if dtype == "float32" else np.empty(target.shape, dtype)
            self.store.rows_into(key, self.store_rows[part].tolist(), values)
            if values is not target:
                target[...] = values
            bad += [place for place, clip in zip(part, target, strict=True) if not self._is_finite(stream, place, clip)]
        if bad:
            raise ValueError(_not_finite(self.path, key, [self.store.ids[self.store_rows[place]] for place in bad]))

    def _is_finite(self, stream: str, place: int, values: np.ndarray) -> bool:
        """Looked at once per clip and process; the sum tells without a copy, unless it overflows."""
        if not self._finite[stream][place]:
            with np.errstate(all="ignore"):
                total = values.sum()
            self._finite[stream][place] = np.isfinite(total) or np.isfinite(values).all()
        return bool(self._finite[stream][place])


def loader(dataset: ClipDataset, size: int, shuffle: bool = False, workers: int = 0, **options: Any) -> DataLoader:
    """Batches of a dataset, each read straight into the memory that it is handed over in.

    Args:
        size: clips a batch; the last one may be smaller.
        workers: loader processes.
        options: of `torch.utils.data.DataLoader`; `generator` also decides the order.
    """
    order = RandomSampler(dataset, generator=options.get("generator")) if shuffle else SequentialSampler(dataset)
    batches = BatchSampler(order, size, drop_last=False)
    options = {"persistent_workers": workers > 0} | options
    return DataLoader(dataset, batch_size=None, sampler=batches, num_workers=workers, **options)


def _empty(shape: tuple[int, ...], shared: bool = False) -> Tensor:
    """float32 tensor to fill.  NumPy asks for huge pages, torch does not, and page faults cost more than reading.

    Args:
        shared: in shared memory, where a loader worker hands tensors over without a copy.
    """
    if not shared:
        return torch.from_numpy(np.empty(shape, np.float32))
    storage = torch.UntypedStorage._new_shared(4 * math.prod(shape))  # as torch's own collate function does
    return torch.empty(0).set_(storage, 0, shape)


def _not_finite(path: Path, key: str, clips: list[str]) -> str:
    shown = ", ".join(clips[:10]) + (f" and {len(clips) - 10} more" if len(clips) > 10 else "")
    return (
        f"{path}: {key} holds NaN or infinity for {len(clips)} clip(s): {shown}.  FeatureStore.verify lists damage; "
        "extract these clips again, or remove them from the manifest"
    )
