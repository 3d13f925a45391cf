"""What a teacher is asked: one caption per class and modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.datasets.description import Prompt


@dataclass(frozen=True)
class Captions:
    """The captions of one modality in class order.

    Args:
        modality: `visual` or `audio`.
        classes: names.
        texts: captions, verbatim.
        thresholds: on scaled logits; None where they have to be calibrated.
        sources: publication of each threshold, or `ours`.
    """

    modality: str
    classes: tuple[str, ...]
    texts: tuple[str, ...]
    thresholds: tuple[float | None, ...]
    sources: tuple[str, ...]

    @property
    def shared_prefix(self) -> str:
        """Words at the beginning of every caption, with the blank behind them; LSLD puts them before combinations."""
        split = [text.split(" ") for text in self.texts]
        count = 0
        while all(len(words) > count + 1 and words[count] == split[0][count] for words in split):
            count += 1
        return "".join(f"{word} " for word in split[0][:count]) if len(split) > 1 else ""


def captions(prompts: Sequence[Prompt], modality: str) -> Captions:
    """One modality of a prompt table.

    Raises:
        ValueError: an empty caption, or a caption that two classes share; all are named.
    """
    texts = tuple(prompt.visual if modality == "visual" else prompt.audio for prompt in prompts)
    problems = [
        f"class {prompt.label!r}: no {modality} caption"
        for prompt, text in zip(prompts, texts, strict=True)
        if not text.strip()
    ]
    first: dict[str, str] = {}
    for prompt, text in zip(prompts, texts, strict=True):
        if text.strip() and first.setdefault(text, prompt.label) != prompt.label:
            problems.append(f"classes {first[text]!r} and {prompt.label!r} share the {modality} caption {text!r}")
    if problems:
        raise ValueError("\n  ".join(["prompts cannot tell the classes apart:", *problems]))
    return Captions(
        modality,
        tuple(prompt.label for prompt in prompts),
        texts,
        tuple(prompt.visual_threshold if modality == "visual" else prompt.audio_threshold for prompt in prompts),
        tuple(prompt.source for prompt in prompts),
    )
