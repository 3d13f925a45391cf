"""How fast features are read: this store against one big HDF5 file and one `.npy` per clip, as ratios in one run.

Every layout holds the same rows.  Single clips: `FeatureStore.read` against one row of the HDF5 file and `np.load`.
Shuffled batches: through torch's `DataLoader`, the peers one clip an item as published code does; the store so too, and
as `pipeline.batches.loader` reads it.  Warm, and cold (the pages of the files are dropped before every pass with
posix_fadvise); 0 and 2 workers.  Readers are open and have made one pass before the clock starts, so cold means cold
pages.  Passes of the layouts alternate, and the median counts of the ratios between passes of one turn: what else the
machine does meanwhile hits all alike.

  python benchmarks/store_reads.py --out benchmarks/results
  python benchmarks/store_reads.py --codecs            # why the store compresses as it does
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from extractors.spec import FeatureSpec, FrameSampler, Grid
from pipeline.batches import ClipDataset, loader
from pipeline.manifest import Clip, Manifest
from pipeline.run import log, write_json
from pipeline.selection import Selection
from pipeline.store import FeatureStore

FEATURES = {
    "vggish": ((128,), 10),
    "resnet152 (LLP)": ((2048,), 80),
    "vgg19 maps (AVE)": ((7, 7, 512), 10),
}
#: `store` reads batches as `pipeline.batches.loader` does, `items` reads the store one clip an item.
LAYOUTS = ("store", "items", "hdf5", "npy")


class Items(Dataset):
    """The store, one clip an item."""

    def __init__(self, folder: Path, ids: list[str]) -> None:
        self.ids, self.store = ids, FeatureStore.open(folder / "store")
        (self.key,) = self.store.keys()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(self.store.read(self.ids[row], self.key))


class BigFile(Dataset):
    """One contiguous HDF5 dataset, opened by each process on first use, as CMBS and its relatives do."""

    def __init__(self, folder: Path, ids: list[str]) -> None:
        self.path, self.count, self.data = folder / "big.h5", len(ids), None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> torch.Tensor:
        if self.data is None:
            self.data = h5py.File(self.path, "r")["avadataset"]
        return torch.from_numpy(self.data[row])


class Files(Dataset):
    """One `.npy` per clip, as HAN and VALOR do."""

    def __init__(self, folder: Path, ids: list[str]) -> None:
        self.folder, self.ids = folder / "npy", ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(np.load(self.folder / f"{self.ids[row]}.npy"))


DATASETS = {"store": Items, "items": Items, "hdf5": BigFile, "npy": Files}


def batches(layout: str, folder: Path, ids: list[str], order: list[int], size: int, workers: int) -> DataLoader:
    """A loader of shuffled batches."""
    if layout != "store":
        dataset = DATASETS[layout](folder, ids)
        return DataLoader(dataset, batch_size=size, sampler=order, num_workers=workers, persistent_workers=workers > 0)
    store = FeatureStore.open(folder / "store")
    (key,) = store.keys()
    shape = (store.plan(key).segments, *store.spec(key).shape)
    rows = np.array(order)
    selection = Selection({"x": key}, {"x": shape}, shape[0], {"train": rows}, np.arange(len(ids)))
    return loader(ClipDataset(store.path, selection, "train", {}), size, workers=workers)


def write(folder: Path, shape: tuple[int, ...], rows: int, clips: int) -> list[str]:
    """The same rows in the three layouts; half of the values are zeros, as after a ReLU."""
    manifest = Manifest("bench", tuple(Clip(f"clip-{i:06d}", f"clip-{i:06d}", None, 10.0) for i in range(clips)))
    step_s = 10.0 / rows
    spec = FeatureSpec("bench", "x", "visual", "l", (), (), Grid(step_s, step_s, rows), FrameSampler(), shape)
    store = FeatureStore.create(folder / "store", manifest, [spec])
    base = np.maximum(np.random.default_rng(0).normal(size=(rows, *shape)), 0).astype("float32")
    (folder / "npy").mkdir()
    with h5py.File(folder / "big.h5", "w") as file:
        data = file.create_dataset("avadataset", (clips, rows, *shape), "float32")
        for block, span in store.blocks(spec.key):
            writer = store.writer(spec.key, block)
            for row in span:
                values = np.roll(base, row, axis=-1)
                writer.put(row, values, spec.grid.segments(10.0))
                data[row] = values
                np.save(folder / "npy" / f"{manifest.ids[row]}.npy", values)
            writer.commit()
    os.sync()
    return list(manifest.ids)


def drop(folder: Path) -> None:
    """Forget the cached pages of every file in a folder; needs no privileges."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def once(folder: Path, layout: str, ids: list[str], order: list[int], batch: int, workers: int, cold: bool) -> float:
    """Seconds for one pass over `order` by open readers: warm after a first pass, cold after dropping the pages."""
    if batch == 1:
        dataset = DATASETS[layout](folder, ids)
        for row in order:
            dataset[row]
        if cold:
            drop(folder)
        start_s = time.perf_counter()
        for row in order:
            dataset[row]
        return time.perf_counter() - start_s
    made = batches(layout, folder, ids, order, batch, workers)
    for _ in made:  # starts the workers and opens the files
        pass
    if cold:
        drop(folder)
    start_s = time.perf_counter()
    for _ in made:
        pass
    return time.perf_counter() - start_s


