"""Front ends of CLAP and HTS-AT: ten seconds of samples, and their decibel mel spectrogram.

A spec's `preprocess` names the steps, in order:

    decode rate=HZ channels=mean filter=F              as in `extractors.waves`
    cut | tenths | reindex samples=N                   a row's own window; VALOR's ten pieces; VALOR's whole clip
    round-trip bits=16                                 over integers of full scale 32767, cut towards zero
    repeat-pad samples=N                               whole repeats, then zeros
    log-mel rate=HZ hop=N bank=slaney|htk ...          decibels of 64 bands, 1001 frames
    channels count=4 longer=false                      four equal channels, of which the network reads the first

Two mel banks look alike and are not: networks without fusion were trained behind torchlibrosa (Slaney's scale and
area norm), networks with fusion behind torchaudio's defaults (HTK's scale, no norm).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch

from extractors.base import MediaView, NoAudio
from extractors.constants import kept
from extractors.mel import hann, slaney_mel_matrix
from extractors.spec import Grid
from extractors.waves import parse, row_pieces

WINDOW = 1024
BANDS = 64
FRAMES = 1001
_LOW_HZ, _HIGH_HZ = 50.0, 14_000.0
_FLOOR = 1e-10
_FULL_SCALE = 32_767.0
# Rows transformed at once on an accelerator; a row's spectra take about 16 MB.
_ROWS_ON_DEVICE = 16
_TENTHS = 10


def collect(steps: Sequence[str], media: MediaView, segments: np.ndarray, grid: Grid) -> torch.Tensor:
    """Samples of a clip's rows, all steps before `log-mel` done.

    Args:
        steps: as in this module's docstring, from `decode` on.
        media: of one clip.
        segments: (T, 2) float64 seconds, all rows of the clip or a block of them.
        grid: of the spec; VALOR's pieces are numbered by it.
    Returns:
        (T, n) float32 or float64 samples; n follows from the steps.
    Raises:
        NoAudio: the clip has no audio, or too few samples for ten pieces.
        ValueError: a step that is not known.
    """
    place, settings = parse(steps[1])
    if place == "cut":
        pieces = row_pieces(steps[:2], media, segments)
    elif place == "tenths":
        pieces = tenths(_whole(steps[0], media, at_least=_TENTHS), grid.row_numbers(segments))
    elif place == "reindex":
        pieces = reindex(_whole(steps[0], media, at_least=1), int(settings["samples"]))[None]
    else:
        raise ValueError(f"step {steps[1]!r}: {place!r} is none of cut, tenths, reindex")
    for step in steps[2 : _spectral(steps)]:
        name, settings = parse(step)
        if name == "round-trip":
            pieces = round_trip(pieces)
        elif name == "repeat-pad":
            pieces = repeat_pad(pieces, int(settings["samples"]))
        else:
            raise ValueError(f"step {step!r}: {name!r} is none of round-trip, repeat-pad, and log-mel stands last")
    return torch.from_numpy(np.ascontiguousarray(pieces))


def transform(steps: Sequence[str], pieces: torch.Tensor) -> torch.Tensor:
    """Spectrograms of collected samples, on their device.

    Args:
        steps: as given to `collect`; what stands from `log-mel` on is done.
        pieces: (T, n) samples.
    Returns:
        (T, 1, 1001, 64) float32 decibels.  One channel also where the published code stacks four: without a clip
        longer than ten seconds the network never reads the other three.
    Raises:
        ValueError: a step that is not known.
    """
    place = _spectral(steps)
    _, settings = parse(steps[place])
    for step in steps[place + 1 :]:
        if parse(step)[0] != "channels":
            raise ValueError(f"step {step!r}: only channels may follow log-mel")
    arguments = int(settings["rate"]), int(settings["hop"]), settings["bank"]
    if pieces.device.type != "cpu":
        return log_mel_tensor(pieces, *arguments)[:, None]
    return torch.from_numpy(log_mel(pieces.numpy(), *arguments))[:, None]


def _spectral(steps: Sequence[str]) -> int:
    """Where `log-mel` stands."""
    names = [parse(step)[0] for step in steps]
    if "log-mel" not in names:
        raise ValueError(f"no log-mel among the steps {list(steps)}")
    return names.index("log-mel")


def _whole(step: str, media: MediaView, at_least: int) -> np.ndarray:
    """(L,) float32: the whole clip at the step's rate."""
    _, settings = parse(step)
    if settings["channels"] != "mean":
        raise ValueError(f"step {step!r}: only channels=mean is known here")
    samples = media.audio(int(settings["rate"]), mono=True, resampler=settings["filter"])
    if len(samples) < at_least:
        raise NoAudio(f"{len(samples)} decoded audio samples, at least {at_least} are needed")
    return samples


def round_trip(samples: np.ndarray) -> np.ndarray:
    """float32 samples after CLAP's detour over 16-bit integers: clip, times 32767, cut towards zero, and back."""
    integers = (np.clip(samples.astype(np.float32), -1.0, 1.0) * np.float32(_FULL_SCALE)).astype(np.int16)
    return (integers / _FULL_SCALE).astype(np.float32)


