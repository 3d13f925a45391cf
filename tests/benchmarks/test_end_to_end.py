from pathlib import Path

import numpy as np

from benchmarks import agreement, clips, end_to_end, loop, measure
from pipeline import extract
from pipeline.store import FeatureStore

ENCODER = "clip-tiny"


def test_ratios_of_costs():
    theirs = [measure.Cost(2.0, 3.0, 6.0, 14.0, 4)]
    ours = [measure.Cost(4.0, 1.0, 1.5, 8.0, 4)]
    assert end_to_end.ratios(theirs, ours) == {"steady": 3.0, "whole": 1.75, "cpu": 4.0}


def test_programs_that_run_after_each_other_add_up():
    cost = end_to_end._sum([measure.Cost(2.0, 3.0, 6.0, 14.0, 4), measure.Cost(1.0, 1.0, 1.0, 5.0, 4)])
    assert cost == measure.Cost(3.0, 4.0, 7.0, 19.0, 4)


def test_the_loop_makes_the_rows_of_the_pipeline(tmp_path: Path):
    paths = clips.make(tmp_path / "clips", 2, "128x96", duration_s=3.0)
    manifest = clips.manifest(paths, tmp_path / "manifest.parquet", 3.0)
    store = tmp_path / "store"
    command = ["--manifest", manifest, "--media", paths[0].parent, "--store", store, "--encoders", ENCODER]
    assert extract.main([str(part) for part in (*command, "--weights", measure.WEIGHTS, "--workers", "0")]) == 0
    loop.extract([ENCODER], paths, measure.WEIGHTS, tmp_path / "loop")

    ours = end_to_end.rows_of(store, ENCODER)
    theirs = {path.stem: np.load(tmp_path / "loop" / ENCODER / f"{path.stem}.npy") for path in paths}
    assert list(ours) == list(FeatureStore.open(store).ids) == list(theirs)
    for clip in ours:
        relative, _ = agreement.compare(ours[clip], theirs[clip])
        assert agreement.agreement(ENCODER, "fp32", relative, 1.0)["equal"]
    # The tolerance tells one second's frame from the next one's, and one clip from another.
    first, second = theirs.values()
    assert agreement.compare(ours[paths[0].stem], np.roll(first, 1, axis=0))[0] > 10 * agreement.TOLERANCE
    assert agreement.compare(ours[paths[0].stem], second)[0] > 10 * agreement.TOLERANCE
