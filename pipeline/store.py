"""Where features are: a Zarr v3 group with one sub-group per feature key, an outcome for every clip.

    S/zarr.json                    dataset, manifest digest, number of clips
    S/<key>/values                 (clip, segment, ...) feature dtype, NaN where there is no row
    S/<key>/segments               (clip, segment, 2) float64 seconds
    S/<key>/length                 (clip) int32 rows that are filled
    S/<key>/outcome                (clip) uint8 code of `pipeline.outcomes`
    S/<key>/clip                   (clip) string, the ids in manifest order
    S/commits/<key>/<block>.json   written last: what the block holds, with the SHA-256 of its files

A *block* is a run of clips that is one shard file of each array.  It is written whole by one process or not at
all; without its commit record it does not count.  How arrays are cut and coded is in `pipeline.layout`, reading in
`pipeline.reader` and `pipeline.shards`, writing in `pipeline.blocks`, checking in `pipeline.checks`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from extractors.spec import FeatureSpec
from pipeline.blocks import BlockWriter, StoreError, held, install
from pipeline.growth import grow, obstacle, planner
from pipeline.layout import JOB_CLIPS, Companion, Plan, create_arrays, plan
from pipeline.manifest import Manifest
from pipeline.manifest_file import ManifestFile
from pipeline.reader import FORMAT, NoRows, StoreReader
from pipeline.run import write_json

__all__ = ["JOB_CLIPS", "BlockWriter", "FeatureStore", "NoRows", "Plan", "StoreError", "plan"]


class FeatureStore(StoreReader):
    """A store that is planned, written and read.

    Writing is safe as long as one process writes one block, and a second writer of a block is refused.
    """

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        manifest: Manifest | ManifestFile,
        specs: Iterable[FeatureSpec],
        job_clips: int = JOB_CLIPS,
        companions: dict[str, Companion] | None = None,
    ) -> FeatureStore:
        """Plan a store, add keys to one, or clips at its end (`pipeline.growth`).

        Running it twice, or from several jobs at once, changes nothing.

        Args:
            job_clips: clips per job at the finest; blocks never cross such a boundary.
            companions: by key, what a new key carries beside its rows.
        Raises:
            StoreError: the folder is a store of other clips or of another job size, or is something else and not empty.
        """
        path = Path(path)
        if not (path / "zarr.json").exists():
            # A planner that was killed leaves only temporary files; one that runs beside us may be done by now.
            strange = [entry.name for entry in _entries(path) if not entry.name.endswith(".partial")]
            if strange and not (path / "zarr.json").exists():
                raise StoreError(f"{path}: holds {strange[0]} and is no feature store; choose another --store")
            facts = {
                "format": FORMAT,
                "dataset": manifest.dataset,
                "manifest": manifest.digest,
                "clips": len(manifest),
                "job_clips": job_clips,
                "media": manifest.media_digest(len(manifest)),
            }
            if not (path / "zarr.json").exists():
                _create_group(path, {"clave": facts, "Conventions": "CF-1.11"})
        store = cls(path, mode="r+")
        if store.facts["job_clips"] != job_clips:
            raise StoreError(
                f"{path}: was planned for jobs of {store.facts['job_clips']} clips, not {job_clips}; "
                f"pass --job-clips {store.facts['job_clips']} or use another --store"
            )
        if store.facts["manifest"] != manifest.digest:
            store = cls._grown(path, manifest)
        if not (path / "commits" / "zarr.json").exists():
            _create_group(path / "commits", {"about": "one JSON record per finished block; not arrays"})
        lacking = [spec for spec in specs if not (path / spec.key / "zarr.json").exists()]
        if lacking:
            with planner(path):  # of many jobs that start at once, one writes the ids of all clips
                for spec in lacking:
                    if not (path / spec.key / "zarr.json").exists():
                        store._add_key(manifest, spec, (companions or {}).get(spec.key))
        return store

    @classmethod
    def _grown(cls, path: Path, manifest: Manifest | ManifestFile) -> FeatureStore:
        """The store, planned anew for a manifest that begins with its clips."""
        with planner(path):
            store = cls(path, mode="r+")  # another job may have done it while this one waited
            if store.facts["manifest"] == manifest.digest:
                return store
            if why := obstacle(store, manifest):
                raise StoreError(
                    f"{path}: belongs to another manifest ({store.facts['dataset']}, {store.facts['clips']} clips, "
                    f"digest {store.facts['manifest'][:12]}; given: {manifest.dataset}, {len(manifest)} clips, "
                    f"{manifest.digest[:12]}): {why}. Use another --store, or the manifest it was made for."
                )
            _create_group(path, {"clave": grow(store, manifest), "Conventions": "CF-1.11"})
        return cls(path, mode="r+")

    def _add_key(self, manifest: Manifest | ManifestFile, spec: FeatureSpec, companion: Companion | None) -> None:
        """Create the arrays of a key beside the store and move them in whole, so a key is planned or absent."""
        with held(self.path, spec.key) as beside:
            create_arrays(beside, manifest, spec, self.facts["job_clips"], companion)
            beside.chmod(0o755)
            try:
                os.replace(beside, self.path / spec.key)
            except OSError:  # another job planned the same key at the same moment: its arrays are the same
                if not (self.path / spec.key / "zarr.json").exists():
                    raise

    def writer(self, key: str, block: int, made_by: str = "", facts: dict[str, Any] | None = None) -> BlockWriter:
        """The one writer of a block; see `pipeline.blocks.BlockWriter`.

        Raises:
            StoreError: the store was opened for reading, or another process is writing the block.
        """
        if not self._writable:
            raise StoreError(f"{self.path}: opened for reading; FeatureStore.create opens it for writing")
        return BlockWriter(self, key, block, made_by, facts)

    def install(self, key: str, block: int, files: dict[str, Path], record: dict[str, Any]) -> None:
        """Make finished shard files and their record part of the store (see `pipeline.blocks.install`)."""
        install(self.path, files, self.commit_path(key, block), record)
        self.refresh()

    def verify(self, deep: bool = True) -> list[str]:
        """Everything wrong with the committed blocks, one sentence each; uncommitted blocks are not wrong.

        Args:
            deep: also read the values: rows of `ok` clips must be finite and as long as `length` says.
        """
        from pipeline.checks import damages

        return [str(damage) for damage in damages(self, deep=deep)]

    def forget(self, key: str, block: int) -> None:
        """Drop a block's commit record, so that the next `extract` makes it again."""
        for path in self.record_paths(key, block):
            path.unlink(missing_ok=True)
        self.refresh()

    def sweep(self) -> int:
        """Remove what killed processes left over; blocks that a living process writes stay.  Returns the number."""
        from pipeline.checks import left_over

        left = left_over(self.path)
        for path in left:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        return len(left)


def _entries(path: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(path.iterdir())
    return []


def _create_group(path: Path, attributes: dict[str, Any]) -> None:
    """A Zarr group that appears whole, also when several jobs make it at once."""
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})
