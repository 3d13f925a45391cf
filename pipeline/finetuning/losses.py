"""InfoNCE between the visual and the audio vector of a clip, one-sided as in the paper or symmetric as in the code.

Source: He et al., CACE-Net, ACM MM 2024, Eq. 9; Brain-Cog-Lab/CACE-Net@db43f60, AVELCLIP.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SIDES = ("one-sided", "symmetric")


def info_nce(
    visual: Tensor, audio: Tensor, temperature: float, sides: str = "one-sided", videos: Tensor | None = None
) -> Tensor:
    """Mean over the batch of -log softmax of the own pair.

    Args:
        visual, audio: (B, D) of length 1; row i of both is clip i.
        temperature: divides the cosines.
        sides: `one-sided`: each visual vector among all audio vectors (Eq. 9); `symmetric`: the mean of that and its
            mirror image.
        videos: (B,) number of the source video; another clip of the same video is no negative.  None: all are.
    Raises:
        ValueError: fewer than two clips, so that there is no negative; another name of `sides`.
    """
    if sides not in SIDES:
        raise ValueError(f"loss {sides!r} is none of {', '.join(SIDES)}")
    if len(visual) < 2:
        raise ValueError(f"InfoNCE of {len(visual)} clip has no negatives; at least two clips are needed in a batch")
    similarity = visual @ audio.T / temperature
    if videos is not None:
        same = videos[:, None] == videos[None, :]
        same.fill_diagonal_(False)
        similarity = similarity.masked_fill(same, float("-inf"))
    own = torch.arange(len(visual), device=visual.device)
    forward = functional.cross_entropy(similarity, own)
    return forward if sides == "one-sided" else (forward + functional.cross_entropy(similarity.T, own)) / 2
