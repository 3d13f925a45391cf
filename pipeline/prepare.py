"""Stage `prepare`: annotation files, a folder of media, or nothing at all (the demo), to a manifest."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from pipeline.manifest import Manifest, ManifestError

ANNOTATED = ("ave", "llp", "unav100")
DATASETS = (*ANNOTATED, "demo", "folder")


def main(argv: list[str] | None = None) -> int:
    """Write the manifest and print what is in it.  Exit code 0 done, 1 unusable input, 2 usage."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.dataset in ANNOTATED and options.annotations is None:
        parser.error(f"--dataset {options.dataset} needs --annotations DIR, the folder with its annotation files")
    if options.dataset not in ANNOTATED and options.media is None:
        parser.error(f"--dataset {options.dataset} needs --media DIR, the folder of its media files")
    try:
        manifest = _read(options)
        if wanted := options.splits or _default_splits(manifest):
            manifest = _keep_splits(manifest, wanted)
        manifest.check().save(options.out)
    except ManifestError as error:
        print(f"{error.what}: {len(error.problems)} problem(s)", file=sys.stderr)
        print("\n".join(f"  {problem}" for problem in error.problems), file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or options.out}: {error.strerror or error}", file=sys.stderr)
        return 1
    print(summary(manifest))
    print(f"manifest    {options.out}")
    return 0


def summary(manifest: Manifest) -> str:
    """What a person wants to know of a manifest before spending hours on it, as lines of text."""
    facts = manifest.facts
    videos = len({clip.source_id for clip in manifest.clips})
    durations = [clip.duration_s for clip in manifest.clips if clip.duration_s is not None]
    lines = [f"dataset     {manifest.dataset}: {facts.get('title', '')}"]
    lines.append(f"clips       {len(manifest):,} of {videos:,} videos")
    splits = manifest.splits()
    if set(splits) != {""}:
        lines.append("splits      " + ", ".join(f"{name or '(none)'} {count:,}" for name, count in splits.items()))
    if durations:
        hours = sum(durations) / 3600
        lines.append(f"length      {hours:.2f} h; a clip lasts {min(durations):.2f} to {max(durations):.2f} s")
    if unknown := len(manifest) - len(durations):
        lines.append(f"            {unknown:,} clips of unknown length")
    if manifest.classes:
        labels = Counter(label for clip in manifest.clips for label in clip.labels)
        rarest = min(manifest.classes, key=lambda name: labels[name])
        commonest = max(manifest.classes, key=lambda name: labels[name])
        lines.append(
            f"classes     {len(manifest.classes)}; {commonest!r} in {labels[commonest]:,} clips, "
            f"{rarest!r} in {labels[rarest]:,}"
        )
        modalities = Counter(event.modality for clip in manifest.clips for event in clip.events)
        each = ", ".join(f"{name} {count:,}" for name, count in modalities.items())
        lines.append(f"events      {sum(modalities.values()):,} ({each or 'none'})")
    lines.extend(f"annotation  {name}: {entry['version']}" for name, entry in facts.get("annotations", {}).items())
    lines.extend(f"note        {note}" for note in notes(manifest))
    lines.append(f"digest      {manifest.digest}")
    return "\n".join(lines)


def notes(manifest: Manifest) -> list[str]:
    """Oddities that are no errors: what was counted while reading, and counts other than the published ones."""
    facts, found = manifest.facts, []
    if (repeated := facts.get("rows_of_repeated_videos")) is not None:
        found.append(f"{repeated} rows repeat a video of another row; each is a clip of its own")
    if rows := facts.get("zero_length_events"):
        found.append(f"{len(rows)} event(s) of length zero, kept: {', '.join(rows[:5])}")
    if clips := facts.get("repeated_labels"):
        found.append(f"{len(clips)} clip(s) name a label twice, counted once: {', '.join(clips[:5])}")
    for modality in ("audio", "visual"):
        if counted := facts.get(f"{modality}_events"):
            found.append(
                f"{modality} events: {counted['rows']:,} rows, {counted['ignored_rows']} of no val or test clip "
                f"ignored, {counted['empty_intervals']} empty kept, "
                f"{len(counted['inverted_intervals_dropped'])} inverted dropped, {counted['exact_duplicates']} repeated"
            )
    if facts.get("offsets_known") == 0:
        found.append("no download_video.csv: where the videos lie in their YouTube sources is not known")
    for name, meaning in (
        ("added_files", "file(s) are new and stand behind those of the earlier manifest"),
        ("gone_files", "file(s) of the earlier manifest are gone; their clips stay, and what was made of them"),
        ("without_duration", "file(s) cannot be opened or state no length; extract will say why"),
        ("other_files", "file(s) have no ending of a media file"),
        ("hidden", "hidden file(s) and folder(s) were not looked at"),
        ("links_outside", "link(s) lead outside the folder and were refused"),
        ("unusable_names", "file(s) have a name that is no text or holds a backslash"),
        ("unreadable_folders", "folder(s) could not be listed"),
    ):
        if facts.get(name):
            found.append(f"{facts[name]} {meaning}")
    if broken := facts.get("broken"):
        found.append(f"{len(broken)} clips are broken on purpose: {', '.join(sorted(set(broken.values())))}")
    if facts.get("splits_kept"):
        return found
    published = facts.get("counts", {})
    actual = {
        "clips": len(manifest),
        "events": sum(len(clip.events) for clip in manifest.clips),
        "splits": manifest.splits(),
    }
    for name, value in actual.items():
        if name in published and published[name] != value:
            found.append(f"{name}: {value}, while the published dataset has {published[name]}")
    return found


