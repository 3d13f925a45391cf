"""v-iashin/video_features as a contender of benchmarks/end_to_end.py: unchanged, at one frame a second, on our weights.

`--reference` is a checkout of https://github.com/v-iashin/video_features (a2f61b7 was tried); `--reference-python` an
interpreter with its packages (omegaconf is the one that this project lacks).  Its program runs unchanged, in a
temporary copy: at 1 frame a second (`extraction_fps=1`), one run per feature.  Since pretrained weights need a
network, seeded random ones are written to the places where it looks for downloaded or custom checkpoints: CLIP as
`model_name=custom`, VGGish and ResNet-50 under the published file names.  Its `extraction_fps` encodes the video
anew before reading it, so those rows cannot equal ours; rows are compared on a short clip without that option, at the
frames that our recipe picks, with ResNet-50's resize set to its preset (256) and CLIP's weights rounded to half
precision as it does; VGGish on one wav file, since its way from mp4 to wav keeps the coder's priming.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.agreement import agreement, compare

#: Command line options of its three features.
CLIP = ("feature_type=clip", "model_name=custom", "extraction_fps=1")
RESNET = ("feature_type=resnet", "model_name=resnet50", "extraction_fps=1")
VGGISH = ("feature_type=vggish",)


class VideoFeatures:
    """A temporary copy of the reference with our random weights where it looks for checkpoints."""

    def __init__(self, checkout: Path, python: Path, folder: Path) -> None:
        self.python, self.folder = python, folder / "video_features"
        self.folder.mkdir(exist_ok=True)
        for part in ("main.py", "models", "utils", "configs"):
            source = checkout / part
            if not source.exists():
                raise FileNotFoundError(
                    f"--reference {checkout}: no {part}; give a checkout of v-iashin/video_features"
                )
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, self.folder / part)
        self._write_weights()

    def _write_weights(self) -> None:
        """Our seeded state dicts, under the reference's key names."""
        import torch
        import torchvision

        from extractors.base import load
        from extractors.clip_tiny import published

        def save(state: Mapping[str, torch.Tensor], path: Path) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({key: value.clone() for key, value in state.items()}, path)

        save(
            published(load("clip-b32", measure.WEIGHTS).network.state_dict()),
            self.folder / "models/clip/checkpoints/CLIP-custom.pth",
        )
        # The reference sets TORCH_HOME to its VGGish folder when it builds that network.
        cache = self.folder / "models/vggish/hub/checkpoints"
        save(load("vggish", measure.WEIGHTS).network.state_dict(), cache / "vggish-10086976.pth")
        random = np.random.default_rng(0)
        save(
            {
                "pca_eigen_vectors": torch.from_numpy(random.normal(size=(128, 128)).astype(np.float32)),
                "pca_means": torch.from_numpy(random.normal(size=(128, 1)).astype(np.float32)),
            },
            cache / "vggish_pca_params-970ea276.pth",
        )
        classifier = {
            name: value for name, value in torchvision.models.resnet50().state_dict().items() if "fc." in name
        }
        state = load("resnet50", measure.WEIGHTS).network.state_dict() | classifier
        save(state, self.folder / "torch/hub/checkpoints/resnet50-0676ba61.pth")

    def run(self, options: tuple[str, ...], paths: list[Path]) -> measure.Run:
        """One run of its program over some clips; features end in `output`."""
        names = self.folder / "paths.txt"
        names.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
        shutil.rmtree(self.folder / "output", ignore_errors=True)
        command = [self.python, "main.py", *options, "device=cpu", "on_extraction=save_numpy"]
        command += [f"file_with_video_paths={names}", "output_path=output", "tmp_path=tmp"]
        done = measure.run(
            command,
            folder=self.folder,
            environment={"TORCH_HOME": str(self.folder / "torch"), "PYTHONWARNINGS": "ignore"},
        )
        made = {path.stem.rsplit("_", 1)[0] for path in (self.folder / "output").rglob("*.npy")}
        made |= {stem.removesuffix("_timestamps") for stem in made}
        if missing := [path.name for path in paths if path.stem not in made]:
            raise RuntimeError(f"video_features {options[0]} wrote nothing for {', '.join(missing[:5])}")
        return done

    def rows(self, feature: str, clip: Path) -> np.ndarray:
        (path,) = (self.folder / "output").rglob(f"{clip.stem}_{feature}.npy")
        return np.load(path)

    def differences(self, name: str, clip: Path, precision: str) -> dict[str, Any]:
        """Our rows against its rows for one clip and exactly the same frames or samples."""
        from extractors.base import load
        from pipeline.media import Media

        encoder = load({"vggish": "vggish:unav2023"}.get(name, name), measure.WEIGHTS, "cpu", precision)
        if name == "vggish":
            # Its detour mp4 -> aac -> wav keeps the coder's priming; both read one wav file instead.
            clip = _wav(clip, self.folder / "wav")
            self.run(VGGISH, [clip])
            theirs = self.rows("vggish", clip)
        else:
            options = CLIP if name == "clip-b32" else RESNET
            self.run((*options[:2], "batch_size=32"), [clip])
            theirs = self.rows(options[0].partition("=")[2], clip)
        if name == "clip-b32":
            _round_to_half(encoder.network)
        if name == "resnet50":
            steps = ("shorter size=256 filter=pil-bilinear", *encoder.spec.preprocess[1:])
            encoder = _with_preprocess(encoder, steps)
        with Media(clip) as opened:
            segments = encoder.spec.grid.segments(opened.duration_s)
            if name == "vggish":
                segments = segments[::3][: len(theirs)]  # its hop is 0.96 s, this recipe's 0.32 s
            else:
                theirs = theirs[encoder.frame_indices(opened, segments)[:, 0]]
            ours = encoder.encode(encoder.prepare(opened, segments)).numpy()
        if name == "clip-b32":
            theirs = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
        return agreement(name, precision, *compare(ours, theirs[: len(ours)]))


def _with_preprocess(encoder: Any, steps: tuple[str, ...]) -> Any:
    from extractors.base import build

    changed = build(dataclasses.replace(encoder.spec, preprocess=steps))
    changed.network.load_state_dict(encoder.network.state_dict())
    changed.network.eval().requires_grad_(False)
    return changed


def _round_to_half(network: Any) -> None:
    """The reference holds what it loads into these layers in half precision, on a CPU too, before it widens it."""
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            for parameter in module.parameters(recurse=False):
                parameter.copy_(parameter.half().float())


def _wav(clip: Path, folder: Path) -> Path:
    import av
    import soundfile

    folder.mkdir(exist_ok=True)
    target = folder / f"{clip.stem}.wav"
    with av.open(str(clip)) as container:
        rate_hz = container.streams.audio[0].rate
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    soundfile.write(target, np.concatenate(frames, axis=1).T, rate_hz, subtype="PCM_16")
    return target
