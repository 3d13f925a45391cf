"""CACE-Net's contrastive loss between event and background segments of one video."""

from __future__ import annotations

import torch
from torch import Tensor


def segment_contrast(first: Tensor, second: Tensor, event: Tensor, tau: float = 0.01) -> Tensor:
    """-log of the mean, over positives, of the softmax of similarities; per vector.

    The 2T vectors of a video are two views of its T segments.  Positives of an event segment's vector are all other
    vectors of event segments; the only positive of a background one is its other view.  The average over positives is
    inside the logarithm, as in the paper's equation 7, not the mean of logarithms of the usual supervised contrast.
    exp(1 / tau) overflows float32, so everything stays in logarithms.

    Args:
        first, second: (B, T, D) unit vectors.
        event: (B, T) 1 for event segments, from ground truth.
    Returns:
        (B, 2T): of `first` then `second`; the loss is their mean.
    """
    vectors = torch.cat([first, second], dim=1)
    bits = torch.cat([event, event], dim=1) > 0
    count, segments = vectors.shape[1], first.shape[1]
    similarity = vectors @ vectors.transpose(1, 2) / tau
    itself = torch.eye(count, dtype=torch.bool, device=vectors.device)
    other_view = itself.roll(segments, dims=1)
    positives = torch.where(bits[:, :, None], bits[:, None, :] & ~itself, other_view)
    numerator = similarity.masked_fill(~positives, -torch.inf).logsumexp(dim=2)
    denominator = similarity.masked_fill(itself, -torch.inf).logsumexp(dim=2)
    return denominator - numerator + positives.sum(dim=2).log()