def _read(options: argparse.Namespace) -> Manifest:
    if options.dataset == "folder":
        from pipeline.datasets import folder

        # Rows of a store are positions: clips that an earlier manifest lists keep theirs, new files come behind them.
        earlier = Manifest.load(options.out) if options.out.is_file() else None
        return folder.read(options.media, earlier if earlier and earlier.dataset == "folder" else None)
    from pipeline.datasets import description

    described = description.load(options.dataset)
    if options.dataset == "demo":
        from pipeline.datasets import demo

        plan = demo.DemoPlan.from_text(options.demo_clips, seed=options.seed)
        return demo.read(described, options.media, plan, workers=options.workers)
    from pipeline.datasets import ave, llp, unav100

    reader = {"ave": ave.read, "llp": llp.read, "unav100": unav100.read}[options.dataset]
    return reader(described, options.annotations, options.accept_checksums)


def _default_splits(manifest: Manifest) -> list[str] | None:
    """The demo's teacher clips are short and for the tiny text models only, so they are left out unless asked for."""
    return [name for name in manifest.splits() if name != "teacher"] if manifest.dataset == "demo" else None


def _keep_splits(manifest: Manifest, wanted: list[str]) -> Manifest:
    import dataclasses

    if unknown := [name for name in wanted if not manifest.split(name)]:
        raise ManifestError(
            "--splits", [f"no clip is in split {name!r}; there are {manifest.splits()}" for name in unknown]
        )
    clips = tuple(clip for clip in manifest.clips if clip.split in wanted)
    place = {clip.id: row for row, clip in enumerate(clips)}
    facts = manifest.facts | {"splits_kept": wanted}
    for name in ("broken", "captions"):  # facts about single clips
        if name in facts:
            facts[name] = {key: value for key, value in facts[name].items() if key in place}
    for name in ("zero_length_events", "repeated_labels"):
        if name in facts:
            facts[name] = [clip_id for clip_id in facts[name] if clip_id in place]
    if "orders" in facts:  # row numbers
        orders = {name: [manifest.ids[row] for row in order] for name, order in facts["orders"].items()}
        facts["orders"] = {name: [place[each] for each in ids if each in place] for name, ids in orders.items()}
    if "rows_of_repeated_videos" in facts:
        facts["videos"] = len({clip.source_id for clip in clips})
        facts["rows_of_repeated_videos"] = len(clips) - facts["videos"]
    return dataclasses.replace(manifest, clips=clips, facts=facts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m pipeline.prepare --dataset demo --media runs/demo/media --out runs/demo/M",
    )
    parser.add_argument("--dataset", required=True, choices=DATASETS)
    parser.add_argument("--annotations", type=Path, metavar="DIR", help="annotation files of ave, llp or unav100")
    parser.add_argument(
        "--media",
        type=Path,
        metavar="DIR",
        help="media files of folder (an existing --out is added to); where demo writes its clips",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="MANIFEST", help="Parquet file to write")
    parser.add_argument(
        "--splits",
        type=lambda text: text.split(","),
        metavar="A,B",
        help="keep only these splits (demo: all but `teacher`)",
    )
    parser.add_argument(
        "--accept-checksums",
        action="store_true",
        help="use annotation files that differ from the published ones; the manifest records it",
    )
    demo = parser.add_argument_group("demo")
    demo.add_argument(
        "--demo-clips",
        default="42,12,12,96,7",
        metavar="TRAIN,VAL,TEST,TEACHER,BROKEN",
        help="how many clips of each kind to generate (default %(default)s)",
    )
    demo.add_argument("--seed", type=int, default=0, help="of the generated clips (default %(default)s)")
    demo.add_argument("--workers", type=int, default=2, help="processes that generate clips (default %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