def tenths(samples: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """VALOR's pieces: starts `round(linspace(0, L, 11))[:10]`, each `L // 10` samples long.

    Args:
        samples: (L,), at least 10 samples.
        rows: (T,) int64 numbers 0..9 of the wanted pieces.
    Returns:
        (T, L // 10) of the same dtype.
    """
    total = len(samples)
    starts = np.round(np.linspace(0, total, _TENTHS + 1)).astype(np.int64)
    return samples[starts[rows][:, None] + np.arange(total // _TENTHS)]


def reindex(samples: np.ndarray, total: int) -> np.ndarray:
    """VALOR's way to exactly `total` samples: repeat or drop single ones, `w[round(linspace(0, L - 1, total))]`."""
    return samples[np.round(np.linspace(0, len(samples) - 1, total)).astype(np.int64)]


def repeat_pad(pieces: np.ndarray, samples: int) -> np.ndarray:
    """Pieces repeated as often as they fit whole into `samples`, then zeros.

    48,037 samples fit nine times into 480,000, and a second of digital silence follows: that is the published
    behaviour.  What is longer than `samples` stays as it is up to the last sample before another frame would begin.

    Args:
        pieces: (T, n).
        samples: wanted length, 1000 hops.
    Returns:
        (T, samples), or (T, m) with samples <= m < samples + one hop for longer pieces.
    """
    length = pieces.shape[1]
    if length >= samples:
        return pieces[:, : samples + samples // (FRAMES - 1) - 1]
    repeated = np.tile(pieces, (1, samples // length))
    return np.pad(repeated, ((0, 0), (0, samples - repeated.shape[1])))


@functools.cache
def mel_matrix(rate_hz: int, bank: str) -> np.ndarray:
    """(513, 64) float32 mel bank from 50 Hz to 14 kHz: `slaney` (with area norm) or `htk` (without).

    Raises:
        ValueError: another bank.
    """
    if bank == "slaney":
        matrix = slaney_mel_matrix(rate_hz, WINDOW, BANDS, _LOW_HZ, _HIGH_HZ)
    elif bank == "htk":
        import librosa

        matrix = librosa.filters.mel(
            sr=rate_hz, n_fft=WINDOW, n_mels=BANDS, fmin=_LOW_HZ, fmax=_HIGH_HZ, htk=True, norm=None
        ).T
    else:
        raise ValueError(f"mel bank {bank!r} is neither slaney nor htk")
    matrix = np.ascontiguousarray(matrix)
    matrix.setflags(write=False)
    return matrix


def log_mel(pieces: np.ndarray, rate_hz: int, hop: int, bank: str) -> np.ndarray:
    """Decibel mel spectrograms as CLAP and HTS-AT read them.

    Args:
        pieces: (T, n) mono samples, n in [1000 * hop, 1001 * hop).
        rate_hz: of the samples.
        hop: samples between frames, a hundredth of a second.
        bank: `slaney` or `htk`.
    Returns:
        (T, 1001, 64) float32, computed in float64: 10 log10(max(mel of the power spectrum, 1e-10)); frames are
        centred and the signal is reflected at both ends.
    Raises:
        ValueError: pieces of another length.
    """
    _check(pieces.shape, hop)
    window, matrix = hann(WINDOW), mel_matrix(rate_hz, bank).astype(np.float64)
    spectrograms = np.empty((len(pieces), FRAMES, BANDS), dtype=np.float32)
    for row, piece in enumerate(pieces):
        padded = np.pad(piece.astype(np.float64), WINDOW // 2, mode="reflect")
        computed, places = _distinct_frames(piece, rate_hz, hop)
        frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::hop][computed]
        spectra = np.fft.rfft(frames * window)
        # One product per row: its bits do not depend on the rows beside it.
        mels = np.matmul(spectra.real**2 + spectra.imag**2, matrix)
        spectrograms[row] = (10.0 * np.log10(np.maximum(mels, _FLOOR)))[places]
    return spectrograms


def _distinct_frames(piece: np.ndarray, period: int, hop: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames to compute, and which of them each of the 1001 is.

    A row of one second is that second ten times over, and of its frames nine in ten are the very samples of another:
    all but those that reach over an end.

    Args:
        piece: (n,) samples.
        period: samples that may repeat, a multiple of `hop`.
    """
    everything = np.arange(FRAMES)
    if period % hop or not np.array_equal(piece[period:], piece[:-period]):
        return everything, everything
    first, behind = -(-WINDOW // 2 // hop), (len(piece) - WINDOW // 2) // hop + 1
    inside = (everything >= first) & (everything < behind)
    same_as = np.where(inside, first + (everything - first) % (period // hop), everything)
    return np.unique(same_as, return_inverse=True)


@kept
def _constants(rate_hz: int, bank: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    values = hann(WINDOW), mel_matrix(rate_hz, bank)
    return tuple(torch.tensor(each, dtype=torch.float64, device=device) for each in values)


def log_mel_tensor(pieces: torch.Tensor, rate_hz: int, hop: int, bank: str) -> torch.Tensor:
    """`log_mel` of a tensor, on its device; equal within the rounding of float32.

    The bits of a row may depend on how many rows there are: give always as many.
    """
    _check(pieces.shape, hop)
    window, matrix = _constants(rate_hz, bank, pieces.device)
    spectrograms = []
    for block in pieces.split(_ROWS_ON_DEVICE):
        ends = WINDOW // 2, WINDOW // 2
        padded = torch.nn.functional.pad(block.double()[:, None], ends, mode="reflect")[:, 0]
        spectra = torch.fft.rfft(padded.unfold(1, WINDOW, hop) * window)
        mels = (spectra.real.square() + spectra.imag.square()) @ matrix
        spectrograms.append((10.0 * torch.log10(mels.clamp(min=_FLOOR))).float())
    return torch.cat(spectrograms)


def _check(shape: tuple[int, ...], hop: int) -> None:
    if len(shape) != 2 or shape[1] // hop + 1 != FRAMES:
        raise ValueError(f"{FRAMES} frames need {(FRAMES - 1) * hop} samples a row, found pieces {tuple(shape)}")
