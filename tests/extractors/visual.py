"""What the tests of the visual encoders share: a moving picture, and weights on disk in a published format."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from extractors.base import Encoder, build
from extractors.checkpoint import load_strictly
from extractors.choice import identify, resolve
from extractors.recipes import recipe
from tests.extractors.fake_media import FakeMedia


def moving_picture(frames: int = 300, height: int = 120, width: int = 160, fps: float = 30.0) -> FakeMedia:
    """Drifting coloured gratings; no two frames are alike, and the three channels differ."""
    y, x = np.mgrid[:height, :width]
    phases = np.arange(frames)[:, None, None, None] * 0.21 + np.array([0.0, 0.7, 1.9])
    waves = np.sin(x[..., None] / 11 + (y[..., None] / 23) ** 2 + phases) * np.array([110.0, 60.0, 90.0])
    pictures = (127 + waves).astype(np.uint8)
    return FakeMedia(pictures=pictures, fps=fps, dumps={"jpeg-r8": pictures[:82]})


def random_state(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Seeded tensors of these shapes: no bias is zero, no norm trivial, no variance negative."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
        elif name.endswith("running_var"):
            state[name] = 1 + 0.2 * noise.abs()
        elif len(shape) >= 2:
            state[name] = noise * (1.6 / max(noise[0].numel(), 1)) ** 0.5
        elif name.endswith("weight"):
            state[name] = 0.7 + 0.1 * noise
        else:
            state[name] = 0.1 * noise
    return state


def shapes_of(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def load_changed(name: str, path: Path, **changes) -> Encoder:
    """`extractors.base.load` of a recipe with fields of its spec changed, for instance fewer frames per row."""
    chosen = recipe(name)
    encoder = build(dataclasses.replace(chosen.spec, **changes))
    state = resolve(str(path), chosen.weights, encoder.network, encoder.convert)
    load_strictly(encoder.network, state, name, encoder.optional_keys)
    encoder.spec = dataclasses.replace(encoder.spec, weights=identify(str(path), chosen.weights))
    encoder.network.eval().requires_grad_(False)
    return encoder


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())
