"""The two sides of the contrast, and a training step whose memory follows a chunk, not the batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from extractors import frames
from extractors.frame_encoder import FrameEncoder
from extractors.spec import FeatureSpec
from pipeline.finetuning import ranks
from pipeline.finetuning.recipe import FinetuneRecipe


class Pair(nn.Module):
    """A visual encoder with a projection, and a projection of audio vectors.

    Args:
        encoder: with weights.
        visual_size, audio_size: numbers of a pooled visual and of an audio vector.
        width: of the projections, linear and without bias.
        tune: `all` or `projections`.
        norms: `train` or `frozen`.
        precision: `fp32`, or `bf16` for mixed precision in the encoder.
    """

    def __init__(
        self,
        encoder: FrameEncoder,
        visual_size: int,
        audio_size: int,
        width: int,
        tune: str,
        norms: str,
        precision: str,
    ) -> None:
        super().__init__()
        self.encoder, self.network = encoder, encoder.network
        self.visual = nn.Linear(visual_size, width, bias=False)
        self.audio = nn.Linear(audio_size, width, bias=False)
        self.norms, self.precision = norms, precision
        self.network.requires_grad_(tune == "all")
        self.tunes_encoder = tune == "all"

    def train(self, mode: bool = True) -> Pair:
        super().train(mode)
        if self.norms == "frozen" or not self.tunes_encoder:
            self.network.eval()
        return self

    def pooled(self, pictures: Tensor) -> Tensor:
        """(b, C): mean over space and over the frames of a clip, from (b, K, S, S, 3) prepared pictures."""
        flat = self.encoder.pictures(pictures.flatten(0, 1))
        mixed = self.precision == "bf16"
        with torch.autocast(flat.device.type, torch.bfloat16) if mixed else contextlib.nullcontext():
            made = self.encoder.forward(flat)
        made = made.float()
        if made.ndim > 2:
            made = made.mean(dim=tuple(range(2, made.ndim))) if made.ndim == 4 else made.mean(dim=1)
        return made.unflatten(0, pictures.shape[:2]).mean(dim=1)

    def see(self, pictures: Tensor) -> Tensor:
        """(b, width) of length 1."""
        return functional.normalize(self.visual(self.pooled(pictures)), dim=-1)

    def hear(self, rows: Tensor) -> Tensor:
        """(b, width) of length 1 from (b, D) audio vectors."""
        return functional.normalize(self.audio(rows), dim=-1)


def fresh(encoder: FrameEncoder, audio_size: int, recipe: FinetuneRecipe, seed: int, precision: str) -> Pair:
    """A pair whose projections have first weights that depend on the seed alone.

    Args:
        audio_size: numbers of an audio vector.
    """
    side = _edge(encoder.spec)
    blank = torch.zeros((1, 1, side, side, 3), dtype=torch.uint8, device=encoder.device)
    probe = Pair(encoder, 1, 1, 1, recipe.tune, "frozen", "fp32").eval()
    with torch.no_grad():
        size = probe.pooled(blank).shape[1]
    torch.manual_seed(seed)
    return Pair(encoder, size, audio_size, recipe.projection, recipe.tune, recipe.norms, precision)


def _edge(spec: FeatureSpec) -> int:
    """Edge of the prepared pictures: the size that the last geometry step names."""
    steps = frames.split(spec.preprocess)[0]
    return int(str(steps[-1]).split("size=")[1].split()[0].split("x")[0])


@contextlib.contextmanager
def norms_keep_still(network: nn.Module) -> Iterator[None]:
    """Norms use the batch's statistics without remembering them."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked


def backward(
    pair: Pair,
    pictures: Tensor,
    audio: Tensor,
    videos: Tensor,
    loss_of: Callable[[Tensor, Tensor, Tensor], Tensor],
    chunk: int,
    weight: float = 1.0,
) -> float:
    """Add the gradient of the loss of one batch, over all processes, to the parameters; returns the loss.

    The vectors are computed chunk by chunk without a graph, the loss is differentiated with respect to the vectors of
    all processes, and each chunk goes through the encoder again with its share of that gradient (Gao et al. 2021,
    gradient caching).  The result is the gradient of the whole batch; memory is that of a chunk.  With batch
    statistics (`norms: train`) a chunk is what the norms see.

    Args:
        pictures: (b, K, S, S, 3) of this process.
        audio: (b, D). videos: (b,).
        loss_of: (visual, audio, videos) of all processes -> loss.
        chunk: clips at once.
        weight: of the gradient, 1 / accumulate.
    """
    parts = list(zip(pictures.split(chunk), audio.split(chunk), strict=True))
    whole = len(parts) == 1 and not torch.distributed.is_initialized()
    if whole:
        loss = loss_of(pair.see(pictures), pair.hear(audio), videos)
        (weight * loss).backward()
        return float(loss.detach())
    made, random = [], []
    with torch.no_grad(), norms_keep_still(pair.network):
        for some, rows in parts:
            random.append(_random_state(pictures.device))
            made.append((pair.see(some), pair.hear(rows)))
    seen, heard = (torch.cat(vectors) for vectors in zip(*made, strict=True))
    every_seen, own = ranks.gather(seen)
    every_heard, _ = ranks.gather(heard)
    every_video, _ = ranks.gather(videos)
    leaves = [every_seen.clone().requires_grad_(), every_heard.clone().requires_grad_()]
    loss = loss_of(*leaves, every_video)
    loss.backward()
    cached = [leaf.grad[own].split(chunk) for leaf in leaves]
    for (some, rows), state, seen_grad, heard_grad in zip(parts, random, *cached, strict=True):
        _set_random_state(pictures.device, state)  # what is dropped must be what was dropped
        surrogate = (pair.see(some) * seen_grad).sum() + (pair.hear(rows) * heard_grad).sum()
        (weight * surrogate).backward()
    return float(loss.detach())


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(device: torch.device, state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
