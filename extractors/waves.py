"""From a clip's decoded audio to one piece of samples per row, step by step as a spec's `preprocess` says.

A step is `name key=value ...`.  What stands before `cut` happens to the continuous signal, what stands after it to
each row's piece alone; that order is exactly what separates published features from each other.

    decode rate=file|HZ channels=all|mean [filter=F]   F: soxr_hq (default), kaiser_best, swr
    moviepy rate=HZ                                    instead of decode: `extractors.moviepy_audio`
    round bits=16                                      to 16-bit steps, as a wav file holds them
    mono                                               mean of the channels
    resample rate=HZ filter=kaiser_best                resampy
    cut [samples=N]                                    from the row's start; default the row's whole window
    length samples=N                                   keep the first N samples of a piece

Audio that ends early reads as silence: whether such rows are kept is the caller's tail policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from extractors.base import MediaView, NoAudio

# The continuous signal is worked on in tiles of fixed place and length, so that memory does not follow the clip and a
# row does not depend on the block it came in.  A tile starts on a whole second, where the sample grids of any two
# integer rates meet, and carries a second of context on both sides, far more than a resampling filter reaches.
_TILE_S = 10
_CONTEXT_S = 1
_FULL_SCALE = 32_768.0


@dataclass(frozen=True)
class _Sound:
    """Samples along the last axis, channels before it, rows (after `cut`) before those."""

    samples: np.ndarray
    rate_hz: int


def parse(step: str) -> tuple[str, dict[str, str]]:
    """`"cut samples=400"` -> `("cut", {"samples": "400"})`."""
    name, *settings = step.split()
    return name, dict(setting.split("=", 1) for setting in settings)


def _round(sound: _Sound, bits: str) -> _Sound:
    if bits != "16":
        raise ValueError(f"round bits={bits}: only 16 is known")
    steps = np.clip(np.rint(sound.samples * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1)
    return _Sound(steps / _FULL_SCALE, sound.rate_hz)


def _mono(sound: _Sound) -> _Sound:
    return _Sound(sound.samples.mean(axis=-2), sound.rate_hz)


def _resample(sound: _Sound, rate: str, filter: str) -> _Sound:
    if filter != "kaiser_best":
        raise ValueError(f"resample filter={filter}: only kaiser_best is known; decode knows more")
    if int(rate) == sound.rate_hz:
        return sound
    import resampy

    samples = resampy.resample(sound.samples, sound.rate_hz, int(rate), filter="kaiser_best", axis=-1)
    return _Sound(samples, int(rate))


def _length(sound: _Sound, samples: str) -> _Sound:
    return _Sound(sound.samples[..., : int(samples)], sound.rate_hz)


_STEPS: dict[str, Callable[..., _Sound]] = {"round": _round, "mono": _mono, "resample": _resample, "length": _length}


def _apply(sound: _Sound, steps: Sequence[str]) -> _Sound:
    for step in steps:
        name, settings = parse(step)
        if name not in _STEPS:
            raise ValueError(f"audio step {step!r}: {name!r} is none of {', '.join(_STEPS)} (one source, one cut)")
        sound = _STEPS[name](sound, **settings)
    return sound


def _decode(media: MediaView, rate: str, channels: str, filter: str = "soxr_hq") -> _Sound:
    """(C, N) samples as float32; a mean of the channels keeps no channel axis."""
    rate_hz = None if rate == "file" else int(rate)
    samples = np.asarray(media.audio(rate_hz, mono=channels == "mean", resampler=filter))
    if samples.shape[-1] == 0:
        raise NoAudio("no decoded audio sample")
    return _Sound(samples, media.audio_rate_hz if rate_hz is None else rate_hz)


def _moviepy(media: MediaView, rate: str) -> _Sound:
    """(2, N) samples as moviepy writes them."""
    from extractors.moviepy_audio import READER_RATE_HZ, written

    samples = np.asarray(media.audio(READER_RATE_HZ, mono=False, resampler="swr"))
    if samples.shape[-1] == 0:
        raise NoAudio("no decoded audio sample")
    return _Sound(written(samples, media.stated_s, int(rate)), int(rate))


_SOURCES: dict[str, Callable[..., _Sound]] = {"decode": _decode, "moviepy": _moviepy}


def _slice(samples: np.ndarray, start: int, stop: int) -> np.ndarray:
    """`samples[..., start:stop]` as float64, zeros where the signal has no samples."""
    total = samples.shape[-1]
    inside = samples[..., min(max(start, 0), total) : min(max(stop, 0), total)].astype(np.float64)
    before = min(max(-start, 0), stop - start)
    after = stop - start - before - inside.shape[-1]
    return np.pad(inside, [(0, 0)] * (samples.ndim - 1) + [(before, after)])


def row_pieces(steps: Sequence[str], media: MediaView, segments: np.ndarray) -> np.ndarray:
    """The samples that stand for each row.

    Args:
        steps: from `decode` or `moviepy` to the last step on samples; exactly one `cut`.
        media: of one clip.
        segments: (T, 2) float64 seconds, ascending.
    Returns:
        (T, n) float64 in about [-1, 1]; n follows from the steps and the window.
    Raises:
        NoAudio: the clip has no audio sample.
        ValueError: a step that is not known.
    """
    segments = np.asarray(segments, dtype=np.float64)
    names = [parse(step)[0] for step in steps]
    if not names or names[0] not in _SOURCES or names.count("cut") != 1:
        raise ValueError(f"audio steps start with decode or moviepy and have one cut; found {list(steps)}")
    cut = names.index("cut")
    source = _SOURCES[names[0]](media, **parse(steps[0])[1])
    settings = parse(steps[cut])[1]
    window_s = float(segments[0, 1] - segments[0, 0])
    tile_of_row = np.floor(segments[:, 0] / _TILE_S).astype(np.int64)

    parts = []
    for tile in np.unique(tile_of_row):
        start_s = int(tile) * _TILE_S - _CONTEXT_S
        stop_s = (int(tile) + 1) * _TILE_S + int(np.ceil(window_s)) + _CONTEXT_S
        stretch = _slice(source.samples, start_s * source.rate_hz, stop_s * source.rate_hz)
        sound = _apply(_Sound(stretch, source.rate_hz), steps[1:cut])
        starts = np.rint(segments[tile_of_row == tile, 0] * sound.rate_hz).astype(np.int64)
        wanted = int(settings.get("samples", round(window_s * sound.rate_hz)))
        places = (starts - start_s * sound.rate_hz)[:, None] + np.arange(wanted)
        pieces = np.moveaxis(sound.samples[..., places], -2, 0)
        parts.append(_apply(_Sound(pieces, sound.rate_hz), steps[cut + 1 :]).samples)
    return np.concatenate(parts)
