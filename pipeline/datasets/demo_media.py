"""Draw, play and encode demo scenes: every class has a look that moves and a sound of its own.

Pictures are 320x240 at ten per second, H.264; sound is 44.1 kHz mono, AAC.  Backgrounds differ between clips in colour,
brightness, noise and hum, and a grey square that belongs to no class wanders about.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pipeline.datasets.demo_scene import Scene

WIDTH, HEIGHT, FPS, RATE_HZ = 320, 240, 10, 44_100
TOO_SHORT_S = 0.3
_Y, _X = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)


def write(scene: Scene, folder: Path) -> None:
    """Write `<id>.mp4`, whole or not at all; a broken scene gets a file that is broken as it says."""
    path = folder / f"{scene.id}.mp4"
    if scene.broken == "absent":
        return
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    if scene.broken == "zero-byte":
        partial.write_bytes(b"")
    elif scene.broken == "not-media":
        partial.write_text("This file is text, although its name says video.\n" * 20)
    else:
        kept_s = TOO_SHORT_S if scene.broken == "too-short" else scene.duration_s
        images = None if scene.broken == "no-video" else draw(scene)[: round(kept_s * FPS)]
        samples = None if scene.broken == "no-audio" else play(scene)[: round(kept_s * RATE_HZ)]
        _encode(partial, images, samples)
        if scene.broken == "truncated":  # its index comes first, so it opens, states ten seconds, and ends early
            os.truncate(partial, partial.stat().st_size // 2)
    os.replace(partial, path)


def draw(scene: Scene) -> np.ndarray:
    """Pictures of a scene, (n, H, W, 3) uint8 RGB."""
    rng = np.random.default_rng((*scene.seed, 1))
    background = _background(rng, scene.duration_s * FPS)
    looks = [(range(sight.start_s * FPS, sight.end_s * FPS), LOOKS[sight.label](rng)) for sight in scene.sights]
    noise = rng.normal(0, rng.uniform(1.5, 4), (5, HEIGHT, WIDTH, 1)).astype(np.float32)
    images = np.empty((scene.duration_s * FPS, HEIGHT, WIDTH, 3), np.uint8)
    for index, image in enumerate(background):  # one at a time stays in the processor's cache
        for when, look in looks:
            if index in when:
                _blend(image, *look(index / FPS))
        image += noise[index % len(noise)]
        images[index] = np.clip(image, 0, 255, out=image)
    return images


def _blend(image: np.ndarray, alpha: np.ndarray, colour: np.ndarray) -> None:
    """Lay a shape over the picture, touching only the rows and columns that it reaches."""
    rows, columns = (np.flatnonzero(alpha.any(axis=axis)) for axis in (1, 0))
    if len(rows):
        place = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        part = image[place]
        part += alpha[place][..., None] * ((colour[place] if colour.ndim == 3 else colour) - part)


def play(scene: Scene) -> np.ndarray:
    """Sound of a scene, (N,) float32 in [-1, 1]."""
    rng = np.random.default_rng((*scene.seed, 2))
    count = scene.duration_s * RATE_HZ
    times = np.arange(count) / RATE_HZ
    hiss = rng.normal(0, 1, count)
    sound = rng.uniform(0.002, 0.012) * hiss + rng.uniform(0, 0.01) * np.sin(2 * np.pi * rng.uniform(45, 65) * times)
    fade = np.clip(np.arange(RATE_HZ * 10) / (0.01 * RATE_HZ), 0, 1)
    for stretch in scene.sounds:
        length = (stretch.end_s - stretch.start_s) * RATE_HZ
        made = SOUNDS[stretch.label](rng, np.arange(length) / RATE_HZ)
        made *= rng.uniform(0.12, 0.22) / np.sqrt(np.mean(made**2)) * np.minimum(fade[:length], fade[:length][::-1])
        sound[stretch.start_s * RATE_HZ :][:length] += made
    return np.tanh(sound).astype(np.float32)


Look = Callable[[float], tuple[np.ndarray, np.ndarray]]


def _rgb(rng: np.random.Generator, red: int, green: int, blue: int) -> np.ndarray:
    return np.array([red, green, blue], np.float32) + rng.uniform(-18, 18, 3).astype(np.float32)


def _place(rng: np.random.Generator) -> tuple[float, float, float]:
    """Centre and size in pixels; the shape stays inside the picture."""
    return float(rng.uniform(90, 230)), float(rng.uniform(90, 150)), float(rng.uniform(48, 72))


def _edge(distance: np.ndarray) -> np.ndarray:
    """Opacity of a shape from the signed distance to its edge, inside positive: (H, W) in 0..1."""
    return np.clip(distance + 0.5, 0, 1)


def _bell(rng: np.random.Generator) -> Look:
    """A golden triangle that swings."""
    x, y, size = _place(rng)
    colour, phase = _rgb(rng, 235, 190, 40), rng.uniform(0, 6)

    def look(time: float) -> tuple[np.ndarray, np.ndarray]:
        middle = x + 25 * np.sin(2 * np.pi * time + phase)
        top = y - size
        return _edge(np.minimum((_Y - top) * 0.6 - np.abs(_X - middle), y + size - _Y)), colour

    return look


def _siren(rng: np.random.Generator) -> Look:
    """A box that flashes red and blue."""
    x, y, size = _place(rng)
    colours = _rgb(rng, 240, 20, 30), _rgb(rng, 30, 40, 240)

    def look(time: float) -> tuple[np.ndarray, np.ndarray]:
        inside = np.minimum(size - np.abs(_X - x), size * 0.6 - np.abs(_Y - y))
        return _edge(inside), colours[int(time * 2.5) % 2]

    return look


def _drum(rng: np.random.Generator) -> Look:
    """A dark red disc with a pale rim that jumps."""
    x, y, size = _place(rng)
    skin, rim = _rgb(rng, 150, 20, 40), _rgb(rng, 240, 220, 200)

    def look(time: float) -> tuple[np.ndarray, np.ndarray]:
        distance = np.hypot(_X - x, _Y - y + 30 * abs(np.sin(2 * np.pi * time)))
        inner = _edge(size * 0.75 - distance)[..., None]
        return _edge(size - distance), rim + inner * (skin - rim)

    return look


def _rain(rng: np.random.Generator) -> Look:
    """Pale blue streaks that fall across the whole picture."""
    colour, slant = _rgb(rng, 150, 200, 245), rng.uniform(0.2, 0.5)

    def look(time: float) -> tuple[np.ndarray, np.ndarray]:
        across = np.mod(_X + slant * _Y, 16)
        lane = np.floor((_X + slant * _Y) / 16)
        along = np.mod(_Y - 260 * time + 53 * np.mod(lane * 7, 11), 90)
        return 0.85 * _edge(3 - np.abs(across - 8)) * _edge((along - 25) / 4), colour

    return look


def _bird(rng: np.random.Generator) -> Look:
    """A green body with wings that beat, crossing the picture."""
    x, y, size = _place(rng)
    colour, phase = _rgb(rng, 40, 190, 60), rng.uniform(0, 6)

    def look(time: float) -> tuple[np.ndarray, np.ndarray]:
        middle = x + 70 * np.sin(0.8 * time + phase)
        body = 1 - np.hypot((_X - middle) / size, (_Y - y) / (size * 0.35))
        beat = 0.3 + 0.6 * abs(np.sin(2 * np.pi * 1.7 * time))
        wings = 1 - np.hypot((_X - middle) / (size * 0.35), (_Y - y) / (size * beat))
        return _edge(np.maximum(body, wings) * 20), colour

    return look


def _engine(rng: np.random.Generator) -> Look:
    """A wheel with dark and light spokes that turns."""
    x, y, size = _place(rng)
    dark, light = _rgb(rng, 45, 45, 50), _rgb(rng, 215, 215, 225)
    distance, angle = np.hypot(_X - x, _Y - y), np.arctan2(_Y - y, _X - x)

    def look(time: float) -> tuple[np.ndarray, np.ndarray]:
        spokes = (np.sin(6 * (angle - 2 * time)) > 0)[..., None]
        return _edge(size - distance), np.where(spokes, light, dark)

    return look


LOOKS: dict[str, Callable[[np.random.Generator], Look]] = {
    "bell": _bell,
    "siren": _siren,
    "drum": _drum,
    "rain": _rain,
    "bird": _bird,
    "engine": _engine,
}


def _tones(hertz: np.ndarray | float, times: np.ndarray) -> np.ndarray:
    """A sine whose frequency may change: the phase is the integral of the frequency."""
    return np.sin(2 * np.pi * np.cumsum(np.broadcast_to(hertz, times.shape)) / RATE_HZ)


def _bell_sound(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Strikes of partials that do not fit a harmonic series, dying away."""
    base, since = rng.uniform(480, 560), np.mod(times, 0.5)
    return sum(np.sin(2 * np.pi * base * ratio * since) * np.exp(-since * (3 + ratio)) for ratio in (1, 2.76, 5.4))


