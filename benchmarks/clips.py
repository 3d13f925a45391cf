"""Clips to measure with: made, so that anyone has the same ones, or a folder of real ones.

Made clips are 10 s of 25 frames a second, H.264 (x264 `veryfast`, crf 23, a key frame every 2 s) with AAC stereo at
44.1 kHz: two textures with the spectrum of photographs (amplitude 1/f) that move over each other, with sensor noise,
so that motion, residuals and bit rate (0.5 to 1 Mbit/s at 640x360) are those of ordinary web video.

    python benchmarks/clips.py --out clips --count 8 --size 640x360
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

DURATION_S, RATE_FPS, AUDIO_HZ = 10.0, 25, 44_100
#: Clips with pictures of their own; more clips are further names of these files.
DISTINCT = 8


def texture(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """(height, width, 3) float32 around 128 with amplitude falling as 1/f, as in photographs."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1.0
    grey = np.fft.rfft2(random.normal(size=(height, width))) / frequency
    grey[0, 0] = 0.0
    layers = [grey + 0.4 * np.fft.rfft2(random.normal(size=(height, width))) / frequency for _ in range(3)]
    planes = np.stack([np.fft.irfft2(layer, s=(height, width)) for layer in layers], axis=2)
    return (128 + 45 * planes / planes.std()).clip(0, 255).astype(np.float32)


def pictures(height: int, width: int, count: int, seed: int) -> Iterator[np.ndarray]:
    """(height, width, 3) uint8 frames: a background that pans and a disc of another texture that travels."""
    random = np.random.default_rng(seed)
    margin = 64
    background = texture(height + margin, width + margin, random)
    disc = texture(height // 2, height // 2, random)
    side = disc.shape[0]
    radius = np.hypot(*np.meshgrid(*[np.linspace(-1, 1, side)] * 2))
    inside = (radius < 1)[..., None]
    noise = random.normal(scale=1.5, size=(4, height, width, 1)).astype(np.float32)
    phase = random.uniform(0, 2 * np.pi, 2)
    for number in range(count):
        angle = 2 * np.pi * number / (8 * RATE_FPS)
        top, left = (int(margin / 2 * (1 + np.sin(angle * speed + phase[0]))) for speed in (1.0, 0.7))
        picture = background[top : top + height, left : left + width] + noise[number % 4]
        y = int((height - side) / 2 * (1 + np.sin(angle + phase[1])))
        x = int((width - side) / 2 * (1 + np.cos(0.8 * angle + phase[1])))
        picture[y : y + side, x : x + side] = np.where(inside, disc, picture[y : y + side, x : x + side])
        yield picture.clip(0, 255).astype(np.uint8)


def sound(duration_s: float, seed: int) -> np.ndarray:
    """(2, N) float32: gliding harmonics over noise, other phases left and right."""
    random = np.random.default_rng(seed)
    times_s = np.arange(round(duration_s * AUDIO_HZ)) / AUDIO_HZ
    glide = 110 * (1 + seed % 5) * times_s + 30 * np.sin(2 * np.pi * times_s / 3)
    channels = [
        sum(np.sin(2 * np.pi * order * glide + random.uniform(0, 6)) / order for order in range(1, 9)) for _ in range(2)
    ]
    mixed = 0.15 * np.stack(channels) + 0.03 * random.normal(size=(2, len(times_s)))
    return mixed.clip(-0.99, 0.99).astype(np.float32)


def write(path: Path, width: int, height: int, seed: int, duration_s: float = DURATION_S) -> Path:
    """Encode one clip; the file appears when it is complete."""
    import av

    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    with av.open(str(partial), "w", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=RATE_FPS)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.options = {"preset": "veryfast", "crf": "23", "g": str(2 * RATE_FPS)}
        audio = container.add_stream("aac", rate=AUDIO_HZ, layout="stereo")
        audio.bit_rate = 128_000
        for number, picture in enumerate(pictures(height, width, round(duration_s * RATE_FPS), seed)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE_FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        samples = sound(duration_s, seed)
        for start in range(0, samples.shape[1], AUDIO_HZ):
            piece = np.ascontiguousarray(samples[:, start : start + AUDIO_HZ])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = AUDIO_HZ, start, Fraction(1, AUDIO_HZ)
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
    os.replace(partial, path)
    return path


def make(folder: Path, count: int, size: str = "640x360", duration_s: float = DURATION_S) -> list[Path]:
    """`count` clips `clip-00000.mp4` and so on; made where they are not there yet.

    Args:
        count: of names; only `DISTINCT` files are encoded, the others are hard links to them.
        size: WIDTHxHEIGHT, even.
    """
    folder.mkdir(parents=True, exist_ok=True)
    width, _, height = size.partition("x")
    paths = [folder / f"clip-{number:05d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        if path.exists():
            continue
        if number < DISTINCT:
            write(path, int(width), int(height), number, duration_s)
        else:
            os.link(paths[number % DISTINCT], path)
    return paths


def real(folder: Path) -> list[Path]:
    """The MP4 files of a folder, in order of their names.

    Raises:
        FileNotFoundError: there is none.
    """
    paths = sorted(folder.glob("*.mp4"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no .mp4 file in it")
    return paths


def gather(folder: Path, count: int, media: Path | None, size: str = "640x360") -> list[Path]:
    """`count` files in `folder`: made, or links to the files of `media`, each used again as often as needed."""
    if media is None:
        return make(folder, count, size)
    folder.mkdir(parents=True, exist_ok=True)
    sources = real(media)
    paths = [folder / f"real-{number:05d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            path.symlink_to(sources[number % len(sources)].resolve())
    return paths


def manifest(paths: list[Path], out: Path, duration_s: float | None = None) -> Path:
    """A manifest over these files of one folder.

    Args:
        duration_s: of every clip; None asks the files.
    """
    from pipeline.datasets.folder import probe_duration
    from pipeline.manifest import Clip, Manifest

    lengths = {path.resolve(): None for path in paths}
    for path in lengths:
        lengths[path] = duration_s if duration_s is not None else probe_duration(path)
    clips = tuple(Clip(path.stem, path.stem, 0.0, lengths[path.resolve()], media=path.name) for path in paths)
    Manifest("benchmark", clips).check().save(out)
    return out


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--count", type=int, default=DISTINCT)
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--seconds", type=float, default=DURATION_S)
    arguments = parser.parse_args(argv)
    for path in make(arguments.out, arguments.count, arguments.size, arguments.seconds):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
