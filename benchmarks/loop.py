"""The straightforward way: one encoder after the other, one clip after the other, as published extraction scripts go.

All frames are decoded to RGB (OpenCV), or dumped as JPEGs and read back (the LLP recipes); every frame is resized by
Pillow through torchvision's transforms; a clip is one batch of an eager network with the libraries' default settings;
rows are saved as one .npy a clip.  Front ends are written here with the libraries that the scripts use, so that equal
rows say something; networks and seeded weights are those of the recipe.

    python benchmarks/loop.py --encoders resnet50:cace2024 --clips clips/*.mp4 --out rows

Writes rows/<encoder>/<clip>.npy.  `benchmarks/end_to_end.py` times this program against `pipeline.extract`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_KINETICS = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))


@dataclass(frozen=True)
class Script:
    """One published way from a file to rows.

    Args:
        read: (path, dump folder) -> network input of the clip, one tensor.
        run: (network, input) -> (T, ...) rows.
        dumps: reads the JPEGs that `dump` writes.
    """

    read: Callable[[Path, Path | None], torch.Tensor]
    run: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]
    dumps: bool = False


# ---- pictures -------------------------------------------------------------------------------------------------------


def all_frames(path: Path) -> tuple[list[np.ndarray], float]:
    """Every frame as (H, W, 3) uint8 RGB, and the frame rate."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    rate = capture.get(cv2.CAP_PROP_FPS)
    frames = []
    while True:
        there, picture = capture.read()
        if not there:
            break
        frames.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    capture.release()
    return frames, rate


def tenths(count: int) -> list[int]:
    """AVE and CACE-Net: 16 frames of each tenth of the clip."""
    interval = count // 10
    return [int(second * interval + (step / 16) * interval) for second in range(10) for step in range(16)]


def middles(count: int, rate: float) -> list[int]:
    """The frame that is on screen at the middle of each whole second."""
    return [min(int((second + 0.5) * rate + 1e-6), count - 1) for second in range(max(int(count / rate + 1e-6), 1))]


def transform(size: int | tuple[int, int], crop: int | None, statistics: tuple, bicubic: bool = False) -> Callable:
    """PIL picture to (3, S, S) float32, with torchvision's classes."""
    from torchvision import transforms

    kernel = transforms.InterpolationMode.BICUBIC if bicubic else transforms.InterpolationMode.BILINEAR
    steps = [transforms.Resize(size, interpolation=kernel)]
    if crop:
        steps.append(transforms.CenterCrop(crop))
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(*statistics)])


def stack(pictures: list[np.ndarray], change: Callable) -> torch.Tensor:
    from PIL import Image

    return torch.stack([change(Image.fromarray(picture)) for picture in pictures])


def _tenths_of(change: Callable[[], Callable]) -> Callable[[Path, Path | None], torch.Tensor]:
    def read(path: Path, _: Path | None) -> torch.Tensor:
        frames, _rate = all_frames(path)
        return stack([frames[number] for number in tenths(len(frames))], change())

    return read


def _middles_of(change: Callable[[], Callable]) -> Callable[[Path, Path | None], torch.Tensor]:
    def read(path: Path, _: Path | None) -> torch.Tensor:
        frames, rate = all_frames(path)
        return stack([frames[number] for number in middles(len(frames), rate)], change())

    return read


def _caffe() -> Callable:
    """cv2 squash to 224, BGR, means subtracted: Keras' VGG-19 input."""
    import cv2

    mean = np.array([103.939, 116.779, 123.68], dtype=np.float32)

    def change(picture: object) -> torch.Tensor:
        small = cv2.resize(np.asarray(picture), (224, 224))
        return torch.from_numpy(small[..., ::-1].astype(np.float32) - mean).permute(2, 0, 1)

    return change


def dump(path: Path, folder: Path) -> None:
    """The LLP authors' frames: 8 a second, as JPEGs."""
    from pipeline.framedump import executable

    command = [executable(), "-nostdin", "-loglevel", "error", "-i", str(path), "-y", "-r", "8", f"{folder}/%06d.jpg"]
    subprocess.run(command, check=True)


