"""Training of small teachers: a tower for media and a tower for captions, drawn together by contrast.

The towers are those of an encoder (`extractors.clip_tiny`, `extractors.clap_tiny`); what comes out are their weights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from extractors.base import Encoder, NoAudio, NoVideo, build
from extractors.random_weights import random_state_dict
from extractors.recipes import recipe
from extractors.spec import Grid
from pipeline.manifest import Manifest
from pipeline.media import Media
from pipeline.mediafile import MediaError, find
from pipeline.metrics.retrieval import recall_at
from pipeline.optimizers import optimizer

_JOIN = " and "
_LARGEST_SCALE = math.log(100.0)


@dataclass(frozen=True)
class Lesson:
    """What a training is made of.

    Args:
        steps, batch: number of optimiser steps, clips per step.
        lr, weight_decay: of AdamW; the rate rises over a tenth of the steps and falls as half a cosine.
        hop_s: distance of the rows that a clip offers, seconds; each step draws one per clip.
        hold_out: every so many clips are kept for the retrieval test.
    """

    steps: int = 200
    batch: int = 32
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    hop_s: float = 0.5
    hold_out: int = 6


#: Settings that give useful teachers in about a minute on two cores.
LESSONS = {"clip-tiny": Lesson(steps=240, hop_s=0.25), "clap-tiny": Lesson(steps=140)}


def captioned(manifest: Manifest, modality: str) -> dict[str, str]:
    """Clip id -> caption.

    Raises:
        ValueError: the manifest has no captions.
    """
    found = {name: said[modality] for name, said in manifest.facts.get("captions", {}).items()}
    found = {clip.id: found[clip.id] for clip in manifest.clips if clip.id in found}
    if not found:
        raise ValueError(
            f"the manifest of {manifest.dataset} has no captioned clips; "
            "`python -m pipeline.prepare --dataset demo --splits teacher` writes one that has"
        )
    return found


def parts(caption: str) -> list[str]:
    """The caption itself and, if it names several things, a caption for each: what it says is true of each.

    >>> parts("A photo of a bell and rain.")
    ['A photo of a bell and rain.', 'A photo of a bell.', 'A photo of rain.']
    """
    if _JOIN not in caption:
        return [caption]
    prefix, _, things = caption.partition(" of ")
    end = "." if things.endswith(".") else ""
    return [caption, *(f"{prefix} of {thing}{end}" for thing in things.removesuffix(".").split(_JOIN))]


@dataclass(frozen=True)
class Rows:
    """Prepared rows of the captioned clips: (clips, R, ...), their captions, and clips that could not take part."""

    clips: tuple[str, ...]
    values: Tensor
    captions: tuple[str, ...]
    refused: dict[str, str]


def prepared(manifest: Manifest, media: Path, encoder: Encoder, hop_s: float) -> Rows:
    """Rows of every captioned clip, several per second."""
    spec = encoder.spec
    window_s = hop_s if spec.modality == "visual" else spec.grid.window_s
    dense = build(dataclasses.replace(spec, grid=Grid(window_s, hop_s)))
    captions = captioned(manifest, spec.modality)
    rows, names, refused = [], [], {}
    count = None
    for clip in manifest.clips:
        if clip.id not in captions:
            continue
        try:
            path, _ = find(clip, media)
            with Media(path) as view:
                made = dense.prepare(view, dense.spec.grid.segments(clip.duration_s or view.duration_s))
        except MediaError as error:
            refused[clip.id] = error.outcome
            continue
        except (NoAudio, NoVideo):
            refused[clip.id] = "no-audio" if spec.modality == "audio" else "no-video"
            continue
        count = min(count or len(made), len(made))
        rows.append(made)
        names.append(clip.id)
    if len(rows) < 4:
        raise ValueError(f"only {len(rows)} captioned clips can be read from {media}; a teacher needs some dozens")
    values = torch.stack([made[:count] for made in rows])
    return Rows(tuple(names), values, tuple(captions[name] for name in names), refused)


class Pupil(nn.Module):
    """The two towers of an encoder with trainable weights.

    Args:
        encoder: of the tables, built without weights.
        seed: of the first weights.
    """

    def __init__(self, encoder: Encoder, seed: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.media = encoder.network
        self.media.load_state_dict(random_state_dict(self.media, seed))
        self.text = encoder.build_text() if hasattr(encoder, "build_text") else None
        if self.text is not None:
            self.text.load_state_dict(random_state_dict(self.text, seed))
        self.eval()  # no dropout; the norm of the spectrograms is set once, by `fit_norm`

    @property
    def logit_scale(self) -> nn.Parameter:
        return self.media.logit_scale if self.text is None else self.media.logit_scale_a

    def fit_norm(self, values: Tensor) -> None:
        """Mean and variance of the spectrograms, where the network begins with a batch norm over mel bands."""
        if self.text is None:
            return
        norm = self.media.audio_model.audio_encoder.batch_norm
        flat = values.reshape(-1, values.shape[-1]).double()
        norm.running_mean.copy_(flat.mean(dim=0))
        norm.running_var.copy_(flat.var(dim=0))

    def see(self, rows: Tensor) -> Tensor:
        """(B, D) of length 1 from prepared rows."""
        made = (
            self.encoder.forward(self.encoder.pictures(rows.flatten(0, 1))) if self.text is None else self.media(rows)
        )
        return functional.normalize(made, dim=-1)

    def say(self, tokens: Sequence[Tensor]) -> Tensor:
        """(P, D) of length 1 from tokenised captions."""
        if self.text is not None:
            return self.text(*tokens)
        pooled = self.media.text_model(input_ids=tokens[0]).pooler_output
        return functional.normalize(self.media.text_projection(pooled), dim=-1)

    def tokenize(self, captions: Sequence[str]) -> tuple[Tensor, ...]:
        if self.text is not None:
            return self.encoder.tokenize(captions)
        from extractors.clip import tokenize

        return (tokenize(captions),)

    def published(self) -> dict[str, Tensor]:
        """Weights in the published key format."""
        if self.text is None:
            from extractors.clip_tiny import published

            return published(self.media.state_dict())
        from extractors.clap_tiny import published

        return published(self.media.state_dict(), self.text.state_dict())


def contrast(similarity: Tensor, true: Tensor) -> Tensor:
    """Symmetric contrast with several right answers: cross entropy against their uniform distribution.

    Args:
        similarity: (B, P) scaled cosines of media and captions.
        true: (B, P) 1 where the caption is true of the media; every row and column has one.
    """
    forward = -(true / true.sum(dim=1, keepdim=True) * similarity.log_softmax(dim=1)).sum(dim=1).mean()
    backward = -(true / true.sum(dim=0, keepdim=True) * similarity.log_softmax(dim=0)).sum(dim=0).mean()
    return (forward + backward) / 2


def varied(rows: Tensor, visual: bool, generator: torch.Generator) -> Tensor:
    """The same rows a little different: mirrored and shifted pictures, louder or softer sound."""
    if visual:
        flipped = torch.rand(len(rows), generator=generator) < 0.5
        rows = torch.where(flipped.view(-1, 1, 1, 1, 1), rows.flip(3), rows)
        down, right = torch.randint(-5, 6, (2,), generator=generator).tolist()
        return rows.roll((down, right), dims=(2, 3))
    return rows + 6.0 * torch.randn(len(rows), 1, 1, 1, generator=generator)


def teach(
    name: str, rows: Rows, seed: int, lesson: Lesson, report: Callable[[int, float], None] = lambda step, loss: None
) -> tuple[Pupil, dict[str, Any]]:
    """Train one teacher.

    Args:
        name: `clip-tiny` or `clap-tiny`.
        report: called now and then with step and loss.
    Returns:
        the trained towers, and a record: losses, retrieval among the captions of the clips that were held out.
    Raises:
        ValueError: the loss is not finite.
    """
    encoder = build(recipe(name).spec)
    pupil = Pupil(encoder, seed)
    visual = encoder.spec.modality == "visual"
    held = np.arange(len(rows.clips)) % lesson.hold_out == lesson.hold_out - 1
    learned = torch.from_numpy(np.flatnonzero(~held))
    pupil.fit_norm(rows.values[learned])
    said = [parts(caption) for caption in rows.captions]
    bank = sorted({text for texts in said for text in texts})
    place = {text: index for index, text in enumerate(bank)}
    true = torch.zeros(len(said), len(bank))
    for row, texts in enumerate(said):
        true[row, [place[text] for text in texts]] = 1
    tokens = pupil.tokenize(bank)
    longest = int((tokens[-1] != 0).sum(dim=1).max())  # both tokenizers pad behind the end
    tokens = tuple(part[:, :longest] for part in tokens)
    settings = {"name": "adamw", "lr": lesson.lr, "weight_decay": lesson.weight_decay}
    stepper = optimizer(settings, pupil.parameters())
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for step in range(lesson.steps):
        for group in stepper.param_groups:
            group["lr"] = lesson.lr * _rate(step, lesson.steps)
        chosen = learned[torch.randperm(len(learned), generator=generator)[: lesson.batch]]
        drawn = torch.randint(rows.values.shape[1], (len(chosen),), generator=generator)
        spoken = true[chosen].any(dim=0)
        seen = pupil.see(varied(rows.values[chosen, drawn], visual, generator))
        heard = pupil.say([part[spoken] for part in tokens])
        loss = contrast(pupil.logit_scale.exp() * seen @ heard.T, true[chosen][:, spoken])
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise ValueError(
                f"{name}: the loss is {losses[-1]} in step {step + 1} of {lesson.steps}; try another --seed"
            )
        stepper.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
        stepper.step()
        with torch.no_grad():
            pupil.logit_scale.clamp_(max=_LARGEST_SCALE)
        if step % 20 == 19:
            report(step + 1, float(np.mean(losses[-20:])))
    return pupil, {
        "loss": [round(float(np.mean(losses[start : start + 20])), 5) for start in range(0, len(losses), 20)],
        "scale": float(pupil.logit_scale.detach().exp()),
        "captions": len(bank),
        "clips": {"taught": len(learned), "held_out": int(held.sum()), "refused": rows.refused},
        "held_out": _examine(pupil, rows, held, tokens, true),
    }


@torch.no_grad()
def _examine(pupil: Pupil, rows: Rows, held: np.ndarray, tokens: Sequence[Tensor], true: Tensor) -> dict[str, float]:
    """R@1 and R@5 of held-out clips, their middle row, among all captions."""
    if not held.any():
        return {}
    which = torch.from_numpy(np.flatnonzero(held))
    similarity = pupil.see(rows.values[which, rows.values.shape[1] // 2]) @ pupil.say(tokens).T
    return recall_at(similarity.numpy(), true[which].bool().numpy())


def _rate(step: int, steps: int) -> float:
    rise = max(steps // 10, 1)
    return (step + 1) / rise if step < rise else 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))