def _siren_sound(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """A square-like tone that wails between 700 and 1,500 Hz."""
    wave = _tones(1100 + 400 * np.sin(2 * np.pi * rng.uniform(0.9, 1.3) * times), times)
    return np.tanh(3 * wave)


def _drum_sound(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Four low beats a second."""
    since = np.mod(times, 0.25)
    return np.sin(2 * np.pi * rng.uniform(90, 120) * since) * np.exp(-since * 14) + 0.3 * rng.normal(
        0, 1, len(times)
    ) * np.exp(-since * 90)


def _rain_sound(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Steady noise, stronger towards high frequencies."""
    return np.diff(rng.normal(0, 1, len(times) + 1)) + 0.3 * rng.normal(0, 1, len(times))


def _bird_sound(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Five falling chirps a second, between 5 and 3 kHz."""
    since = np.mod(times, 0.2)
    return _tones(rng.uniform(4800, 5200) - 10_000 * since, times) * np.sin(np.pi * np.clip(since / 0.14, 0, 1))


def _engine_sound(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """A rough sawtooth of about 80 Hz that throbs."""
    saw = 2 * np.mod(rng.uniform(70, 90) * times, 1) - 1
    return saw * (0.7 + 0.3 * np.sin(2 * np.pi * 12 * times))


SOUNDS: dict[str, Callable[[np.random.Generator, np.ndarray], np.ndarray]] = {
    "bell": _bell_sound,
    "siren": _siren_sound,
    "drum": _drum_sound,
    "rain": _rain_sound,
    "bird": _bird_sound,
    "engine": _engine_sound,
}


def _background(rng: np.random.Generator, count: int) -> Iterator[np.ndarray]:
    """A soft gradient that brightens and darkens, with a wandering grey square: `count` times (H, W, 3) float32."""
    corners = rng.uniform(50, 150, (2, 2, 3))
    down, right = (_Y / HEIGHT)[..., None], (_X / WIDTH)[..., None]
    top, bottom = (corners[row, 0] * (1 - right) + corners[row, 1] * right for row in range(2))
    still = (top * (1 - down) + bottom * down).astype(np.float32)
    times = np.arange(count) / FPS
    light = 1 + 0.12 * np.sin(2 * np.pi * rng.uniform(0.05, 0.3) * times + rng.uniform(0, 6))
    size, grey, phases = int(rng.integers(18, 34)), rng.uniform(70, 180), rng.uniform(0, 6, 2)
    lefts = ((WIDTH - size) * (0.5 + 0.5 * np.sin(0.5 * times + phases[0]))).astype(int)
    tops = ((HEIGHT - size) * (0.5 + 0.5 * np.sin(0.7 * times + phases[1]))).astype(int)

    def image(index: int) -> np.ndarray:
        made = still * np.float32(light[index])
        made[tops[index] : tops[index] + size, lefts[index] : lefts[index] + size] = grey
        return made

    return map(image, range(count))


def _encode(path: Path, images: np.ndarray | None, samples: np.ndarray | None) -> None:
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        if images is not None:
            video = container.add_stream("libx264", rate=FPS)
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            video.thread_count = 1  # the same bytes however many cores there are
            video.options = {"preset": "ultrafast", "crf": "30"}
        if samples is not None:
            audio = container.add_stream("aac", rate=RATE_HZ, layout="mono", bit_rate=64_000)
            audio.options = {"aac_coder": "fast"}
        if images is not None:
            for image in images:
                container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(video.encode())
        if samples is not None:
            for start in range(0, len(samples), 1024):
                block = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts = RATE_HZ, start
                container.mux(audio.encode(block))
            container.mux(audio.encode())
