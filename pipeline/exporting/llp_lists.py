"""The six tab-separated lists of LLP, which every loader and evaluator reads from `data/`.

AVVP_train.csv AVVP_val_pd.csv AVVP_test_pd.csv AVVP_dataset_full.csv    filename, event_labels
AVVP_eval_audio.csv AVVP_eval_visual.csv                                 filename, onset, offset, event_labels
"""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

from pipeline.exporting.request import Export, Request
from pipeline.manifest import Clip

CLIP_LISTS = {"train": "AVVP_train.csv", "val": "AVVP_val_pd.csv", "test": "AVVP_test_pd.csv"}
EVENT_LISTS = {"audio": "AVVP_eval_audio.csv", "visual": "AVVP_eval_visual.csv"}
FULL_LIST = "AVVP_dataset_full.csv"


def file_id(clip: Clip) -> str:
    """The first eleven characters of the file name in the lists, which is how every loader names its files."""
    return clip.id[:11]


def write_lists(request: Request, data: Path, rows: list[int], export: Export) -> None:
    """The six csv files: the published ones if given and nothing was dropped, else from the manifest."""
    data.mkdir(parents=True, exist_ok=True)
    if request.annotations:
        names = [*CLIP_LISTS.values(), *EVENT_LISTS.values()]
        if lacking := [name for name in names if not (request.annotations / name).is_file()]:
            raise FileNotFoundError(f"--annotations {request.annotations} lacks {', '.join(lacking)}")
        dropped = set(export.dropped)
        for name in names:
            if dropped and name not in EVENT_LISTS.values():
                lines = (request.annotations / name).read_bytes().splitlines(keepends=True)
                kept = [line for line in lines if line.split(b"\t")[0].decode() not in dropped]
                (data / name).write_bytes(b"".join(kept))
            else:
                shutil.copyfile(request.annotations / name, data / name)
        parts = [(data / name).read_bytes().splitlines(keepends=True) for name in CLIP_LISTS.values()]
        # As published: the three lists behind each other.
        (data / FULL_LIST).write_bytes(b"".join([parts[0][0], *(line for part in parts for line in part[1:])]))
        return
    clips = [request.manifest.clips[row] for row in rows]
    ordered = [clip for split in CLIP_LISTS for clip in clips if clip.split == split]
    for name, members in [
        (FULL_LIST, ordered),
        *((CLIP_LISTS[s], [c for c in clips if c.split == s]) for s in CLIP_LISTS),
    ]:
        table = [(clip.id, ",".join(clip.labels)) for clip in members]
        (data / name).write_bytes(_table(("filename", "event_labels"), table))
    for modality, name in EVENT_LISTS.items():
        table = [
            (clip.id, int(event.start_s), int(event.end_s), event.label)
            for clip in ordered
            for event in clip.events
            if clip.split != "train" and event.modality in (modality, "both")
        ]
        (data / name).write_bytes(_table(("filename", "onset", "offset", "event_labels"), table))
    export.notes.append("the csv files were written from the manifest; --annotations DIR copies the published ones")


def _table(header: tuple[str, ...], rows: list[tuple]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    writer.writerows([header, *rows])
    return text.getvalue().encode()
