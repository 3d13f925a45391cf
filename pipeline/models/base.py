"""What every trainer's network promises to the training loop.

A network takes named streams of one batch, returns named outputs, and turns them into named loss terms and into
predictions.  It knows neither stores nor files nor optimisers.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

#: Shape of one clip in each stream, segments first: (T, ...).
Shapes = dict[str, tuple[int, ...]]


class Model(nn.Module):
    """A network with its losses.

    Class attributes:
        task: `ave` (one class per segment, background included) or `avvp` (several classes, audio and visual apart).
        streams: name of each input -> what it is; the training configuration says which feature fills it.
        needs_labels: True where the loss or the network reads pseudo-labels (`audio_pseudo`, `visual_pseudo`).
        label_mask: which pseudo-labels, those that the weak label allows (`video-label`) or all (`none`).
        label_inputs: names of labels that the network itself takes beside its streams.
        per_segment: streams that need one row for each label segment; None: all of them.
        wants_segments: True where the constructor takes the number of label segments, `segments`.
        settings: forms of supervision that it knows.
        gate_is: meaning of a predicted `gate`, see `pipeline.metrics.ave.GATES`.
    """

    task: ClassVar[str]
    streams: ClassVar[dict[str, str]]
    needs_labels: ClassVar[bool] = False
    label_mask: ClassVar[str] = "video-label"
    label_inputs: ClassVar[tuple[str, ...]] = ()
    per_segment: ClassVar[tuple[str, ...] | None] = None
    wants_segments: ClassVar[bool] = False
    gate_is: ClassVar[str] = "logits"
    settings: ClassVar[tuple[str, ...]]

    def __init__(self, setting: str) -> None:
        super().__init__()
        if setting not in self.settings:
            raise ValueError(f"{type(self).__name__} trains {' or '.join(self.settings)}, not {setting!r}")
        self.setting = setting

    def begin_epoch(self, epoch: int) -> None:
        """Called before an epoch of training, counted from 0, and before predicting with the weights of that epoch."""

    def forward(self, **streams: Tensor) -> dict[str, Tensor]:
        """Outputs of a batch from (B, T, ...) float streams."""
        raise TypeError(f"{type(self).__name__} has no forward pass")

    def losses(self, outputs: dict[str, Tensor], batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """Weighted loss terms by name; their sum is minimised.

        Args:
            batch: targets of the batch, as `pipeline.targets` names them.
            epoch: counted from 0; some terms start later.
        """
        raise TypeError(f"{type(self).__name__} has no loss")

    def predictions(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is stored and scored.

        AVE: `scores` (B, T, classes + 1), or `gate` (B, T) logits with `category` (B, classes [+ 1]).
        AVVP: probabilities `video` (B, C), `audio` and `visual` (B, T, C).
        """
        raise TypeError(f"{type(self).__name__} has no predictions")

    def watched(self) -> dict[str, float]:
        """Single numbers that training moves and a person should see, for the curves."""
        return {}


def sequence(shape: tuple[int, ...], name: str) -> int:
    """Width D of a stream that must be (T, D).

    Raises:
        ValueError: it is not.
    """
    if len(shape) != 2:
        raise ValueError(f"stream {name!r} has rows of shape {shape[1:]}; expected one vector per segment")
    return shape[1]


def grid(shape: tuple[int, ...], name: str) -> tuple[int, int]:
    """Positions and width of a spatial stream (T, H, W, D); vectors (T, D) count as one position.

    Raises:
        ValueError: neither.
    """
    if len(shape) == 4:
        return shape[1] * shape[2], shape[3]
    if len(shape) == 2:
        return 1, shape[1]
    raise ValueError(f"stream {name!r} has rows of shape {shape[1:]}; expected a map (H, W, D) or a vector (D,)")


def tokens(shape: tuple[int, ...]) -> tuple[int, int]:
    """Number and width of all vectors of a clip: every axis but the last is flattened."""
    count = 1
    for size in shape[:-1]:
        count *= size
    return count, shape[-1]


def positions(stream: Tensor) -> Tensor:
    """(B, T, H, W, D) or (B, T, D) -> (B, T, P, D)."""
    return stream.flatten(2, 3) if stream.dim() == 5 else stream.unsqueeze(2)


def parameter_counts(model: nn.Module, outputs: Tensor | None = None) -> dict[str, int]:
    """Trainable elements: `total`; with the scalar `outputs` of a forward pass also `live` and `idle`.

    A parameter is live if the scalar depends on it.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    counts = {"total": sum(parameter.numel() for parameter in parameters)}
    if outputs is not None:
        gradients = torch.autograd.grad(outputs, parameters, allow_unused=True)
        counts["live"] = sum(g.numel() for g in gradients if g is not None)
        counts["idle"] = counts["total"] - counts["live"]
    return counts
