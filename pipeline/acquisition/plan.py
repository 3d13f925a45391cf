"""What is left to do: which clips are here already, which are not worth another try, and what is fetched together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.acquisition.ledger import Attempt, Ledger, now
from pipeline.acquisition.refusals import LATER, NEVER
from pipeline.acquisition.shelf import Shelf
from pipeline.acquisition.source import VIDEO, Place, Source
from pipeline.manifest import Clip

#: What `--retry` tries again, besides clips that were never tried and those at which a site stopped the run.
RETRIES = ("none", "transient", "all")


@dataclass(frozen=True)
class Job:
    """One download and the clips in it."""

    place: Place
    clips: tuple[Clip, ...]


@dataclass
class Plan:
    """Every clip in exactly one of four lists.

    Args:
        done: ids of clips that are here.
        given_up: ids of clips that failed before and are not tried again.
        nowhere: clips that the source has nothing for, with what the ledger should say.
        jobs: the rest, grouped by what is fetched.
    """

    done: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    nowhere: list[Attempt] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    @property
    def clips(self) -> int:
        """Number of clips in the jobs."""
        return sum(len(job.clips) for job in self.jobs)


def make_plan(clips: Iterable[Clip], dataset: str, source: Source, ledger: Ledger, shelf: Shelf, retry: str) -> Plan:
    """Sort the clips into what is done, given up, not to be had here, and to be fetched.

    A failure counts for the source it came from only: what a site refuses may be in a folder.
    """
    plan = Plan()
    groups: dict[str, tuple[Place, list[Clip]]] = {}
    for clip in clips:
        delivered = ledger.delivered(clip.id)
        if delivered is not None and shelf.holds(delivered):
            plan.done.append(clip.id)
            continue
        before = [attempt for attempt in ledger.attempts.get(clip.id, []) if attempt.source == source.name]
        last = before[-1] if before else None
        if last is not None and _is_given_up(last, clip, retry) and shelf.intention(clip.id) is None:
            plan.given_up.append(clip.id)
            continue
        place = source.locate(clip)
        problem = _problem(clip, place, source)
        if problem:
            plan.nowhere.append(
                Attempt(clip.id, dataset, clip.source_id, "absent", problem, LATER, source.name, time=now())
            )
        else:
            groups.setdefault(place.name, (place, []))[1].append(clip)
    ordered = sorted(groups.values(), key=lambda group: group[0].order)
    plan.jobs = [Job(place, tuple(members)) for place, members in ordered]
    return plan


def _problem(clip: Clip, place: Place | None, source: Source) -> str:
    if place is None:
        return f"{source.name}: nothing by the id {' or '.join(dict.fromkeys((clip.id, clip.source_id)))}"
    if source.remote and place.holds == VIDEO and clip.start_s is None:
        return "where the clip lies in its video is not known; give a list of offsets with --offsets"
    return ""


def _is_given_up(last: Attempt, clip: Clip, retry: str) -> bool:
    if last.outcome == "ok":
        return False  # delivered once, gone since
    if last.outcome == "wrong-length" and clip.start_s is not None:
        return retry == "none"  # now it is known where to cut
    if last.again == NEVER:
        return retry != "all"
    return last.again == LATER and retry == "none"
