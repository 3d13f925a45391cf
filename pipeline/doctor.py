"""Is this installation sound?  Versions, tools, devices, and every encoder built with random weights and tried."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from pipeline.run import BROKE, DONE, command, versions

if TYPE_CHECKING:
    import torch

    from extractors.base import Encoder


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipeline.doctor",
        description=__doc__,
        epilog="example:\n  python -m pipeline.doctor --encoders vgg19,vggish",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--encoders", help="comma separated names; all by default, which takes minutes and 4 GB")
    made.add_argument("--device", default="cpu")
    return made


class Synthetic:
    """Ten seconds of moving stripes and a chirp, as `extractors.base.MediaView`."""

    duration_s = stated_s = 10.0
    audio_rate_hz = 48_000

    def timeline(self, source: str = "native") -> np.ndarray:
        return np.arange(82) / 8.0

    def frames(self, indices: np.ndarray, source: str = "native") -> np.ndarray:
        stripes = np.arange(320, dtype=np.int64)[None, :] + np.asarray(indices, dtype=np.int64).ravel()[:, None] * 5
        rows = (stripes % 256).astype(np.uint8)
        return np.broadcast_to(rows[:, None, :, None], (len(rows), 240, 320, 3)).copy()

    def audio(self, rate_hz: int | None = None, mono: bool = True, resampler: str = "soxr_hq") -> np.ndarray:
        rate_hz = rate_hz or self.audio_rate_hz
        time_s = np.arange(int(self.duration_s * rate_hz)) / rate_hz
        wave = (0.5 * np.sin(2 * np.pi * (200 + 100 * time_s) * time_s)).astype(np.float32)
        return wave if mono else wave[None]


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from extractors.base import names
    from pipeline.device import use

    wanted = arguments.encoders.split(",") if arguments.encoders else names()
    _surroundings()
    with command("doctor"):
        use(arguments.device)
    failed = [name for name in wanted if not _try(name, arguments.device)]
    print(
        f"{len(wanted) - len(failed)} of {len(wanted)} encoders work"
        + (f"; not: {', '.join(failed)}" if failed else "")
    )
    return BROKE if failed else DONE


def _surroundings() -> None:
    import torch

    from extractors import programs, weights
    from extractors.backends import available

    for name, version in versions().items():
        print(f"{name:24} {version}")
    print(f"{'cores':24} {os.cpu_count()}")
    print(f"{'backends on the CPU':24} {', '.join(available('cpu'))} (the first, unless --backend says otherwise)")
    print(f"{'their converted files in':24} {programs.cache_folder()} (${programs.VARIABLE})")
    print(f"{'checkpoints in':24} {weights.cache_folder()} (${weights.CACHE_VARIABLE})")
    print(f"{'CUDA devices':24} {torch.cuda.device_count()}")
    print(f"{'ffmpeg on PATH':24} {shutil.which('ffmpeg') or 'none (a built-in one is used)'}")


def _try(name: str, device: str) -> bool:
    """Build, prepare on the CPU and on the device, encode two rows; says what went wrong instead of raising."""
    from extractors.base import load

    started_s = time.monotonic()
    try:
        encoder = load(name, "random:0", device)
        media = Synthetic()
        segments = encoder.spec.grid.segments(media.duration_s)[:2]
        prepared = encoder.prepare(media, segments)
        there = encoder.transform(encoder.collect(media, segments).to(device))
        _check(encoder, there, prepared)
        rows = encoder.encode(there).cpu().numpy()
        if rows.shape[1:] != tuple(encoder.spec.shape) or not np.isfinite(rows).all():
            raise ValueError(
                f"rows of shape {rows.shape[1:]}, declared {encoder.spec.shape}, finite: {np.isfinite(rows).all()}"
            )
    except Exception as error:  # a doctor reports every illness and goes on to the next patient
        print(f"{name:24} FAILED: {type(error).__name__}: {error}")
        return False
    print(f"{name:24} ok, {encoder.parameters:,} parameters, {time.monotonic() - started_s:.1f} s")
    return True


def _check(encoder: Encoder, found: torch.Tensor, expected: torch.Tensor) -> None:
    """Raise `ValueError` unless a device transforms rows as the CPU does, which `extract` relies on."""
    difference = (found.cpu().double() - expected.double()).abs().max().item()
    bytes_, in_floats = not expected.is_floating_point(), any("tensor-" in step for step in encoder.spec.preprocess)
    if difference > (1 if bytes_ and in_floats else 0 if bytes_ else 1e-4):
        raise ValueError(
            f"{found.device} makes other rows than the CPU before the network, by up to {difference:.3g}: "
            "pass --transforms workers to extract, and tell us"
        )


if __name__ == "__main__":
    sys.exit(main())