def measure(folder: Path, ids: list[str], passes: int) -> list[dict]:
    """Seconds of every pass per layout and case, passes interleaved."""
    order = np.random.default_rng(1).permutation(len(ids)).tolist()
    found = []
    for name, batch, workers in (("single clips", 1, 0), ("batches of 64", 64, 0), ("batches of 64", 64, 2)):
        layouts = [layout for layout in LAYOUTS if batch > 1 or layout != "items"]
        for cold in (False, True):
            times = {layout: [] for layout in layouts}
            for turn in range(passes):
                first = turn % len(layouts)
                for layout in layouts[first:] + layouts[:first]:
                    times[layout].append(once(folder, layout, ids, order, batch, workers, cold))
            took_s = sum(map(sum, times.values()))
            log(f"{name}, {workers} workers, {'cold' if cold else 'warm'}: measured in {took_s:.0f} s")
            found.append({"case": name, "workers": workers, "cold": cold, "seconds": times, "clips": len(order)})
    return found


def ratio(seconds: dict[str, list[float]], layout: str, reader: str) -> float:
    """How many times as long a layout takes as the store: the median over the turns."""
    return float(np.median(np.divide(seconds[layout], seconds[reader])))


def codecs() -> None:
    """Size and decoding speed of candidates on a post-ReLU map and on dense rows."""
    import google_crc32c
    from numcodecs import Blosc, Zstd

    rng = np.random.default_rng(0)
    maps = np.maximum(rng.normal(-1, 1, (10, 1, 7, 7, 512)) + 0.5 * rng.normal(size=(10, 16, 7, 7, 512)), 0).mean(1)
    padded = np.full((185, 1024), np.nan, "float32")
    padded[:90] = rng.normal(size=(90, 1024))
    samples = {
        "post-ReLU map": maps.astype("float32"),
        "dense": rng.normal(size=(80, 2048)).astype("float32"),
        "padded": padded,
    }
    candidates = {
        "crc32c only": None,
        "zstd 1": Zstd(1, checksum=True),
        "zstd 3": Zstd(3, checksum=True),
        "zstd -1": Zstd(-1, checksum=True),
        "lz4 shuffle": Blosc("lz4", 5, Blosc.SHUFFLE),
        "zstd 1 shuffle": Blosc("zstd", 1, Blosc.SHUFFLE),
    }
    print(f"{'values':15} {'codec':15} {'size':>6} {'decode MB/s':>12}")
    for name, values in samples.items():
        out = np.empty_like(values)
        for label, codec in candidates.items():
            encoded = values.tobytes() if codec is None else codec.encode(values)
            best = float("inf")
            for _ in range(20):
                start_s = time.perf_counter()
                if codec is None:
                    google_crc32c.value(encoded)
                    np.copyto(out.reshape(-1).view("u1"), np.frombuffer(encoded, "u1"))
                else:
                    codec.decode(encoded, out)
                best = min(best, time.perf_counter() - start_s)
            print(f"{name:15} {label:15} {len(encoded) / values.nbytes:6.2f} {values.nbytes / best / 1e6:12.0f}")


