"""The clips that a page shows: errors, disagreement and successes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.reporting import clips, decisions, gather


def test_chosen_clips_show_errors_and_disagreement(run_folder: Path) -> None:
    run = gather.open_run(run_folder)
    decided = list(decisions.all_decisions(run))
    chosen = clips.choose(run, decided, 3)
    assert len({clip.id for clip, _ in chosen}) == 3
    errors = [one.wrong(run.manifest.clips) for one in decided]
    mean = {clip_id: np.mean([error[clip_id] for error in errors]) for clip_id in errors[0]}
    worst, _, best = (clip.id for clip, _ in chosen)
    assert mean[worst] == max(mean.values())
    assert mean[best] == min(share for clip_id, share in mean.items() if clip_id not in (worst, chosen[1][0].id))
    assert [clip.id for clip, _ in clips.choose(run, decided, 3)] == [clip.id for clip, _ in chosen]
    assert "disagree" in chosen[1][1]
