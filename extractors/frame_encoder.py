"""What all encoders of pictures share: frames in, geometry on the CPU, values and network on the device, rows out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import torch

from extractors import frames
from extractors.base import Encoder, MediaView
from extractors.spec import FeatureSpec

# Frames asked from the media at once: 16 frames of 1080p are 100 MB.
_FRAMES_READ = 16


def _mean(rows: torch.Tensor) -> torch.Tensor:
    # In double precision the sum does not depend on the order in which a device adds.
    return rows.double().mean(dim=1).float()


def _channels_last(rows: torch.Tensor) -> torch.Tensor:
    return rows.movedim(-3, -1).contiguous()


def _l2(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


_POSTPROCESS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean over frames": _mean,
    "channels last": _channels_last,
    "l2": _l2,
}


class FrameEncoder(Encoder):
    """Encoder of K frames per row, each encoded alone.

    `spec.preprocess` holds steps of `extractors.frames`; `spec.postprocess` holds `mean over frames` (required when
    K > 1), `channels last` and `l2`.  Subclasses build the network and say how it encodes a stack of pictures.
    """

    batch_rows: ClassVar[int] = 16
    # Frames are resized one by one, to the same bytes everywhere.
    transform_is_exact: ClassVar[bool] = True
    #: Pictures that go through the network at once, on the CPU and on an accelerator; bounds the activations.
    pictures_at_once: ClassVar[tuple[int, int]] = (16, 128)

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__(spec)
        self._geometry, self._values = frames.split(spec.preprocess)
        unknown = [step for step in spec.postprocess if step not in _POSTPROCESS]
        if unknown:
            raise ValueError(f"postprocess {unknown} is none of {list(_POSTPROCESS)}")
        if spec.sampler is None:
            raise ValueError(f"{spec.name}: an encoder of frames needs a sampler")

    @property
    def front_end(self) -> tuple:
        """The steps on values alone run with the network, so they may differ."""
        return (type(self).transform, *self.source, self._geometry)

    @property
    def source(self) -> tuple:
        """Which frames, whatever becomes of them."""
        return (type(self).collect, self.spec.grid, self.spec.sampler)

    @property
    def items_per_row(self) -> int:
        """Pictures, each encoded alone."""
        return self.spec.sampler.per_row

    @abstractmethod
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, ...) features of (n, 3, H, W) float32 pictures."""

    def prepare(self, media: MediaView, segments: np.ndarray) -> torch.Tensor:
        """(T, K, S, S, 3) pictures after the geometry: uint8, or float32 where the recipe resizes floats.

        Raises:
            extractors.base.NoVideo: the clip has no decoded frame.
        """
        indices = self.frame_indices(media, segments)
        unique, inverse = np.unique(indices, return_inverse=True)
        made = []
        # Frames at their own size are large: only a few of them are held beside the decoder's.
        for start in range(0, len(unique), _FRAMES_READ):
            decoded = self._decoded(media, unique[start : start + _FRAMES_READ])
            made.append(frames.apply(self._geometry, decoded))
        return _placed(torch.cat(made), inverse.reshape(indices.shape))

    def collect(self, media: MediaView, segments: np.ndarray) -> torch.Tensor:
        """(T, K, H, W, 3) uint8 RGB frames, as large as the clip's are.

        Raises:
            extractors.base.NoVideo: the clip has no decoded frame.
        """
        indices = self.frame_indices(media, segments)
        unique, inverse = np.unique(indices, return_inverse=True)
        return _placed(self._decoded(media, unique), inverse.reshape(indices.shape))

    def _decoded(self, media: MediaView, numbers: np.ndarray) -> torch.Tensor:
        """(n, H, W, 3) uint8: the media's array itself if it may be had."""
        return torch.from_numpy(np.require(media.frames(numbers, self.spec.sampler.source), requirements=["C", "W"]))

    def transform(self, collected: torch.Tensor) -> torch.Tensor:
        """(T, K, S, S, 3) pictures after the geometry, from (T, K, H, W, 3) frames."""
        made = [frames.apply(self._geometry, some) for some in collected.flatten(0, 1).split(_FRAMES_READ)]
        return torch.cat(made).unflatten(0, collected.shape[:2])

    @torch.inference_mode()
    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """(B, *spec.shape) float32 from (B, K, S, S, 3) prepared rows, without gradient."""
        room = self.pictures_at_once[batch.device.type != "cpu"]
        return torch.cat([self._encode(rows) for rows in batch.split(max(1, room // batch.shape[1]))])

    def _encode(self, rows: torch.Tensor) -> torch.Tensor:
        return self.finish(self.encode_rows(rows).float())

    def finish(self, rows: torch.Tensor) -> torch.Tensor:
        """(b, *spec.shape) from (b, ...) features, or from (b, K, ...) before a mean over frames."""
        return postprocess(self.spec.postprocess, rows)

    def encode_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """(b, K, ...) features, or (b, ...) if no mean over frames follows, from (b, K, S, S, 3) prepared rows."""
        encoded = self.run(self.pictures(rows.flatten(0, 1)))
        return encoded.unflatten(0, rows.shape[:2]) if "mean over frames" in self.spec.postprocess else encoded

    def pictures(self, prepared: torch.Tensor) -> torch.Tensor:
        """(n, 3, S, S) float32 network input from (n, S, S, 3) prepared pictures."""
        return frames.apply(self._values, prepared).permute(0, 3, 1, 2).contiguous()


def _placed(made: torch.Tensor, places: np.ndarray) -> torch.Tensor:
    """(T, K, ...) of (n, ...): a frame that several places ask for is there several times; else nothing is copied."""
    if np.array_equal(places.ravel(), np.arange(len(made))):
        return made.unflatten(0, places.shape)
    return made[torch.from_numpy(places)]


def postprocess(steps: Sequence[str], rows: torch.Tensor) -> torch.Tensor:
    """Run the named steps in order on (b, ...) rows; `mean over frames` needs (b, K, ...)."""
    for step in steps:
        rows = _POSTPROCESS[step](rows)
    return rows