def table(results: dict[str, list[dict]]) -> str:
    """Microseconds per clip of the store, and how many times as long the others take (above 1: the store is faster)."""
    lines = ["| feature | case | workers | pages | store us/clip | hdf5 / store | npy / store |", "|" + "---|" * 7]
    for feature, entry, reader in _cases(results):
        seconds = entry["seconds"]
        case = entry["case"] + (", one clip an item" if reader == "items" else "")
        lines.append(
            f"| {feature} | {case} | {entry['workers']} | {'cold' if entry['cold'] else 'warm'} | "
            f"{1e6 * np.median(seconds[reader]) / entry['clips']:.0f} | {ratio(seconds, 'hdf5', reader):.2f} | "
            f"{ratio(seconds, 'npy', reader):.2f} |"
        )
    return "\n".join(lines)


def _cases(results: dict[str, list[dict]]) -> Iterator[tuple[str, dict, str]]:
    """(feature, entry, how the store was read)."""
    for feature, entries in results.items():
        for entry in entries:
            for reader in ("store", "items"):
                if reader in entry["seconds"]:
                    yield feature, entry, reader


def draw(results: dict[str, list[dict]], path: Path) -> None:
    """Bars of the ratios; the line at 1 is equal speed."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "clave"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(results), figsize=(4.6 * len(results), 3.8), sharey=True, squeeze=False)
    for axis, (feature, entries) in zip(axes[0], results.items(), strict=True):
        names = [f"{e['case']}\n{e['workers']} workers, {'cold' if e['cold'] else 'warm'}" for e in entries]
        for offset, layout in ((-0.2, "hdf5"), (0.2, "npy")):
            ratios = [ratio(entry["seconds"], layout, "store") for entry in entries]
            axis.barh(np.arange(len(names)) + offset, ratios, 0.38, label=f"{layout} / store")
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_yticks(np.arange(len(names)), names, fontsize=8)
        axis.set_title(feature)
        axis.set_xlabel("time relative to the store")
    axes[0][0].invert_yaxis()
    axes[0][-1].legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for table, figure and numbers")
    parser.add_argument("--work", type=Path, help="folder on the disk to measure; default the temporary folder")
    parser.add_argument("--clips", type=int, default=1024, help="clips of the narrowest feature; wider ones have fewer")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--feature", choices=list(FEATURES), action="append", help="only this one; may be repeated")
    parser.add_argument("--codecs", action="store_true", help="measure codecs instead")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    if arguments.codecs:
        codecs()
        return 0
    results = {}
    for feature in arguments.feature or FEATURES:
        shape, rows = FEATURES[feature]
        clips = max(256, min(arguments.clips, (512 << 20) // (4 * rows * int(np.prod(shape)))))
        with tempfile.TemporaryDirectory(dir=arguments.work, prefix="clave-reads-") as folder:
            ids = write(Path(folder), shape, rows, clips)
            results[feature] = measure(Path(folder), ids, arguments.passes)
        log(table({feature: results[feature]}))
    print(table(results))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "store_reads.md").write_text(table(results) + "\n")
        write_json(arguments.out / "store_reads.json", results)
        draw(results, arguments.out / "store_reads.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