def _jpegs_of(change: Callable[[], Callable]) -> Callable[[Path, Path | None], torch.Tensor]:
    def read(_: Path, folder: Path | None) -> torch.Tensor:
        from PIL import Image

        paths = sorted(folder.glob("*.jpg"))
        picked = np.linspace(0, len(paths) - 1, 80).round().astype(int)
        changed = change()
        return torch.stack([changed(Image.open(paths[number]).convert("RGB")) for number in picked])

    return read


# ---- sound ----------------------------------------------------------------------------------------------------------


def wav_of(path: Path, folder: str, *options: str) -> tuple[np.ndarray, int]:
    """(N, C) float64 in [-1, 1] and the rate, by way of a 16-bit wav file."""
    import soundfile

    from pipeline.framedump import executable

    target = f"{folder}/sound.wav"
    subprocess.run(
        [executable(), "-nostdin", "-loglevel", "error", "-i", str(path), "-y", "-vn", *options, target], check=True
    )
    samples, rate_hz = soundfile.read(target, dtype="int16", always_2d=True)
    return samples / 32768.0, rate_hz


def log_mel(samples: np.ndarray) -> np.ndarray:
    """(96, 64) log-mel patch of 0.975 s at 16 kHz, frame by frame spectrum as in the AudioSet release."""
    from extractors.mel import hann, vggish_mel_matrix

    frames = np.stack([samples[start : start + 400] for start in range(0, 95 * 160 + 1, 160)])
    magnitude = np.abs(np.fft.rfft(frames * hann(400), 512))
    return np.log(magnitude @ vggish_mel_matrix() + 0.01)


def _patches(seconds: list[np.ndarray]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(log_mel(samples)).float() for samples in seconds])[:, None]


def _ave_sound(path: Path, _: Path | None) -> torch.Tensor:
    """AVE: each second of the wav cut, made mono and resampled alone."""
    import resampy

    with tempfile.TemporaryDirectory() as folder:
        samples, rate_hz = wav_of(path, folder)
    seconds = [samples[second * rate_hz : (second + 1) * rate_hz].mean(axis=1) for second in range(10)]
    return _patches([resampy.resample(second, rate_hz, 16_000, filter="kaiser_best") for second in seconds])


def _llp_sound(path: Path, _: Path | None) -> torch.Tensor:
    """LLP: the wav that moviepy writes at 16 kHz (here from the same 44.1 kHz stereo, by our map of its samples)."""
    from extractors.moviepy_audio import written
    from pipeline.datasets.folder import probe_duration

    with tempfile.TemporaryDirectory() as folder:
        samples, _rate = wav_of(path, folder, "-ar", "44100", "-ac", "2")
    mono = written(samples.T.astype(np.float32), probe_duration(path)).mean(axis=0)
    return _patches([np.pad(mono, (0, 16_000))[16_000 * second : 16_000 * (second + 1)] for second in range(10)])


def _librosa(rate_hz: int) -> Callable[[Path], np.ndarray]:
    def load(path: Path) -> np.ndarray:
        import warnings

        import librosa

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that soundfile cannot open mp4, on every file
            return librosa.load(path, sr=rate_hz, mono=True)[0]

    return load


def _whole_seconds(samples: np.ndarray, rate_hz: int, needed: int) -> list[np.ndarray]:
    count = max(int(len(samples) / rate_hz + 1e-3), 1)
    padded = np.pad(samples, (0, rate_hz))
    return [padded[second * rate_hz : second * rate_hz + needed] for second in range(count)]


def _clean_sound(path: Path, _: Path | None) -> torch.Tensor:
    """librosa.load at 16 kHz, a patch where each second starts."""
    return _patches([np.float64(piece) for piece in _whole_seconds(_librosa(16_000)(path), 16_000, 15_600)])


