"""The acquire command over a small manifest, and what it leaves, for the tests of the whole stage."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline import acquire
from pipeline.manifest import Clip, Event, Manifest

QUICK = ["--pause", "0", "--backoff", "0.01", "--timeout", "30", "--longest", "4", "--max-size", "400K"]


class Run:
    """A manifest, a media folder and a ledger, and the command over them."""

    def __init__(self, folder: Path, clips: list[Clip], dataset: str = "ave") -> None:
        self.folder, self.media, self.ledger = folder, folder / "media", folder / "ledger.jsonl"
        self.manifest = Manifest(dataset, tuple(clips), ("bark",))
        self.manifest.save(folder / "manifest.parquet")

    def arguments(self, *more: object) -> list[str]:
        named = {"manifest": self.folder / "manifest.parquet", "media": self.media, "ledger": self.ledger}
        words = [str(word) for name, value in named.items() for word in (f"--{name}", value)]
        return [*words, "--receipt", str(self.folder / "receipt.json"), *QUICK, *map(str, more)]

    def __call__(self, *more: object) -> int:
        return acquire.main(self.arguments(*more))

    def records(self) -> list[dict]:
        return [json.loads(line) for line in self.ledger.read_text().splitlines()]

    def attempts(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for record in self.records():
            if "clip" in record:
                found.setdefault(record["clip"], []).append(record["outcome"])
        return found

    def receipt(self) -> dict:
        return json.loads((self.folder / "receipt.json").read_text())

    def files(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.media).as_posix(): path.read_bytes()
            for path in sorted(self.media.rglob("*"))
            if path.is_file() and not path.relative_to(self.media).as_posix().startswith(".")
        }


def clip(number: int, start_s: float = 1.0, name: str = "", split: str = "train") -> Clip:
    """Two seconds of the video with this number."""
    source = f"-{number:010d}"
    return Clip(
        name or f"{source}_{number}", source, start_s, 2.0, split, ("bark",), (Event("bark", "both", 0.0, 1.0),)
    )
