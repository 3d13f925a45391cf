"""The other half of a teacher: the captions of the classes in the space of the stored features."""

from __future__ import annotations

import numpy as np

from extractors.spec import FeatureSpec
from pipeline.store import FeatureStore


def teachers(store: FeatureStore, names: dict[str, str]) -> dict[str, tuple[FeatureSpec, str]]:
    """Modality -> spec of the stored features and choice of weights, one teacher for each modality.

    Args:
        names: feature -> choice of weights, or nothing; it decides between features of one name.
    Raises:
        ValueError: features that are not there, that no text belongs to, or two for one modality; all are named.
    """
    found: dict[str, tuple[FeatureSpec, str]] = {}
    problems = []
    for name, choice in names.items():
        try:
            spec = _spec(store, name, choice)
            _check(spec)
        except (ValueError, ImportError, FileNotFoundError) as error:
            problems.append(str(error))
            continue
        if spec.modality in found:
            problems.append(f"{name} and {found[spec.modality][0].name} are both {spec.modality} teachers")
        found[spec.modality] = spec, choice
    if problems:
        raise ValueError("\n  ".join(["these teachers cannot be used:", *problems]))
    return found


def _spec(store: FeatureStore, name: str, choice: str) -> FeatureSpec:
    several = sum(store.spec(key).name == name for key in store) > 1
    return store.spec(store.key(f"{name}={choice}" if several and choice else name))


def _check(spec: FeatureSpec) -> None:
    from extractors.base import build

    if len(spec.shape) != 1 or not hasattr(build(spec), "encode_text"):
        raise ValueError(
            f"{spec.name}: rows of shape {spec.shape} from an encoder "
            f"{'with' if hasattr(build(spec), 'encode_text') else 'without'} captions; a teacher gives one vector per "
            "row in a space shared with text, such as clip-l14:valor2023 or clap:valor2023"
        )


def segment_rows(spec: FeatureSpec) -> int:
    """Feature rows per label segment: 1, or as many as fill a second where rows are shorter.

    Raises:
        ValueError: rows that overlap or do not fit into a second evenly.
    """
    count = max(1, round(1.0 / spec.grid.hop_s))
    even = abs(count * spec.grid.hop_s - 1.0) < 1e-6 if count > 1 else True
    if spec.grid.window_s != spec.grid.hop_s or not even:
        raise ValueError(
            f"{spec.name}: rows of {spec.grid.window_s} s every {spec.grid.hop_s} s; labels need rows that do not "
            "overlap, of a second, of a whole fraction of it, or longer"
        )
    return count


class TextSide:
    """The text tower of a teacher, loaded when the first caption is encoded.

    Args:
        spec: of the stored features.
        choice: `pretrained`, `random:SEED` or a checkpoint file; None takes the seed that the features name, or
            `pretrained`.
    """

    def __init__(self, spec: FeatureSpec, choice: str | None, device: str = "cpu") -> None:
        self.spec, self.device = spec, device
        self.choice = choice or (spec.weights if spec.random_weights else "pretrained")
        self._encoder = None

    @property
    def encoder(self):
        """The loaded encoder.

        Raises:
            ValueError: its weights are not those that made the features.
        """
        if self._encoder is None:
            from extractors.base import load

            encoder = load(self.spec.name, self.choice, self.device, self.spec.precision)
            if encoder.spec.weights != self.spec.weights:
                raise ValueError(
                    f"{self.spec.name}: the features were made with {self.spec.weights}, these weights are "
                    f"{encoder.spec.weights}; give the same checkpoint: --weights {self.spec.name}=PATH"
                )
            self._encoder = encoder
        return self._encoder

    @property
    def scale(self) -> float:
        return float(self.encoder.logit_scale)

    def encode(self, captions: tuple[str, ...]) -> np.ndarray:
        """(P, D) float32 rows of length 1."""
        return self.encoder.encode_text(list(captions)).float().cpu().numpy()
