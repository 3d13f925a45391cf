"""A small manifest and store to export, the command that does it, and the file it leaves."""

from pathlib import Path

import h5py

from pipeline.export import main
from tests.pipeline import store_factory as factory

DEMO = factory.manifest(10)
VISUAL = factory.spec("vgg19", (7, 7, 8), modality="visual")
AUDIO = factory.spec("vggish", (6,))


def demo_store(folder: Path) -> Path:
    """A store of ten clips in which clip 3 has no audio."""
    DEMO.save(folder / "M.parquet")
    factory.store(folder / "S", DEMO, [VISUAL], job_clips=4)
    store = factory.FeatureStore.create(folder / "S", DEMO, [AUDIO], job_clips=4)
    factory.fill(store, DEMO, AUDIO.key, absent={3})
    return folder


def export(folder, layout, *more, out="out"):
    """The exit code of the command on `folder`'s store."""
    options = ["--manifest", folder / "M.parquet", "--store", folder / "S", "--format", layout, "--out", folder / out]
    return main([str(option) for option in [*options, *more]])


def h5(path, key="avadataset"):
    """The only dataset of a file, which must be plain: no chunks, no compression, no attributes."""
    with h5py.File(path) as file:
        assert list(file) == [key]
        data = file[key]
        assert data.chunks is None
        assert data.compression is None
        assert len(data.attrs) == 0
        return data[:]
