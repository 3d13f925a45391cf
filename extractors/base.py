"""The contract of every encoder, the view of decoded media it reads, and the table that names them all.

>>> encoder = load("vggish:ave2018", weights="random:0")           # doctest: +SKIP
>>> rows = encoder.encode(encoder.prepare(media, segments))        # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Protocol

import numpy as np
import torch

from extractors.spec import FeatureSpec

# encoder name -> "module:class".  A module is imported when its encoder is asked for, so that a missing optional
# package disables one encoder and not the command.
ENCODERS: dict[str, str] = {
    "audioclip": "extractors.audioclip:AudioClip",
    "audioclip-visual": "extractors.audioclip:AudioClipVisual",
    "clap": "extractors.clap:Clap",
    "clap-base": "extractors.clap:Clap",
    "clap-fused": "extractors.clap:Clap",
    "clap-map": "extractors.clap:Clap",
    "htsat": "extractors.htsat:HTSAT",
    "clap-tiny": "extractors.clap_tiny:ClapTiny",
    "clip-b16": "extractors.clip:CLIP",
    "clip-b32": "extractors.clip:CLIP",
    "clip-l14": "extractors.clip:CLIP",
    "clip-tiny": "extractors.clip_tiny:CLIPTiny",
    "r2plus1d": "extractors.r2plus1d:R2Plus1D",
    "resnet152": "extractors.resnet:ResNet152",
    "resnet50": "extractors.resnet:ResNet50",
    "swin-v2-l": "extractors.swin_v2:SwinV2L",
    "vgg19": "extractors.vgg19:VGG19",
    "vgg19-bn": "extractors.vgg19:VGG19BN",
    "vggish": "extractors.vggish:VGGish",
    "cnn14": "extractors.cnn14:Cnn14",
}


class MediaView(Protocol):
    """Decoded media of one clip; implemented by `pipeline.media`, or by three numpy arrays in a notebook.

    Times are seconds from the start of the clip.  It leaves out files, codecs and caching.
    """

    duration_s: float
    #: What the container's header says, which may differ from what decodes.
    stated_s: float
    audio_rate_hz: int

    def timeline(self, source: str = "native") -> np.ndarray:
        """(N,) float64: presentation time of every decoded frame, ascending; empty without video."""
        ...

    def frames(self, indices: np.ndarray, source: str = "native") -> np.ndarray:
        """(n, H, W, 3) uint8 RGB: the frames at these positions of the timeline, repeats allowed."""
        ...

    def audio(self, rate_hz: int | None = None, mono: bool = True, resampler: str = "soxr_hq") -> np.ndarray:
        """(N,) float32 in [-1, 1], or (C, N) if not mono, over the whole clip.

        Args:
            rate_hz: wanted rate; None keeps the file's own, `audio_rate_hz`.
            mono: mean of the channels.
            resampler: `soxr_hq` (librosa >= 0.10), `kaiser_best` (resampy) or `swr` (ffmpeg).
        """
        ...


class NoAudio(Exception):
    """The clip has no audio to encode."""


class NoVideo(Exception):
    """The clip has no video to encode."""


class Encoder(ABC):
    """A network with its front end: decoded media in, rows out.

    `prepare` runs on the CPU, in any process, without the network's weights; `encode` runs where the weights are.
    `prepare` is `collect`, which needs the media, and then `transform`, arithmetic that may also run where the weights
    are: on an accelerator it spares the decoders their largest work after decoding.
    None draws random numbers, and a row never depends on the rows beside it.  It leaves out files, batching
    policy and retries.

    Subclasses build the network and use `self.spec`, never a recipe's name, to decide what to do.  The network is built
    when it is first used, so that a process that only prepares stays small.
    """

    spec: FeatureSpec
    #: Rows per device batch that suit a laptop CPU; the engine may choose another.
    batch_rows: ClassVar[int] = 32
    #: Runs `forward` faster, with results that are equal within rounding; None runs it as it is written.
    backend: Callable[[torch.Tensor], torch.Tensor] | None = None
    #: Gives the network its weights as soon as it is built; None leaves arbitrary ones.
    fill: Callable[[], object] | None = None

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec

    @abstractmethod
    def build_network(self) -> torch.nn.Module:
        """The network with arbitrary weights, on the CPU."""

    @functools.cached_property
    def network(self) -> torch.nn.Module:
        """What `encode` runs.

        Raises:
            extractors.weights.WeightsError: the checkpoint does not fit.
        """
        with torch.inference_mode(False):  # within `encode`, its weights would be barred from training for good
            network = vars(self)["network"] = self.build_network()  # `fill` asks for it
            try:
                if self.fill is not None:
                    self.fill()
            except BaseException:
                del vars(self)["network"]
                raise
        return network

    def frame_indices(self, media: MediaView, segments: np.ndarray) -> np.ndarray | None:
        """(T, K) int64 frames that `prepare` will ask for, or None for an audio encoder."""
        if self.spec.sampler is None:
            return None
        timeline_s = media.timeline(self.spec.sampler.source)
        if len(timeline_s) == 0:
            raise NoVideo("no decoded frame")
        return self.spec.sampler.indices(timeline_s, segments, self.spec.grid)

    def prepare(self, media: MediaView, segments: np.ndarray) -> torch.Tensor:
        """Model-ready input, one item per row.

        Args:
            media: of one clip.
            segments: (T, 2) float64 seconds: all rows of the clip, or a block of them.
        Returns:
            (T, ...) tensor of a shape that does not depend on the clip.
        Raises:
            NoAudio, NoVideo: the clip lacks the stream.
        """
        return self.transform(self.collect(media, segments))

    @abstractmethod
    def collect(self, media: MediaView, segments: np.ndarray) -> torch.Tensor:
        """What of the media stands for each row: frames, or pieces of samples.

        Arguments and errors are those of `prepare`.

        Returns:
            (T, ...) tensor on the CPU; its shape depends on the clip only if `transform_is_exact`.
        """

    def transform(self, collected: torch.Tensor) -> torch.Tensor:
        """Model-ready input from collected rows, on the device where they are; the rows as they are by default."""
        return collected

    #: Whether `transform` gives the same bits for a row whatever rows come with it, on every device.  Only then can it
    #: run clip by clip, as it must where the collected shape depends on the clip.
    transform_is_exact: ClassVar[bool] = False

    @abstractmethod
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The network alone, from its input to what `layer` names: the part that another backend may run."""

    @torch.inference_mode()
    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """(B, *spec.shape) tensor of spec.dtype from (B, ...) prepared rows, without gradient."""
        return self.finish(self.run(batch).float())

    def finish(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of the feature from float32 rows of the network: the spec's `postprocess`."""
        return rows

    def run(self, inputs: torch.Tensor) -> torch.Tensor:
        """`forward` in the spec's precision, or what `extractors.backends` put in its place."""
        with self.arithmetic(inputs.device):
            return (self.backend or self.forward)(inputs)

    def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Published key format -> `self.network`'s key format."""
        return state

    #: Keys of the network that a published checkpoint may lack, as a regular expression.
    optional_keys: ClassVar[str] = r"num_batches_tracked$"

    def to(self, device: str | torch.device) -> Encoder:
        """Move the network; prepared rows are moved by the caller."""
        self.network.to(device)
        return self

    def arithmetic(self, device: torch.device) -> contextlib.AbstractContextManager:
        """Context in which `encode` runs the network: the spec's precision, and nothing coarser.

        fp32 means fp32: convolutions and products in TF32 (10 bits of mantissa) are off.
        """
        stack = contextlib.ExitStack()
        if self.spec.precision == "fp32":
            if device.type == "cuda":
                stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        else:
            dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[self.spec.precision]
            stack.enter_context(torch.autocast(device.type, dtype=dtype))
        return stack

    @property
    def items_per_row(self) -> int:
        """Inputs of the network that make one row."""
        return 1

    @property
    def front_end(self) -> tuple:
        """What decides the result of `prepare`: encoders with equal front ends can share prepared rows."""
        return (type(self).transform, *self.source, self.spec.preprocess)

    @property
    def source(self) -> tuple:
        """What decides the result of `collect`."""
        return (type(self).collect, self.spec.preprocess, self.spec.grid, self.spec.sampler)

    @property
    def device(self) -> torch.device:
        """Where the network is; the CPU while it is not built."""
        return next(self.network.parameters()).device if "network" in vars(self) else torch.device("cpu")

    @property
    def parameters(self) -> int:
        """Number of parameters of the network as it is built for the feature."""
        return sum(parameter.numel() for parameter in self.network.parameters())


def names() -> list[str]:
    """Every `encoder:recipe` that can be loaded, and every encoder's bare default."""
    from extractors.recipes import table

    return sorted(table())


def build(spec: FeatureSpec) -> Encoder:
    """Encoder of a spec without weights: enough for `prepare`.

    Raises:
        ValueError: unknown encoder.
        ImportError: a package of this encoder is missing; the message says what to install.
    """
    if spec.encoder not in ENCODERS:
        raise ValueError(f"unknown encoder {spec.encoder!r}; known: {', '.join(sorted(ENCODERS))}")
    module_name, class_name = ENCODERS[spec.encoder].split(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ImportError(f"encoder {spec.encoder} needs {error.name}: pip install {error.name}") from error
    return getattr(module, class_name)(spec)


def specify(name: str, weights: str = "pretrained", precision: str = "fp32") -> FeatureSpec:
    """What `load` with these arguments makes, without reading a network: the checkpoint is fetched and hashed.

    Raises:
        ValueError: unknown name or precision.
        extractors.weights.WeightsError: the checkpoint cannot be had.
    """
    from extractors.choice import identify
    from extractors.recipes import recipe
    from extractors.weights import WeightsError

    if precision not in ("fp32", "bf16", "fp16"):
        raise ValueError(f"precision {precision!r} is none of fp32, bf16, fp16")
    chosen = recipe(name)
    try:
        identity = identify(weights, chosen.weights)
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error
    return dataclasses.replace(chosen.spec, precision=precision, weights=identity)


def load(
    name: str,
    weights: str = "pretrained",
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    lazily: bool = False,
) -> Encoder:
    """A ready encoder.

    Args:
        name: `encoder:recipe`, or `encoder` for the clean default.
        weights: `pretrained`, `random:SEED`, or the path of a checkpoint in the published format.
        device: where `encode` runs.
        precision: `fp32`, `bf16` or `fp16`; part of the key.
        lazily: read the weights when the network is first used, which may be never (`extractors.programs`).
    Returns:
        encoder in eval mode whose `spec.weights` identifies the checkpoint.
    Raises:
        ValueError: unknown name or precision.
        extractors.weights.WeightsError: the checkpoint cannot be had or does not fit.
    """
    from extractors.checkpoint import load_strictly
    from extractors.choice import resolve
    from extractors.recipes import recipe

    spec = specify(name, weights, precision)
    encoder = build(spec)

    def fill() -> None:
        state = resolve(weights, recipe(name).weights, encoder.network, encoder.convert)
        load_strictly(encoder.network, state, f"{name} ({weights})", encoder.optional_keys)
        encoder.network.eval().requires_grad_(False).to(device)

    encoder.fill = fill
    return encoder if lazily else encoder.to(device)
