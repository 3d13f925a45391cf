"""The run itself: fetch, cut or copy, verify, rename, record, one job after another."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.access import AccessError
from pipeline.acquisition import cut, disk
from pipeline.acquisition.checker import Checker
from pipeline.acquisition.facts import BadMedia, judge
from pipeline.acquisition.ledger import Attempt, Ledger, Stop, now
from pipeline.acquisition.pace import Pace
from pipeline.acquisition.plan import Job
from pipeline.acquisition.refusals import LATER, STAY_AWAY_S, STOP, Refusal
from pipeline.acquisition.shelf import Shelf, bring
from pipeline.acquisition.source import CLIP, VIDEO, Fetched, Place, Source, decide
from pipeline.manifest import Clip
from pipeline.run import Progress, log, write_json

# Worth another try within the run.  A time limit is not: the next try would take as long.
_TRY_AGAIN = ("transient", "truncated")
# After these the download may be sound, so it is kept for the next run.
_KEEP_DOWNLOAD = ("crashed", "timeout")
# So many downloads in a row that end in network trouble mean that the network is down, not the videos.
TROUBLE_IN_A_ROW = 20


@dataclass(frozen=True)
class Settings:
    """How clips are made.

    Args:
        tries: of one download within a run.
        tolerance_s: by which a clip's streams may end early or late.
        need: `both`, `audio`, `video` or `any` stream.
        keep_original: keep whole videos uncut under `full/`; extract cuts while decoding.
        link: second names instead of copies of files that the user has.
        timeout_s: for decoding or cutting one file.
        known_starts: ids of clips whose start is in the manifest; only they can be cut while decoding.
    """

    tries: int = 3
    tolerance_s: float = 0.5
    need: str = "both"
    keep_original: bool = False
    link: bool = False
    timeout_s: float = 1800.0
    known_starts: frozenset[str] = field(default_factory=frozenset)


class Collector:
    """Works through jobs and writes down what became of every clip.

    Args:
        dataset: for the ledger.
        quiet: no progress lines.
    """

    def __init__(
        self,
        source: Source,
        shelf: Shelf,
        ledger: Ledger,
        pace: Pace,
        settings: Settings,
        dataset: str,
        quiet: bool = False,
    ) -> None:
        self.source, self.shelf, self.ledger, self.pace = source, shelf, ledger, pace
        self.settings, self.dataset, self.quiet = settings, dataset, quiet
        self.stopped: Stop | None = None
        self.network_is_down = False
        self._trouble = 0
        self._stop = threading.Event()
        self._local = threading.local()
        self._checkers: list[Checker] = []
        self._lock = threading.Lock()

    def run(self, jobs: Iterable[Job], concurrency: int = 1) -> Stop | None:
        """Do the jobs; return why the run stopped early, or None."""
        jobs = list(jobs)
        progress = None if self.quiet else Progress(len(jobs), "downloads" if self.source.remote else "files")
        try:
            if concurrency == 1:
                for job in jobs:
                    self._do(job, progress)
            else:
                with ThreadPoolExecutor(concurrency, "acquire") as pool:
                    for done in [pool.submit(self._do, job, progress) for job in jobs]:
                        try:
                            done.result()
                        except BaseException:
                            self._stop.set()
                            raise
        finally:
            if progress is not None:
                progress.close()
            for checker in self._checkers:
                checker.close()
            self._checkers.clear()
            self._local = threading.local()
        return self.stopped

    def _checker(self) -> Checker:
        if not hasattr(self._local, "checker"):
            self._local.checker = Checker(self.settings.timeout_s)
            with self._lock:
                self._checkers.append(self._local.checker)
        return self._local.checker

    # ---- one job ------------------------------------------------------------------------------------------------

    def _do(self, job: Job, progress: Progress | None) -> None:
        if self._stop.is_set():
            return
        clips = [clip for clip in job.clips if not self._is_here(clip, job.place)]
        if clips:
            folder = self.shelf.work(job.place)
            fetched, place = self._fetch(job.place, clips, folder)
            if fetched is not None:
                outcomes = self._make_all(clips, fetched, place, folder)
                if not set(outcomes) & set(_KEEP_DOWNLOAD):
                    _remove(folder)
        if progress is not None:
            with self._lock:
                progress.add()

    def _is_here(self, clip: Clip, place: Place) -> bool:
        """Whether a file stands where the clip belongs and is the clip; the ledger then learns of it."""
        if (intended := self.shelf.intention(clip.id)) is not None:
            self.ledger.add(intended)
            self.shelf.settle(clip.id)
            return True
        path = self.shelf.find(clip)
        if path is None:
            return False
        try:
            facts = self._checker().inspect(path)
            judge(facts, path.name, clip.duration_s, self.settings.tolerance_s, self.settings.need)
        except BadMedia:
            return False
        media = self.shelf.describe(path) | {"made": "found", "facts": facts.to_dict()}
        self.ledger.add(self._attempt(clip, place, "ok", media=media))
        return True

    def _fetch(self, place: Place, clips: list[Clip], folder: Path) -> tuple[Fetched | None, Place]:
        """The file, or None after the ledger has been told why not."""
        if place.holds != CLIP and (original := self.shelf.find_original(clips[0].source_id)) is not None:
            return Fetched(original, owned=False), Place(place.name, VIDEO)
        finished = _finished(folder)
        if finished is not None:
            return Fetched(finished, owned=True), place
        failures = 0
        while True:
            if self.source.remote:
                self.pace.wait_turn()
                if self._stop.is_set():
                    return None, place
            try:
                fetched = self.source.fetch(place, folder)
                self._trouble = 0
                if fetched.owned:
                    write_json(folder / "fetched.json", {"file": fetched.path.name})
                return fetched, place
            except Refusal as refusal:
                failures += 1
                again = refusal.outcome in _TRY_AGAIN and failures < self.settings.tries and self.source.remote
                too_long = (refusal.retry_after_s or 0) > self.pace.longest_wait_s
                self._refused(refusal, clips, place)
                if refusal.again == STOP:
                    self._stop_run(refusal)
                    return None, place
                if not again or too_long or self._stop.is_set():
                    if refusal.again != LATER:
                        _remove(folder)
                    self._count_trouble(refusal)
                    return None, place
                self.pace.back_off(failures, refusal.retry_after_s)

    def _refused(self, refusal: Refusal, clips: list[Clip], place: Place) -> None:
        message, outcome, again = refusal.message, refusal.outcome, refusal.again
        self.ledger.add(*(self._attempt(clip, place, outcome, message, again) for clip in clips))

    def _count_trouble(self, refusal: Refusal) -> None:
        with self._lock:
            self._trouble = self._trouble + 1 if refusal.outcome == "transient" else 0
            if self._trouble >= TROUBLE_IN_A_ROW:
                self.network_is_down = True
                self._stop.set()

    def _stop_run(self, refusal: Refusal) -> None:
        self._stop.set()
        stay_away_s = refusal.retry_after_s
        if stay_away_s is None:
            stay_away_s = STAY_AWAY_S[refusal.outcome]
        come_back = (datetime.now(UTC) + timedelta(seconds=stay_away_s)).isoformat(timespec="seconds")
        with self._lock:
            self.stopped = Stop(refusal.outcome, refusal.message, self.source.name, now(), come_back)
        self.ledger.stop(self.stopped)

    # ---- one clip -----------------------------------------------------------------------------------------------

    def _make_all(self, clips: list[Clip], fetched: Fetched, place: Place, folder: Path) -> list[str]:
        """Outcomes of the clips, each recorded."""
        outcomes = []
        starts = len({clip.start_s for clip in clips})
        for clip in clips:
            try:
                media, new, target = self._make(clip, fetched, place, folder, starts)
                attempt = self._attempt(clip, place, "ok", media=media)
                if new is not None:
                    self.shelf.intend(attempt)
                    self.shelf.put(new, target)
                self.ledger.add(attempt)
                self.shelf.settle(clip.id)
                outcomes.append("ok")
            except BadMedia as error:
                again = LATER if error.outcome in (*_KEEP_DOWNLOAD, "truncated") else "never"
                self.ledger.add(self._attempt(clip, place, error.outcome, error.message, again))
                outcomes.append(error.outcome)
            except OSError as error:
                if isinstance(error, AccessError):
                    raise
                disk.check_error(error, folder)
                self.ledger.add(self._attempt(clip, place, "decode-error", str(error), LATER))
                outcomes.append("decode-error")
        return outcomes

    def _make(
        self, clip: Clip, fetched: Fetched, place: Place, folder: Path, starts: int
    ) -> tuple[dict[str, Any], Path | None, Path]:
        """The media record of a verified file, the file under its temporary name, and its final name.

        The temporary name is None where the file already has its final one.
        """
        checker, settings = self._checker(), self.settings
        length_s, ending = checker.probe(fetched.path)
        suffix = fetched.path.suffix if fetched.path.suffix else ending
        if decide(place.holds, length_s, clip, starts, settings.tolerance_s) == CLIP:
            target = self.shelf.target(clip, suffix)
            if target.exists() and target.samefile(fetched.path):
                facts = checker.inspect(target)
                judge(facts, target.name, clip.duration_s, settings.tolerance_s, settings.need)
                return self.shelf.describe(target) | {"made": "found", "facts": facts.to_dict()}, None, target
            new = folder / "new" / target.name
            bring(fetched.path, new, link=fetched.owned or settings.link)
            return self._record(clip, new, target, {"made": "copied"}), new, target
        if clip.start_s is None:
            raise BadMedia("wrong-length", f"where clip {clip.id} lies in its video is not known; give --offsets")
        if settings.keep_original and clip.id in settings.known_starts and clip.media is None:
            return self._keep(clip, fetched, suffix)
        target = self.shelf.target(clip, ".mp4")
        new = folder / "new" / f"{target.stem}.mp4"
        made = cut.cut(fetched.path, new, clip.start_s, clip.duration_s, settings.timeout_s)
        record = {
            "made": "cut",
            "window": {"start_s": clip.start_s, "duration_s": clip.duration_s},
            "settings": made | {"ffmpeg": cut.ffmpeg_version()},
        }
        return self._record(clip, new, target, record), new, target

    def _record(self, clip: Clip, new: Path, target: Path, made: dict[str, Any]) -> dict[str, Any]:
        facts = self._checker().inspect(new)
        judge(facts, target.name, clip.duration_s, self.settings.tolerance_s, self.settings.need)
        described = self.shelf.describe(new) | {"file": target.relative_to(self.shelf.folder).as_posix()}
        return described | made | {"facts": facts.to_dict()}

    def _keep(self, clip: Clip, fetched: Fetched, suffix: str) -> tuple[dict[str, Any], None, Path]:
        """Check the clip's window of the whole video, and keep the video."""
        facts = self._checker().inspect(fetched.path, clip.start_s, clip.duration_s)
        judge(facts, fetched.path.name, clip.duration_s, self.settings.tolerance_s, self.settings.need)
        target = self.shelf.find_original(clip.source_id) or self.shelf.original(clip.source_id, suffix)
        if not target.exists():
            new = self.shelf.partial / f"new-{threading.get_ident()}-{target.name}"
            bring(fetched.path, new, link=fetched.owned or self.settings.link)
            self.shelf.put(new, target)
        window = {"start_s": clip.start_s, "duration_s": clip.duration_s}
        return self.shelf.describe(target) | {"made": "kept", "window": window, "facts": facts.to_dict()}, None, target

    def _attempt(
        self, clip: Clip, place: Place, outcome: str, message: str = "", again: str = "", media: dict | None = None
    ) -> Attempt:
        return Attempt(
            clip=clip.id,
            dataset=self.dataset,
            source_id=clip.source_id,
            outcome=outcome,
            message=message,
            again=again,
            source=self.source.name,
            place=place.name,
            time=now(),
            versions=self.source.versions() | {"av": metadata.version("av")},
            media=media,
        )


def announce(stop: Stop) -> None:
    """Tell the person at the keyboard why the run ended and when to come back."""
    from pipeline.acquisition.refusals import HINTS

    log(f"stopped ({stop.outcome}): {stop.message}")
    log(f"Nothing is asked of {stop.source} again before {stop.come_back} (UTC).  {HINTS[stop.outcome]}")


def _finished(folder: Path) -> Path | None:
    """The complete download that an earlier run left in its work folder."""
    import json

    try:
        path = folder / Path(json.loads((folder / "fetched.json").read_text(encoding="utf-8"))["file"]).name
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return path if path.is_file() else None


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