def _panns_sound(path: Path, _: Path | None) -> torch.Tensor:
    """librosa.load at 32 kHz, ten seconds of samples."""
    return torch.from_numpy(np.stack(_whole_seconds(_librosa(32_000)(path), 32_000, 32_000)[:10]))


# ---- networks -------------------------------------------------------------------------------------------------------


def _maps(network: torch.nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """(10, 7, 7, C) means over 16 frames of the flattened last maps."""
    maps = network(pictures).reshape(10, 16, -1, 7, 7)
    return maps.mean(dim=1).permute(0, 2, 3, 1)


def _plain(network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return network(batch)


def _relu(network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return torch.relu(network(batch))


def _snippets(network: torch.nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    return network(pictures.reshape(10, 8, *pictures.shape[1:]).transpose(1, 2))


def _image_embeds(network: torch.nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    embeds = network.get_image_features(pixel_values=pictures).pooler_output
    return embeds / embeds.norm(dim=-1, keepdim=True)


SCRIPTS: dict[str, Script] = {
    "resnet50:cace2024": Script(_tenths_of(lambda: transform(232, 224, _IMAGENET)), _maps),
    "vgg19:ave2018": Script(_tenths_of(_caffe), _maps),
    "resnet50": Script(_middles_of(lambda: transform(232, 224, _IMAGENET)), _plain),
    "resnet152": Script(_middles_of(lambda: transform(232, 224, _IMAGENET)), _plain),
    "clip-l14": Script(_middles_of(lambda: transform(224, 224, _CLIP, bicubic=True)), _image_embeds),
    "clip-b32": Script(_middles_of(lambda: transform(224, 224, _CLIP, bicubic=True)), _image_embeds),
    "clip-tiny": Script(_middles_of(lambda: transform((64, 64), None, _CLIP)), _image_embeds),
    "resnet152:llp2020": Script(_jpegs_of(lambda: transform(256, 224, _IMAGENET)), _plain, dumps=True),
    "r2plus1d:llp2020": Script(_jpegs_of(lambda: transform((112, 112), None, _KINETICS)), _snippets, dumps=True),
    "vggish": Script(_clean_sound, _relu),
    "vggish:ave2018": Script(_ave_sound, _relu),
    "vggish:llp2020": Script(_llp_sound, _relu),
    "cnn14:cace2024": Script(_panns_sound, _plain),
}


def network(name: str, weights: str) -> torch.nn.Module:
    """The recipe's eager network with its weights, as `torch.load` and `load_state_dict` give it."""
    from extractors.base import load

    return load(name, weights).network


def extract(names: list[str], clips: list[Path], weights: str, out: Path) -> None:
    """Rows of every encoder and clip into `out/<encoder>/<clip>.npy`."""
    with tempfile.TemporaryDirectory(prefix="loop-") as work:
        dumped = {clip: Path(work) / f"{number:05d}" for number, clip in enumerate(clips)}
        if any(SCRIPTS[name].dumps for name in names):  # once for all encoders, as the LLP scripts do
            for clip, folder in dumped.items():
                folder.mkdir()
                dump(clip, folder)
        for name in names:
            script, model = SCRIPTS[name], network(name, weights)
            folder = out / name.replace(":", "-")
            folder.mkdir(parents=True, exist_ok=True)
            for clip in clips:
                with torch.no_grad():
                    rows = script.run(model, script.read(clip, dumped[clip]))
                np.save(folder / f"{clip.stem}.npy", rows.numpy())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", required=True, help=f"comma separated, of {', '.join(SCRIPTS)}")
    parser.add_argument("--clips", required=True, nargs="+", type=Path)
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args(argv)
    names = arguments.encoders.split(",")
    if unknown := [name for name in names if name not in SCRIPTS]:
        parser.error(f"no script for {', '.join(unknown)}; there are {', '.join(SCRIPTS)}")
    extract(names, arguments.clips, arguments.weights, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
