"""Targets and loss terms that the AVE networks share."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def foreground(labels: Tensor) -> Tensor:
    """(B, T) 1 where a segment holds an event, from one-hot (B, T, classes + 1)."""
    return labels[..., :-1].amax(dim=2)


def event_class(labels: Tensor) -> Tensor:
    """(B,) class of the video's event: a video has one, and background rows give 0, so the maximum finds it."""
    return labels[..., :-1].argmax(dim=2).amax(dim=1)


def relevance_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """With-logits cross-entropy of (B, T) relevance against the foreground bits."""
    return F.binary_cross_entropy_with_logits(logits, foreground(labels))


def category_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross-entropy of (B, classes) against the event class, averaged over the videos that have an event.

    AVE has one video without (row 26), in its validation split; public code would teach its first class there.
    """
    losses = F.cross_entropy(logits, event_class(labels), reduction="none")
    eventful = foreground(labels).amax(dim=1)
    return (losses * eventful).sum() / eventful.sum().clamp(min=1)


def soft_margin(scores: Tensor, labels: Tensor) -> Tensor:
    """Multi-label soft margin: with-logits cross-entropy, averaged over classes and rows.

    The AVE networks feed it probabilities, which are squashed twice; that is how they were published.
    """
    return F.binary_cross_entropy_with_logits(scores, labels)
