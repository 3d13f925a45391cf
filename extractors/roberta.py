"""RoBERTa's byte-pair vocabulary for CLAP's prompts: two files of the user's weight folder.

No package ships them (CLIP's vocabulary comes with open_clip), so they are fetched like a checkpoint, or placed by
hand.  The tokenizer itself is transformers' and needs no hub.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from extractors.download import fetch
from extractors.weights import Weights, WeightsError, cache_folder

TOKENS = 77
_VOCABULARY_SIZE = 50_265
_PAGE = "https://huggingface.co/FacebookAI/roberta-base"

VOCABULARY = Weights(
    name="roberta-base vocabulary",
    file="roberta-base.vocab.json",
    url=f"{_PAGE}/resolve/main/vocab.json",
    page=_PAGE,
    licence_code="MIT",
    licence_weights="MIT",
)
MERGES = Weights(
    name="roberta-base merges",
    file="roberta-base.merges.txt",
    url=f"{_PAGE}/resolve/main/merges.txt",
    page=_PAGE,
    licence_code="MIT",
    licence_weights="MIT",
)


def vocabulary_files(folder: Path | None = None) -> tuple[Path, Path]:
    """Paths of `vocab.json` and `merges.txt`, fetched if they are not there.

    Raises:
        WeightsError: names every missing file, where it goes and where it comes from.
    """
    folder = folder or cache_folder()
    paths, problems = [], []
    for record in (VOCABULARY, MERGES):
        path = folder / record.file
        if not path.is_file():
            try:
                fetch(record, folder)
            except WeightsError:
                problems.append(f"{path} (from {record.url})")
        paths.append(path)
    if problems:
        raise WeightsError(
            "CLAP's prompts need RoBERTa's vocabulary, which no package ships, and it could not be downloaded. "
            f"Place by hand: {'; '.join(problems)}."
        )
    return paths[0], paths[1]


def tokenize(prompts: Sequence[str], folder: Path | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, padded to 77 as CLAP was trained; longer prompts are cut, as published.

    Returns:
        ids (P, 77) int64, mask (P, 77) int64.
    Raises:
        WeightsError: the vocabulary is missing, or is not RoBERTa's.
    """
    from transformers import RobertaTokenizer

    vocabulary_path, merges_path = vocabulary_files(folder)
    vocabulary = json.loads(vocabulary_path.read_text(encoding="utf-8"))
    if len(vocabulary) != _VOCABULARY_SIZE:
        raise WeightsError(
            f"{vocabulary_path} has {len(vocabulary)} tokens, RoBERTa's has {_VOCABULARY_SIZE}: another vocabulary. "
            f"Take the one of {VOCABULARY.url}."
        )
    lines = merges_path.read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    tokenizer = RobertaTokenizer(vocab=vocabulary, merges=merges)
    encoded = tokenizer(list(prompts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
    return encoded["input_ids"], encoded["attention_mask"]
